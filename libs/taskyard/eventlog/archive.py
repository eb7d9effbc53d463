"""An archive of a log: immutable, compressed segments, and a manifest that names them with their digests.

    manifest.json                                              what is in the archive; written last, replaced as a whole
    00000000000000000001-00000000000000004096.jsonl.gz         one segment: the commits of these sequences

A segment is gzip of JSON Lines, which any tool still reads in ten years, one line for each commit:

    {"sequence":1,"at":1795000000000000,"writer":"scheduler","data":{"writer":"scheduler",…}}

`at` is the log time in microseconds; `data` is the commit with exactly the bytes that the log stores (`base64` in its
place where these are no single line of JSON), so that the hash chain holds in the archive as it does in the log.

A segment is written, read back and compared, and only then named by the manifest. So whatever is interrupted leaves the
archive as it was; what the manifest does not name is written again.

Stored form: read by later versions. Fields may be added with a default, never renamed, removed or given another meaning.
"""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from io import BytesIO
from typing import Protocol

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from taskyard.contracts.subjects import log_subject
from taskyard.contracts.values import Instant
from taskyard.eventlog.commit import hash_commit
from taskyard.eventlog.errors import ArchiveDamaged, ArchiveMismatch
from taskyard.eventlog.log import StreamMessage

ARCHIVE_FORMAT = 1
MANIFEST = "manifest.json"
SEGMENT_SUFFIX = ".jsonl.gz"
SEGMENT_COMMITS_MAX = 10_000
SEGMENT_BYTES_MAX = 32 << 20
"""A segment ends with the commit that reaches one of these (before compression): it is held in memory as a whole."""
COMPRESSION_LEVEL = 6


class ArchiveStore(Protocol):
    """Where the files of an archive are kept."""

    async def read(self, name: str) -> bytes | None:
        """The content of a file, None if there is none. Raises `ArchiveUnreachable`."""
        ...

    async def write(self, name: str, data: bytes) -> None:
        """Put a file there as a whole, in the place of one of that name. Durable on return.

        Raises:
            ArchiveUnreachable: it was not stored.
        """
        ...


class Segment(Struct, frozen=True, kw_only=True):
    """One segment: `first` and `last` are sequences of commits, `bytes` and `digest` (SHA-256) are of the file."""

    name: str
    first: int
    last: int
    first_at: Instant
    last_at: Instant
    bytes: int
    digest: str


class Manifest(Struct, frozen=True, kw_only=True):
    """What an archive holds, in log order and without gaps. `last_hash` is of the last commit: the log goes on from it."""

    format: int = ARCHIVE_FORMAT
    partition: str
    segments: tuple[Segment, ...] = ()
    last_hash: str = ""


class _Line(Struct, frozen=True, omit_defaults=True):
    sequence: int
    at: Instant
    writer: str
    data: Raw | UnsetType = UNSET
    base64: bytes | UnsetType = UNSET


class _Format(Struct, frozen=True):
    format: int


_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_raw = msgspec.json.Decoder(Raw).decode


