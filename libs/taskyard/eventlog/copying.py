"""Copies a log into another server as it is: the same bytes at the same sequences, with their original log times.

The copy's stream stamps what it stores with its own time, so each commit bears its original one in a header that every
reader of a log prefers. Each is stored only behind its predecessor (`Nats-Expected-Last-Sequence`), so that copies which
are sent twice, or by two programs, can neither double nor reorder anything; whatever is interrupted goes on later.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b

from nats.aio.client import Client

from taskyard.contracts.subjects import StreamSpec
from taskyard.contracts.values import Instant
from taskyard.eventlog.append import Patience
from taskyard.eventlog.errors import ApiRefused, CopyRefused, EventLogError, LogUnavailable, Unanswered
from taskyard.eventlog.follower import StreamFollower
from taskyard.eventlog.jetstream_api import (
    EXPECTED_LAST_SEQUENCE,
    STREAM_NOT_FOUND,
    StoredMessage,
    StreamInfo,
    api_request,
    message_at,
    parse_headers,
    publish,
    stream_info,
)
from taskyard.eventlog.log import ORIGINAL_TIME, StreamMessage
from taskyard.eventlog.streams import find_dangers, stream_config

COPY_SECONDS_MAX = 60.0
"""How long the next commits are tried, over restarts and elections of the server that takes them."""
CALL_SECONDS_MAX = 10.0
"""How long one try may take: as many flushes of a slow disk as commits are sent at once."""
AT_ONCE_COMMITS_MAX = 256
AT_ONCE_BYTES_MAX = 4 << 20
SILENCE_SECONDS_MAX = 30.0
"""How long reading what is stored may stand still; a restart of the server passes unnoticed."""


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
    """The log that is copied into: the stream of `spec` in the server and account of `nc`."""

    def __init__(self, nc: Client, spec: StreamSpec, *, replicas: int = 1) -> None:
        self._nc = nc
        self._spec = spec
        self._replicas = replicas

    async def prepare(self, first: int) -> int:
        """Make the stream that begins with the sequence `first`, or find the one that a former copy left; its end.

        That one may begin earlier: the original may have left its beginning to an archive since.

        Raises:
            CopyRefused: the stream is not one that this copy could go on with.
            LogUnavailable: the server gave no answer within the limit.
        """
        found = await self._find()
        if found is None:
            config = {**stream_config(self._spec, self._replicas), "first_seq": first}
            await self._call(f"STREAM.CREATE.{self._spec.name}", config)
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
            if not isinstance(failed, EventLogError):
                raise failed
            await patience.pause(failed)
            # A try without an answer may have been stored: what counts is what stands there.
            end = (await self._info()).state.last_seq
            if end < left[0].sequence - 1:
                raise CopyRefused(f"{self._spec.name} ends with commit {end}, before what was copied already")
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
        patience = Patience(COPY_SECONDS_MAX)
        while True:
            try:
                return await stream_info(self._nc, self._spec.name)
            except ApiRefused as refused:
                if refused.error_code == STREAM_NOT_FOUND:
                    return None
                raise CopyRefused(str(refused)) from refused
            except Unanswered as error:
                await patience.pause(error)

    async def _info(self) -> StreamInfo:
        found = await self._find()
        if found is None:
            raise CopyRefused(f"{self._spec.name} was deleted")
        return found

    async def _at(self, sequence: int) -> StoredMessage | None:
        patience = Patience(COPY_SECONDS_MAX)
        while True:
            try:
                return await message_at(self._nc, self._spec.name, sequence)
            except Unanswered as error:
                await patience.pause(error)

    async def _call(self, call: str, body: Mapping[str, object]) -> None:
        patience = Patience(COPY_SECONDS_MAX)
        while True:
            try:
                await api_request(self._nc, call, body)
            except ApiRefused as refused:
                raise CopyRefused(str(refused)) from refused
            except Unanswered as error:
                await patience.pause(error)
            else:
                return


async def read_messages(nc: Client, stream: str, first: int, last: int) -> AsyncIterator[list[StreamMessage]]:
    """The bare commits of a log from `first` to `last`, with their log times, whether they can be understood or not.

    A sequence that is missing is passed over; it shows in the next one. Ends early where the log ends.

    Raises:
        LogUnavailable: nothing came for SILENCE_SECONDS_MAX.
    """
    if last < first:
        return
    async with StreamFollower(nc, stream, after=first - 1, original_times=True) as follower:
        while True:
            try:
                async with asyncio.timeout(SILENCE_SECONDS_MAX):
                    batch = await follower.next_batch()
            except TimeoutError as error:
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
