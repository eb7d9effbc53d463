"""Logs that are not live: archives and slices, and where they are."""

from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from taskyard.cli.errors import Broken, Unreachable, WrongUsage
from taskyard.cli.verification import Verification
from taskyard.contracts.subjects import log_subject
from taskyard.eventlog.archive import MANIFEST, Archive
from taskyard.eventlog.archive_head import Head, check_head, read_head
from taskyard.eventlog.archive_stores import S3_SCHEME, open_store
from taskyard.eventlog.errors import ArchiveDamaged, ArchiveMismatch, ArchiveUnreachable, SliceUnreadable
from taskyard.eventlog.log import StreamMessage
from taskyard.eventlog.slices import SliceLine, SliceReader

Progress = Callable[[int, int], None]


class _Named(Struct, frozen=True):
    writer: str = ""


async def verify(source: str, progress: Progress, head: Path | None = None) -> Verification:
    """Look at an archive or a slice, whichever the source is; at an archive also by its head in a file.

    Raises:
        WrongUsage: it is neither.
        Broken: it is damaged, so that not all of it can be looked at; the message names the place.
        Unreachable: it cannot be read.
    """
    if source.startswith(S3_SCHEME) or Path(source).is_dir():
        return await _verify_archive(source, progress, head)
    if head is not None:
        raise WrongUsage("--head is of an archive")
    return verify_slice(Path(source), progress)


async def open_archive(where: str, partition: str | None = None, head: Path | None = None) -> Archive:
    """The archive at an address, the one of this head; with `partition` a new one where there is none. Raises as `verify`."""
    try:
        archive = await Archive.open(open_store(where), partition)
        if head is not None:
            check_head(archive.manifest, _read_head(head))
        return archive
    except ArchiveDamaged as error:
        if error.name == MANIFEST and "missing" in str(error):
            raise WrongUsage(f"{where} is no archive: it has no {MANIFEST}") from error
        raise Broken(f"{where}: {error}") from error
    except ArchiveMismatch as error:
        raise WrongUsage(f"{where}: {error}") from error
    except ArchiveUnreachable as error:
        raise Unreachable(str(error)) from error


def _read_head(file: Path) -> Head:
    try:
        return read_head(file)
    except (OSError, msgspec.DecodeError) as error:
        raise WrongUsage(f"{file} is no head of an archive: {error}") from error


async def _verify_archive(where: str, progress: Progress, head: Path | None) -> Verification:
    archive = await open_archive(where, head=head)
    verification = Verification(max(archive.first - 1, 0))
    try:
        async for messages in archive.commits():
            verification.see(messages)
            progress(messages[-1].sequence, archive.last)
    except ArchiveDamaged as error:
        raise Broken(f"{where}, behind commit {verification.last}: {error}") from error
    except ArchiveUnreachable as error:
        raise Unreachable(str(error)) from error
    verification.end(archive.last)
    return verification


def verify_slice(path: Path, progress: Progress) -> Verification:
    """Look at the file of a slice. Raises as `verify`."""
    try:
        with path.open("rb") as file:
            reader = SliceReader(file)
            header = reader.header
            verification = Verification(header.first - 1)
            for line in reader.lines():
                verification.see((_message(line, header.partition),))
                progress(line.sequence, header.last)
    except OSError as error:
        raise WrongUsage(f"{path} cannot be read: {error.strerror}") from error
    except SliceUnreadable as error:
        raise Broken(f"{path}: {error}") from error
    verification.end(header.last)
    return verification


def _message(line: SliceLine, partition: str) -> StreamMessage:
    """A line as the message of its log. A slice does not repeat the subject: the writer is the one that the commit names."""
    data = bytes(line.data)
    return StreamMessage(sequence=line.sequence, at=line.at, subject=log_subject(partition, writer_of(data)), data=data)


def writer_of(data: bytes) -> str:
    """The writer that a commit names; empty if it names none."""
    try:
        return msgspec.json.decode(data, type=_Named).writer
    except msgspec.DecodeError:
        return ""
