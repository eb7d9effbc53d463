"""A commit: the batch of events that one writer decided together, stored as one message, and its JSON codec.

Wire format: stored for ever. Fields may be added with a default, never renamed, removed or given another meaning.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Generic, TypeVar, cast

import msgspec
from msgspec import Raw, Struct

from taskyard.contracts.readable import UNREADABLE
from taskyard.contracts.values import EVENTS_PER_COMMIT_MAX, Instant
from taskyard.eventlog.errors import CommitTooLarge, CommitUnreadable

COMMIT_BYTES_MAX = 512 * 1024
"""The longest stored form of a commit, in bytes. Names that only subjects bear may add to it."""
COMMIT_BYTES_AIM = COMMIT_BYTES_MAX // 2
"""What several inputs together may make: a larger commit is decided again with fewer of them."""

HASH_BYTES = 16

E = TypeVar("E")


class Commit(Struct, Generic[E], frozen=True, kw_only=True):
    """What a writer appends. One without events and with a higher epoch is a takeover.

    `at` is the writer's own clock, for information only: the fold's time is the stream's. `previous` is the hash of
    this writer's commit before ("" for its first), so that a loss or a forgery shows. `cursors` names, per input
    stream, the last sequence accounted for so far; readers merge it per stream and never replace it as a whole.
    """

    writer: str
    instance: str
    epoch: int
    at: Instant
    previous: str = ""
    cursors: dict[str, int] = {}
    events: tuple[E, ...] = ()


class StoredCommit(Struct, Generic[E], frozen=True, kw_only=True):
    """A commit as it stands in the log.

    `at` is the stream's timestamp; a follower clamps it so that it never goes back. `hash` is of the exact stored
    bytes: the writer's next commit names it as `previous`. `size` is their number, by which readers bound what they keep.
    """

    sequence: int
    at: Instant
    commit: Commit[E]
    hash: str
    size: int = 0


def hash_commit(data: bytes) -> str:
    """The hash of the stored form of a commit: BLAKE2b, 16 bytes, hexadecimal."""
    return blake2b(data, digest_size=HASH_BYTES).hexdigest()


class CommitCodec(Generic[E]):
    """Encodes and decodes commits whose events are of `event_type` (a tagged union of Structs).

    `decode_event` makes one event from its raw JSON (a view: keep a copy of it) and must survive a type or a form that
    it does not know: during an upgrade a newer writer appends before every reader is new.
    """

    def __init__(self, event_type: Any, decode_event: Callable[[Raw], E]) -> None:
        self._decode_event = decode_event
        self._encode = msgspec.json.Encoder().encode
        # A generic Struct is parametrised at run time here, which static types cannot express.
        self._decode_known = cast("Callable[[bytes], Commit[E]]", msgspec.json.Decoder(Commit[event_type]).decode)
        self._decode_raw = msgspec.json.Decoder(Commit[Raw]).decode

    def encode(self, commit: Commit[E]) -> bytes:
        """The stored form of a commit.

        Raises:
            CommitTooLarge: it exceeds COMMIT_BYTES_MAX or EVENTS_PER_COMMIT_MAX.
        """
        if len(commit.events) > EVENTS_PER_COMMIT_MAX:
            raise CommitTooLarge(f"{len(commit.events)} events, at most {EVENTS_PER_COMMIT_MAX} fit a commit")
        data = self._encode(commit)
        if len(data) > COMMIT_BYTES_MAX:
            raise CommitTooLarge(f"{len(data)} bytes, at most {COMMIT_BYTES_MAX} fit a commit")
        return data

    def decode(self, data: bytes) -> Commit[E]:
        """The commit of a stored form. Known events are decoded at once, and one by one where that fails.

        Raises:
            CommitUnreadable: the bytes are no commit at all.
        """
        try:
            return self._decode_known(data)
        except UNREADABLE:
            return self._decode_singly(data)

    def decode_stored(self, *, sequence: int, at: Instant, data: bytes, writer: str) -> StoredCommit[E]:
        """The stored commit of a message that was appended on the subject of `writer`.

        Raises:
            CommitUnreadable: the bytes are no commit, or one in another writer's name.
        """
        commit = self.decode(data)
        if commit.writer != writer:
            raise CommitUnreadable(f"commit {sequence} of {writer} bears the name {commit.writer[:64]!r}")
        return StoredCommit(sequence=sequence, at=at, commit=commit, hash=hash_commit(data), size=len(data))

    def _decode_singly(self, data: bytes) -> Commit[E]:
        try:
            raw = self._decode_raw(data)
            events = tuple(self._decode_event(event) for event in raw.events)
        except UNREADABLE as error:
            raise CommitUnreadable(str(error)) from error
        return Commit(
            writer=raw.writer,
            instance=raw.instance,
            epoch=raw.epoch,
            at=raw.at,
            previous=raw.previous,
            cursors=raw.cursors,
            events=events,
        )
