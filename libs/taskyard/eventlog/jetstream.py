"""The event log and the input streams on JetStream."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Generic, TypeVar

from nats.aio.client import Client

from taskyard.contracts.values import Instant
from taskyard.eventlog.append import APPEND_SECONDS_MAX, AppendRejected, Patience, append_resolved
from taskyard.eventlog.commit import CommitCodec, StoredCommit
from taskyard.eventlog.errors import ApiRefused, CommitTooLarge, Unanswered
from taskyard.eventlog.follower import StreamFollower
from taskyard.eventlog.jetstream_api import (
    EXPECTED_LAST_SUBJECT_SEQUENCE,
    MESSAGE_TOO_LARGE,
    WRONG_LAST_SEQUENCE,
    WRONG_LAST_SEQUENCE_IN_FLIGHT,
    StoredMessage,
    StreamInfo,
    last_message,
    parse_headers,
    parse_time,
    publish,
    stream_info,
)
from taskyard.eventlog.log import CURSOR_SEPARATOR, START, original_time
from taskyard.eventlog.reading import CommitFollower, read_commits
from taskyard.eventlog.tiered import TieredFollower

READ_SECONDS_MAX = 30.0
"""How long reading the head or a writer's last commit is tried."""

E = TypeVar("E")


class JetStreamLog(Generic[E]):
    """One partition's log in the stream `stream`; a writer appends on `<subject_prefix>.<writer>`.

    `append_seconds_max` bounds one append with all its tries; it must exceed what a leader election takes. `archive` is
    the address of the log's archive: what the stream no longer holds is read from there.
    """

    def __init__(
        self,
        nc: Client,
        stream: str,
        subject_prefix: str,
        codec: CommitCodec[E],
        *,
        append_seconds_max: float = APPEND_SECONDS_MAX,
        archive: str | None = None,
    ) -> None:
        self._nc = nc
        self._stream = stream
        self._subject_prefix = subject_prefix
        self._codec = codec
        self._append_seconds_max = append_seconds_max
        self._archive = archive

    async def append(self, data: bytes, *, writer: str, expected: int) -> int:
        """Append an encoded commit after the writer's commit at `expected`: see `EventLog.append`."""
        return await append_resolved(self, data, writer=writer, expected=expected, seconds_max=self._append_seconds_max)

    async def try_append(self, data: bytes, *, writer: str, expected: int) -> int:
        """One try to append: see `Appender`."""
        headers = {EXPECTED_LAST_SUBJECT_SEQUENCE: str(expected)}
        try:
            ack = await publish(self._nc, self._subject(writer), data, headers=headers)
        except ApiRefused as refused:
            if refused.error_code in {WRONG_LAST_SEQUENCE, WRONG_LAST_SEQUENCE_IN_FLIGHT}:
                raise AppendRejected(str(refused)) from refused
            if refused.error_code == MESSAGE_TOO_LARGE:
                raise CommitTooLarge(str(refused)) from refused
            # No leader yet, no space, a busy server: what can pass is tried again until the limit.
            raise Unanswered(str(refused)) from refused
        if ack.stream != self._stream:
            raise Unanswered(f"{self._subject(writer)} is stored by {ack.stream}, not by {self._stream}")
        return ack.seq

    async def read_last(self, writer: str) -> tuple[int, bytes] | None:
        """Sequence and bytes of the writer's last message: see `Appender`."""
        message = await self._last_message(writer)
        return None if message is None else (message.sequence, message.data)

    async def last(self, writer: str) -> StoredCommit[E] | None:
        """The writer's last commit: see `EventLog.last`."""
        patience = Patience(READ_SECONDS_MAX)
        while True:
            try:
                message = await self._last_message(writer)
                break
            except Unanswered as error:
                await patience.pause(error)
        if message is None:
            return None
        at = original_time(parse_headers(message.headers), message.at)
        return self._codec.decode_stored(sequence=message.sequence, at=at, data=message.data, writer=writer)

    async def head(self) -> int:
        """The sequence of the last commit: see `EventLog.head`."""
        return (await _info(self._nc, self._stream)).state.last_seq

    def follow(self, after: int, *, floor: Instant = START) -> CommitFollower[E]:
        """Every commit after `after`: see `EventLog.follow`."""
        messages = TieredFollower(self._nc, self._stream, after=after, floor=floor, archive=self._archive)
        return CommitFollower(messages, self._codec)

    async def read(self, first: int, last: int, *, floor: Instant = START) -> AsyncGenerator[StoredCommit[E], None]:
        """The commits from `first` to `last`: see `EventLog.read`."""
        last = min(last, await self.head())
        if first > last:
            return
        async with aclosing(read_commits(self.follow(first - 1, floor=floor), last)) as commits:
            async for stored in commits:
                yield stored

    def _subject(self, writer: str) -> str:
        return f"{self._subject_prefix}.{writer}"

    async def _last_message(self, writer: str) -> StoredMessage | None:
        try:
            return await last_message(self._nc, self._stream, self._subject(writer))
        except ApiRefused as refused:
            raise Unanswered(str(refused)) from refused


class JetStreamInput:
    """A stream of commands or reports, whole or narrowed to `filter_subject`."""

    def __init__(self, nc: Client, stream: str, *, filter_subject: str = "") -> None:
        self._nc = nc
        self._stream = stream
        self._filter_subject = filter_subject
        self._created = ""
        self.cursor = ""
        """The cursor's name, as `cursor_name` told it last."""

    @property
    def name(self) -> str:
        """The stream's name."""
        return self._stream

    async def cursor_name(self) -> str:
        """The stream's name and when it was made, in microseconds: see `InputStream.cursor_name`."""
        self._created = (await _info(self._nc, self._stream)).created
        self.cursor = _cursor(self._stream, self._created)
        return self.cursor

    async def mark(self) -> tuple[str, int]:
        """The cursor's name and the sequence of the last message that the whole stream ever stored.

        Raises:
            LogUnavailable: the stream gave no answer within the limit.
        """
        info = await _info(self._nc, self._stream)
        return _cursor(self._stream, info.created), info.state.last_seq

    async def end(self) -> int:
        """The sequence of the last message: see `InputStream.end`.

        A whole stream is asked for its state: the search for the last message finds none where the very last was deleted.
        """
        if not self._filter_subject:
            state = (await _info(self._nc, self._stream)).state
            return state.last_seq if state.messages else 0
        patience = Patience(READ_SECONDS_MAX)
        while True:
            try:
                message = await last_message(self._nc, self._stream, self._filter_subject)
            except (ApiRefused, Unanswered) as error:
                await patience.pause(error)
            else:
                return 0 if message is None else message.sequence

    def follow(self, after: int, *, floor: Instant = START) -> StreamFollower:
        """Every message after `after`: see `InputStream.follow`."""
        return StreamFollower(
            self._nc,
            self._stream,
            after=after,
            floor=floor,
            filter_subject=self._filter_subject,
            created=self._created,
        )


def _cursor(stream: str, created: str) -> str:
    return f"{stream}{CURSOR_SEPARATOR}{parse_time(created)}"


async def _info(nc: Client, stream: str) -> StreamInfo:
    patience = Patience(READ_SECONDS_MAX)
    while True:
        try:
            return await stream_info(nc, stream)
        except (ApiRefused, Unanswered) as error:
            await patience.pause(error)
