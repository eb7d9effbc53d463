"""The head of an archive: a few bytes, kept apart from it, by which the archive is known again.

Digests and hashes inside an archive tell what was damaged. Who may write all of it can make another archive that is whole, or
leave out its end. The head is a digest over the segments that there were, so it tells both; an archive that has grown since
is still the one. Whoever may write the archive must not be able to write the head.
"""

from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import Struct

from taskyard.eventlog.archive import MANIFEST, Manifest
from taskyard.eventlog.errors import ArchiveDamaged
from taskyard.private_files import write_private


class Head(Struct, frozen=True, kw_only=True):
    """What an archive held: `segments` of them, up to the commit `last`. Stored: fields may be added with a default."""

    partition: str
    segments: int
    last: int
    digest: str


def head_of(manifest: Manifest, segments: int | None = None) -> Head:
    """The head of an archive, or of its first so many segments."""
    held = manifest.segments[:segments]
    digest = sha256()
    for segment in held:
        digest.update(f"{segment.first} {segment.last} {segment.bytes} {segment.digest}\n".encode())
    last = held[-1].last if held else 0
    return Head(partition=manifest.partition, segments=len(held), last=last, digest=digest.hexdigest())


def check_head(manifest: Manifest, head: Head) -> None:
    """Raises `ArchiveDamaged` unless the archive begins with what the head was made of."""
    found = head_of(manifest, head.segments)
    if found.segments < head.segments:
        raise ArchiveDamaged(
            MANIFEST, f"ends with commit {found.last}, its head names {head.last}: the end was cut off"
        )
    if found != head:
        raise ArchiveDamaged(MANIFEST, f"is another one up to commit {head.last} than its head says: it was changed")


def write_head(file: Path, manifest: Manifest) -> None:
    """Keep the head of an archive in a file. Raises `OSError`."""
    write_private(file, msgspec.json.encode(head_of(manifest)) + b"\n")


def read_head(file: Path) -> Head:
    """The head that a file holds. Raises `OSError`, or `msgspec.DecodeError` for what is none."""
    return msgspec.json.decode(file.read_bytes(), type=Head)
