"""The twin of the real log: streams in this process, with an injected clock, several handles, and injected faults.

One `MemoryStream` is what all handles share, as instances of services share a JetStream stream. Its methods are
synchronous; the handles give it the shape of the ports. Nothing here waits but a reader for a message.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Generic, Self, TypeVar

from taskyard.contracts.values import Instant
from taskyard.eventlog.append import APPEND_SECONDS_MAX, AppendRejected, append_resolved
from taskyard.eventlog.commit import CommitCodec, StoredCommit
from taskyard.eventlog.errors import LogGap, StreamReplaced, Unanswered
from taskyard.eventlog.log import CURSOR_SEPARATOR, START, StreamMessage
from taskyard.eventlog.reading import CommitFollower, decode_message, read_commits

BATCH_MESSAGES_MAX = 1_024

Clock = Callable[[], Instant]
E = TypeVar("E")


class MemoryStream:
    """A stream: messages in order, numbered from 1, stamped by `clock`."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.made = 1
        self._clock = clock
        self._messages: list[StreamMessage] = []
        self._expired = 0
        self._last_by_subject: dict[str, StreamMessage] = {}
        self._readers: set[asyncio.Event] = set()

    @property
    def head(self) -> int:
        """The sequence of the last message; 0 if none was ever stored."""
        return self._expired + len(self._messages)

    def store(
        self, subject: str, data: bytes, *, expected: int | None = None, headers: Mapping[str, str] | None = None
    ) -> int:
        """Store one message, if the last one of its subject is at `expected` where that is given; its sequence.

        Raises:
            AppendRejected: the last one is elsewhere.
        """
        last = self.last(subject)
        found = last.sequence if last else 0
        if expected is not None and found != expected:
            raise AppendRejected(f"wrong last sequence: {found}")
        message = StreamMessage(sequence=self.head + 1, at=self._clock(), subject=subject, data=data, headers=headers)
        self._messages.append(message)
        self._last_by_subject[subject] = message
        for reader in self._readers:
            reader.set()
        return message.sequence

    def last(self, subject: str) -> StreamMessage | None:
        """The last message of a subject."""
        message = self._last_by_subject.get(subject)
        return message if message and message.sequence > self._expired else None

    def after(self, sequence: int) -> list[StreamMessage]:
        """The messages after a sequence, a batch at most."""
        start = max(sequence - self._expired, 0)
        return self._messages[start : start + BATCH_MESSAGES_MAX]

    def expire(self, through: int) -> None:
        """Forget the messages up to a sequence, as age does it to an input stream."""
        through = min(through, self.head)
        if through > self._expired:
            del self._messages[: through - self._expired]
            self._expired = through

    def lose_end(self, last: int) -> None:
        """Lose the messages behind a sequence, as a server does that crashed before they were on its disk."""
        del self._messages[max(last - self._expired, 0) :]

    def make_anew(self) -> None:
        """Be another stream of this name, without messages: the former one was deleted."""
        self.made += 1
        self._messages.clear()
        self._expired = 0
        self._last_by_subject.clear()
        for reader in self._readers:
            reader.set()

    def add_reader(self, arrived: asyncio.Event) -> None:
        """Have `arrived` set whenever a message is stored."""
        self._readers.add(arrived)

    def remove_reader(self, arrived: asyncio.Event) -> None:
        """End what `add_reader` began."""
        self._readers.discard(arrived)


class MemoryFollower:
    """Batches of a `MemoryStream`: see `StreamFollower`, whose twin it is."""

    def __init__(self, stream: MemoryStream, *, after: int, floor: Instant, contiguous: bool) -> None:
        self._stream = stream
        self._made = stream.made
        self._last = after
        self._floor = floor
        self._contiguous = contiguous
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        if self._stream.head < self._last:
            if self._contiguous:
                raise LogGap(stream=self._stream.name, expected=self._last + 1, actual=self._stream.head + 1)
            self._last = 0
        self._stream.add_reader(self._arrived)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.remove_reader(self._arrived)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[StreamMessage]:
        while not (batch := self._batch()):
            self._arrived.clear()
            await self._arrived.wait()
        if self._contiguous and batch[0].sequence != self._last + 1:
            raise LogGap(stream=self._stream.name, expected=self._last + 1, actual=batch[0].sequence)
        self._last = batch[-1].sequence
        return [self._clamp(message) for message in batch]

    def _batch(self) -> list[StreamMessage]:
        if self._stream.made != self._made:
            raise StreamReplaced(self._stream.name)
        return self._stream.after(self._last)

    def _clamp(self, message: StreamMessage) -> StreamMessage:
        if message.at >= self._floor:
            self._floor = message.at
            return message
        return StreamMessage(
            sequence=message.sequence,
            at=self._floor,
            subject=message.subject,
            data=message.data,
            headers=message.headers,
        )


