"""The ports of this package: the event log, and the input streams that services read beside it."""

from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Protocol, Self, TypeVar

from msgspec import Struct

from taskyard.contracts.values import Instant
from taskyard.eventlog.commit import StoredCommit

E = TypeVar("E")
T = TypeVar("T")

START = Instant(0)
"""The floor of a follower that begins without an earlier log time."""

CURSOR_SEPARATOR = "@"
"""Between the name of an input stream and what tells it from another of that name, in the key of its cursor."""

ORIGINAL_TIME = "Taskyard-Log-Time"
"""Header of a commit that was copied from another log (restored, mirrored): its time there, in microseconds.

A stream stamps what it stores with its own time, and the fold goes by the time of the log that was first; so every
reader of a log prefers this one. Streams that others may write to are never read so.
"""


class StreamMessage(Struct, frozen=True, kw_only=True):
    """One message of a stream. `at` is the stream's timestamp; a follower clamps it so that it never goes back."""

    sequence: int
    at: Instant
    subject: str
    data: bytes
    headers: Mapping[str, str] | None = None


def original_time(headers: Mapping[str, str] | None, stored: Instant) -> Instant:
    """The log time of a commit that its stream stamped with `stored`: that of the log it was copied from, if it was."""
    text = headers.get(ORIGINAL_TIME) if headers else None
    return Instant(int(text)) if text and text.isascii() and text.isdecimal() else stored


class Batches(Protocol[T]):
    """What following gives: an async context manager whose iteration yields non-empty lists, for as long as it is open.

    A batch is everything that has arrived, up to a bound, and comes as soon as anything is there. Iteration may be
    cancelled at any await without losing a message.
    """

    async def __aenter__(self) -> Self:
        """Begin to follow."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop following and free what the server holds for it."""
        ...

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> list[T]:
        """The next batch; waits until there is one.

        Raises:
            LogUnavailable: the stream could not be followed for longer than the limit.
            LogGap: the log lost commits.
            CommitUnreadable: a commit of the log cannot be understood.
        """
        ...


class EventLog(Protocol[E]):
    """One partition's log: every writer's commits in one total order without gaps."""

    async def append(self, data: bytes, *, writer: str, expected: int) -> int:
        """Append an encoded commit if the writer's last one is at `expected` (0: it has none); the new sequence.

        An unanswered try is resolved here: the writer's last message decides whether it was stored. When cancelled, the
        outcome is unknown and the caller must fold the log before it decides anything.

        Raises:
            FenceMoved: another commit of this writer stands there; this one is not stored.
            LogUnavailable: no answer within the limit; the outcome is unknown.
            CommitTooLarge: more bytes than a commit may have.
        """
        ...

    async def last(self, writer: str) -> StoredCommit[E] | None:
        """The writer's last commit (its `at` unclamped), from the leader of the stream.

        Raises:
            LogUnavailable: the stream gave no answer within the limit.
        """
        ...

    async def head(self) -> int:
        """The sequence of the last commit of all writers; 0 for an empty log.

        Raises:
            LogUnavailable: the stream gave no answer within the limit.
        """
        ...

    def follow(self, after: int, *, floor: Instant = START) -> Batches[StoredCommit[E]]:
        """Every commit after the sequence `after`, without gap or duplicate, and then what is appended.

        `floor` is the log time already reached (of the snapshot that the fold begins with): no `at` is below it.
        """
        ...

    def read(self, first: int, last: int, *, floor: Instant = START) -> AsyncGenerator[StoredCommit[E], None]:
        """The commits from `first` to `last`, both included; ends early where the log ends now.

        Close it where it is left early: it follows the log.
        """
        ...


class InputStream(Protocol):
    """A stream of commands or reports, of which old messages expire."""

    @property
    def name(self) -> str:
        """The stream's name."""
        ...

    async def cursor_name(self) -> str:
        """The key of its cursor in commits: the stream's name and, behind CURSOR_SEPARATOR, which stream of it this is.

        One that was deleted and made anew counts from 1 again, so a cursor of the former one must not be its.

        Raises:
            LogUnavailable: the stream gave no answer within the limit.
        """
        ...

    async def end(self) -> int:
        """The sequence of the last message that is there and belongs to it; 0 if none does.

        Raises:
            LogUnavailable: the stream gave no answer within the limit.
        """
        ...

    def follow(self, after: int, *, floor: Instant = START) -> Batches[StreamMessage]:
        """Every message after the sequence `after`; from the first that is left, where that one has expired.

        A stream that ends before `after` lost messages and is read again from its start: inputs may come twice. One
        that is no longer the stream that `cursor_name` told of raises `StreamReplaced`.
        """
        ...
