"""Copies a log into another server as it is: the same bytes at the same sequences, with their original log times.

The copy's stream stamps what it stores with its own time, so each commit bears its original one in a header that every
reader of a log prefers. Each is stored only behind its predecessor (`Nats-Expected-Last-Sequence`), so that copies which
are sent twice, or by two programs, can neither double nor reorder anything; whatever is interrupted goes on later.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, TypeVar

from nats.aio.client import Client

from taskyard.contracts.subjects import StreamSpec
from taskyard.contracts.values import Instant
from taskyard.eventlog.answers import delete_stream, find_stream, until_answered
from taskyard.eventlog.append import Patience
from taskyard.eventlog.errors import ApiRefused, CopyRefused, EventLogError, LogUnavailable
from taskyard.eventlog.follower import StreamFollower
from taskyard.eventlog.jetstream_api import (
    EXPECTED_LAST_SEQUENCE,
    STORE_NOT_CREATED,
    StoredMessage,
    StreamInfo,
    api_request,
    message_at,
    parse_headers,
    publish,
)
from taskyard.eventlog.log import ORIGINAL_TIME, StreamMessage
from taskyard.eventlog.streams import NO_SUITABLE_PEERS, find_dangers, stream_config

COPY_SECONDS_MAX = 60.0
"""How long the next commits are tried, over restarts and elections of the server that takes them."""
CALL_SECONDS_MAX = 10.0
"""How long one try may take: as many flushes of a slow disk as commits are sent at once."""
AT_ONCE_COMMITS_MAX = 256
AT_ONCE_BYTES_MAX = 4 << 20
SILENCE_SECONDS_MAX = 30.0
"""How long reading what is stored may stand still; a restart of the server passes unnoticed."""
BEHIND_SECONDS_MAX = 10.0
"""How long the copy may end before what was stored in it."""

T = TypeVar("T")


class LogDigest:
    """A digest of commits in their order: sequence, log time, writer and bytes. Equal digests mean equal logs."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self.commits = 0

    def add(self, messages: Iterable[StreamMessage]) -> None:
        """Take in the next commits."""
        for message in messages:
            head = f"{message.sequence} {message.at} {message.subject} {len(message.data)}\n"
            self._hash.update(head.encode())
            self._hash.update(message.data)
            self.commits += 1

    def __str__(self) -> str:
        return self._hash.hexdigest()