class MemoryLog(Generic[E]):
    """One handle of a log in memory; make one for each instance, over the same stream."""

    def __init__(
        self,
        stream: MemoryStream,
        subject_prefix: str,
        codec: CommitCodec[E],
        *,
        append_seconds_max: float = APPEND_SECONDS_MAX,
    ) -> None:
        self._stream = stream
        self._subject_prefix = subject_prefix
        self._codec = codec
        self._append_seconds_max = append_seconds_max
        self._unanswered: list[bool] = []

    def fail_next_append(self, *, stored: bool) -> None:
        """Leave the next try of this handle without an answer: stored all the same, or lost. Calls queue up."""
        self._unanswered.append(stored)

    async def append(self, data: bytes, *, writer: str, expected: int) -> int:
        """Append an encoded commit after the writer's commit at `expected`: see `EventLog.append`."""
        return await append_resolved(self, data, writer=writer, expected=expected, seconds_max=self._append_seconds_max)

    async def try_append(self, data: bytes, *, writer: str, expected: int) -> int:
        """One try to append: see `Appender`."""
        if not self._unanswered:
            return self._stream.store(self._subject(writer), data, expected=expected)
        if self._unanswered.pop(0):
            self._stream.store(self._subject(writer), data, expected=expected)
        raise Unanswered("a fault was injected")

    async def read_last(self, writer: str) -> tuple[int, bytes] | None:
        """Sequence and bytes of the writer's last message: see `Appender`."""
        message = self._stream.last(self._subject(writer))
        return None if message is None else (message.sequence, message.data)

    async def last(self, writer: str) -> StoredCommit[E] | None:
        """The writer's last commit: see `EventLog.last`."""
        message = self._stream.last(self._subject(writer))
        return None if message is None else decode_message(self._codec, message)

    async def head(self) -> int:
        """The sequence of the last commit: see `EventLog.head`."""
        return self._stream.head

    def follow(self, after: int, *, floor: Instant = START) -> CommitFollower[E]:
        """Every commit after `after`: see `EventLog.follow`."""
        messages = MemoryFollower(self._stream, after=after, floor=floor, contiguous=True)
        return CommitFollower(messages, self._codec)

    async def read(self, first: int, last: int, *, floor: Instant = START) -> AsyncGenerator[StoredCommit[E], None]:
        """The commits from `first` to `last`: see `EventLog.read`."""
        last = min(last, self._stream.head)
        if first > last:
            return
        async with aclosing(read_commits(self.follow(first - 1, floor=floor), last)) as commits:
            async for stored in commits:
                yield stored

    def _subject(self, writer: str) -> str:
        return f"{self._subject_prefix}.{writer}"


class MemoryInput:
    """A handle of an input stream in memory."""

    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream

    @property
    def name(self) -> str:
        """The stream's name."""
        return self._stream.name

    async def cursor_name(self) -> str:
        """The key of its cursor in commits: see `InputStream.cursor_name`."""
        return f"{self._stream.name}{CURSOR_SEPARATOR}{self._stream.made}"

    async def end(self) -> int:
        """The sequence of the last message: see `InputStream.end`."""
        left = self._stream.after(0)
        return left[-1].sequence if left else 0

    def follow(self, after: int, *, floor: Instant = START) -> MemoryFollower:
        """Every message after `after`: see `InputStream.follow`."""
        return MemoryFollower(self._stream, after=after, floor=floor, contiguous=False)