class Archive:
    """The archive in a store. Open it with `Archive.open`."""

    def __init__(self, store: ArchiveStore, manifest: Manifest) -> None:
        self._store = store
        self.manifest = manifest

    @classmethod
    async def open(cls, store: ArchiveStore, partition: str | None = None) -> "Archive":
        """The archive in `store`; a new one for the log of `partition` where there is none yet.

        Raises:
            ArchiveDamaged: the manifest is missing (without `partition`), unreadable, or of a later format.
            ArchiveMismatch: it is the archive of another partition.
            ArchiveUnreachable: the store gives no answer.
        """
        data = await store.read(MANIFEST)
        if data is None:
            if partition is None:
                raise ArchiveDamaged(MANIFEST, "is missing: there is no archive")
            return cls(store, Manifest(partition=partition))
        manifest = _parse_manifest(data)
        if partition is not None and manifest.partition != partition:
            raise ArchiveMismatch(f"the archive is of partition {manifest.partition}, not of {partition}")
        return cls(store, manifest)

    @property
    def first(self) -> int:
        """The sequence of the first commit; 0 for an empty archive."""
        return self.manifest.segments[0].first if self.manifest.segments else 0

    @property
    def last(self) -> int:
        """The sequence of the last commit; 0 for an empty archive."""
        return self.manifest.segments[-1].last if self.manifest.segments else 0

    @property
    def last_at(self) -> Instant:
        """The log time of the last commit; 0 for an empty archive."""
        return self.manifest.segments[-1].last_at if self.manifest.segments else Instant(0)

    async def add(self, commits: Sequence[StreamMessage]) -> Segment:
        """Add the next commits as one segment: written, read back, and then named by the manifest.

        Raises:
            ArchiveDamaged: what was read back is not what was written.
            ArchiveMismatch: they do not follow the last commit: a bug of the caller.
            ArchiveUnreachable: the store gives no answer; the archive is as it was.
        """
        if self.last and commits[0].sequence != self.last + 1:
            raise ArchiveMismatch(f"commit {commits[0].sequence} does not follow {self.last}, the last one archived")
        name = segment_name(commits[0].sequence, commits[-1].sequence)
        data = await asyncio.to_thread(encode_segment, commits)
        await self._store.write(name, data)
        segment = Segment(
            name=name,
            first=commits[0].sequence,
            last=commits[-1].sequence,
            first_at=commits[0].at,
            last_at=commits[-1].at,
            bytes=len(data),
            digest=_digest(data),
        )
        if await self.read(segment) != list(commits):
            raise ArchiveDamaged(name, "does not say what was written into it")
        segments = (*self.manifest.segments, segment)
        manifest = msgspec.structs.replace(self.manifest, segments=segments, last_hash=hash_commit(commits[-1].data))
        await self._store.write(MANIFEST, msgspec.json.format(_encode(manifest), indent=1) + b"\n")
        self.manifest = manifest
        return segment

    async def read(self, segment: Segment) -> list[StreamMessage]:
        """The commits of a segment.

        Raises:
            ArchiveDamaged: the file is missing, or is not what the manifest says.
            ArchiveUnreachable: the store gives no answer.
        """
        data = await self._store.read(segment.name)
        if data is None:
            raise ArchiveDamaged(segment.name, "is missing")
        if len(data) != segment.bytes or _digest(data) != segment.digest:
            raise ArchiveDamaged(segment.name, "has another digest than the manifest says: it was altered or cut off")
        return await asyncio.to_thread(_decode_segment, segment, data, self.manifest.partition)

    async def commits(self) -> AsyncIterator[list[StreamMessage]]:
        """All commits, a segment at a time. Raises as `read`."""
        for segment in self.manifest.segments:
            yield await self.read(segment)


def segment_name(first: int, last: int) -> str:
    """The name of a segment: names sort as their commits do."""
    return f"{first:020d}-{last:020d}{SEGMENT_SUFFIX}"


def encode_segment(commits: Sequence[StreamMessage]) -> bytes:
    """The file of a segment; the same commits always give the same bytes."""
    file = BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=COMPRESSION_LEVEL, fileobj=file, mtime=0) as lines:
        for message in commits:  # one by one: the text of all would take as much memory again
            lines.write(_encode(_line(message)) + b"\n")
    return file.getvalue()


def _line(message: StreamMessage) -> _Line:
    writer = message.subject.rpartition(".")[2]
    data = message.data
    if _is_one_line(data):
        return _Line(sequence=message.sequence, at=message.at, writer=writer, data=Raw(data))
    return _Line(sequence=message.sequence, at=message.at, writer=writer, base64=data)


def _is_one_line(data: bytes) -> bool:
    """Whether the bytes come back as they are from within a line of JSON."""
    if b"\n" in data or b"\r" in data or not data.startswith(b"{") or not data.endswith(b"}"):
        return False
    try:
        return bytes(_decode_raw(data)) == data
    except msgspec.DecodeError:
        return False


def _decode_segment(segment: Segment, data: bytes, partition: str) -> list[StreamMessage]:
    commits: list[StreamMessage] = []
    try:
        with gzip.GzipFile(fileobj=BytesIO(data)) as lines:
            for text in lines:
                line = _decode_line(text)
                stored = line.base64 if line.data is UNSET else bytes(line.data)
                if stored is UNSET or line.sequence != segment.first + len(commits):
                    raise ArchiveDamaged(segment.name, f"commit {line.sequence} stands at the wrong place or is empty")
                subject = log_subject(partition, line.writer)
                commits.append(StreamMessage(sequence=line.sequence, at=line.at, subject=subject, data=stored))
    except (OSError, EOFError, zlib.error, msgspec.DecodeError) as error:
        raise ArchiveDamaged(segment.name, f"is no segment: {error}") from error
    if segment.first + len(commits) != segment.last + 1:
        raise ArchiveDamaged(segment.name, f"ends with commit {segment.first + len(commits) - 1}")
    return commits


def _parse_manifest(data: bytes) -> Manifest:
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found != ARCHIVE_FORMAT:
            raise ArchiveDamaged(MANIFEST, f"format {found} is not known here, only {ARCHIVE_FORMAT}")
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise ArchiveDamaged(MANIFEST, f"is no manifest: {error}") from error
    expected = manifest.segments[0].first if manifest.segments else 0
    for segment in manifest.segments:
        if segment.first != expected or segment.last < segment.first:
            raise ArchiveDamaged(MANIFEST, f"{segment.name} stands where commit {expected} is expected")
        expected = segment.last + 1
    return manifest


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()