class LogCopy:
    """The log that is copied into: the stream of `spec` in the server and account of `nc`.

    `snapshots` is the bucket of states that were folded from the log there. Where a copy begins they are of another log,
    that was there before, and whoever began with one would go on from what never happened: they are deleted.
    """

    def __init__(self, nc: Client, spec: StreamSpec, *, replicas: int = 1, snapshots: str = "") -> None:
        self._nc = nc
        self._spec = spec
        self._replicas = replicas
        self._snapshots = snapshots

    async def prepare(self, first: int) -> int:
        """Make the stream that begins with the sequence `first`, or find the one that a former copy left; its end.

        That one may begin earlier: the original may have left its beginning to an archive since.

        Raises:
            CopyRefused: the stream is not one that this copy could go on with.
            LogUnavailable: the server gave no answer within the limit.
        """
        found = await self._find()
        if found is None:
            if self._snapshots:
                await _copied(delete_stream(self._nc, self._snapshots, COPY_SECONDS_MAX))
            config = {**stream_config(self._spec, self._replicas), "first_seq": first}
            call = f"STREAM.CREATE.{self._spec.name}"
            # Servers that have just met may not all be there yet, and the files of the log before a next generation still be.
            passing = (NO_SUITABLE_PEERS, STORE_NOT_CREATED)
            await _copied(
                until_answered(lambda: api_request(self._nc, call, config), COPY_SECONDS_MAX, passing=passing)
            )
            return first - 1
        for setting, wanted, value in find_dangers(self._spec, found.config):
            raise CopyRefused(f"{self._spec.name} has {setting} = {value!r}, which must be {wanted!r}")
        state = found.state
        if state.messages == 0 and state.last_seq != first - 1:
            raise CopyRefused(f"{self._spec.name} is there and would begin with {state.last_seq + 1}, not with {first}")
        if state.messages and not state.first_seq <= first <= state.last_seq + 1:
            held = f"{state.first_seq} to {state.last_seq}"
            raise CopyRefused(f"{self._spec.name} holds commits {held}, and the next to be copied is {first}")
        return state.last_seq

    async def require_copy(self, sequence: int, subject: str, data: bytes) -> Instant:
        """Make sure that what stands at a sequence is this commit, and was put there as a copy; its original time.

        Raises:
            CopyRefused: it is a log that lives by itself, or that of something else.
            LogUnavailable: the server gave no answer within the limit.
        """
        stored = await self._at(sequence)
        if stored is None or stored.data != data or stored.subject != subject:
            raise CopyRefused(f"{self._spec.name} is not empty, and its commit {sequence} is another one")
        time = parse_headers(stored.headers).get(ORIGINAL_TIME, "")
        if not time.isdecimal():
            raise CopyRefused(f"{self._spec.name} is not empty: it is no copy, services have written its end")
        return Instant(int(time))

    def read(self, first: int, last: int) -> AsyncIterator[list[StreamMessage]]:
        """The commits of the copy: see `read_messages`."""
        return read_messages(self._nc, self._spec.name, first, last)

    async def store(self, messages: Sequence[StreamMessage]) -> None:
        """Store the next commits; on return all of them are.

        Raises:
            CopyRefused: somebody else wrote something else there.
            LogUnavailable: the server gave no answer within the limit; what was stored stays.
        """
        for some in _bounded(messages):
            await self._store_all(some)

    async def _store_all(self, messages: Sequence[StreamMessage]) -> None:
        patience = Patience(COPY_SECONDS_MAX)
        left = messages
        while left:
            outcomes = await asyncio.gather(*map(self._store_one, left), return_exceptions=True)
            failed = next((outcome for outcome in outcomes if outcome is not None), None)
            if failed is None:
                return
            if isinstance(failed, CopyRefused) or not isinstance(failed, EventLogError):
                raise failed
            await patience.pause(failed)
            # A try without an answer may have been stored: what counts is what stands there.
            end = await self._end(left[0].sequence - 1)
            stored = [message for message in left if message.sequence <= end]
            if stored:
                await self.require_copy(stored[-1].sequence, stored[-1].subject, stored[-1].data)
            left = left[len(stored) :]

    async def _store_one(self, message: StreamMessage) -> None:
        headers = {EXPECTED_LAST_SEQUENCE: str(message.sequence - 1), ORIGINAL_TIME: str(message.at)}
        ack = await publish(self._nc, message.subject, message.data, headers=headers, timeout=CALL_SECONDS_MAX)
        if ack.stream != self._spec.name or ack.seq != message.sequence:
            raise CopyRefused(f"commit {message.sequence} was stored in {ack.stream} at {ack.seq}")

    async def _find(self) -> StreamInfo | None:
        return await _copied(find_stream(self._nc, self._spec.name, COPY_SECONDS_MAX))

    async def _end(self, known: int) -> int:
        """Where the copy ends: at `known` at least, though a leader just elected may still be applying what it has."""
        patience = Patience(BEHIND_SECONDS_MAX)
        while True:
            found = await self._find()
            if found is None:
                raise CopyRefused(f"{self._spec.name} was deleted")
            if (end := found.state.last_seq) >= known:
                return end
            refused = CopyRefused(f"{self._spec.name} ends with commit {end}, before what was copied already")
            try:
                await patience.pause(refused)
            except LogUnavailable:
                raise refused from None

    async def _at(self, sequence: int) -> StoredMessage | None:
        return await _copied(until_answered(lambda: message_at(self._nc, self._spec.name, sequence), COPY_SECONDS_MAX))


async def _copied(answer: Coroutine[Any, Any, T]) -> T:
    """An answer about the copy. What JetStream refuses for good is no log that this copy could go on with."""
    try:
        return await answer
    except ApiRefused as refused:
        raise CopyRefused(str(refused)) from refused


async def read_messages(
    nc: Client, stream: str, first: int, last: int, *, original_times: bool = True
) -> AsyncIterator[list[StreamMessage]]:
    """The bare messages of a stream from `first` to `last`, whether they can be understood or not.

    Those of a log have their log times; of a stream that others may write to `original_times` must be False. A sequence
    that is missing is passed over: it shows in the next one, or in that the last one does not come.

    Raises:
        LogUnavailable: nothing came for SILENCE_SECONDS_MAX, though there is more.
    """
    first = max(first, 1)  # an empty stream may say that it begins with 0
    if last < first:
        return
    async with StreamFollower(nc, stream, after=first - 1, original_times=original_times) as follower:
        while True:
            try:
                async with asyncio.timeout(SILENCE_SECONDS_MAX):
                    batch = await follower.next_batch()
            except TimeoutError as error:
                if await until_answered(lambda: message_at(nc, stream, last)) is None:
                    return
                raise LogUnavailable(f"{stream} gave nothing more before commit {last}") from error
            if wanted := [message for message in batch if first <= message.sequence <= last]:
                yield wanted
            if batch[-1].sequence >= last:
                return


def _bounded(messages: Sequence[StreamMessage]) -> Iterator[Sequence[StreamMessage]]:
    """The messages in parts that may be sent at once."""
    start, size = 0, 0
    for index, message in enumerate(messages):
        size += len(message.data)
        if index - start == AT_ONCE_COMMITS_MAX or (size > AT_ONCE_BYTES_MAX and index > start):
            yield messages[start:index]
            start, size = index, len(message.data)
    if messages:
        yield messages[start:]
