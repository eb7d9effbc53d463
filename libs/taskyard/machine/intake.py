"""Has stored what agents report, and what their tasks print, within an allowance for each of them.

nats-server takes in what is stored in a stream one by one, and flushes each to disk: a few thousand a second, in the order in
which they come. So one agent that sends without end would keep what all others send from being stored at all. What agents
send is therefore heard here first; what one says beyond its allowance is dropped, and one that goes on is not heard until it
is quiet, at no cost to the others (`ears.py`). Dropped is what nobody acknowledged: its agent keeps it, and tells it again.

All instances hear everything, and each has it stored (`relay.py`). Which of them comes first does not matter: an agent gives
each batch an id, and no two batches have the same bytes.

A thread of its own does that: an agent waits for each answer, and decisions take many times as long.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self, TypeVar

import msgspec
from msgspec import Struct
from nats.aio.msg import Msg

from taskyard.contracts.agent_protocol import (
    HEADER_ATTEMPT,
    HEADER_OFFSET,
    HEADER_STREAM,
    OUTPUT_CHUNK_BYTES_MAX,
    REPORT_RETRY_SECONDS_MAX,
    REPORT_STORE_SECONDS_MAX,
)
from taskyard.contracts.subjects import OUTPUT, PRINTED_SUBJECTS, REPORTED_SUBJECTS, REPORTS, printed_as, report_subject
from taskyard.eventlog.jetstream_api import MESSAGE_TOO_LARGE
from taskyard.machine.ears import Ear, Limits
from taskyard.machine.own_thread import in_own_thread
from taskyard.machine.relay import ID_CHARACTERS_MAX, Relay, not_stored
from taskyard.service import Links, another_fleet_link
from taskyard.settings import Settings

REPORTS_HEARD = Limits(name="reports", per_second=1_000.0, at_once=500)
"""An agent waits for each batch to be stored, which takes a millisecond, before it sends the next one: it never says more."""
OUTPUT_HEARD = Limits(name="output", per_second=1_000.0, at_once=1_000, weighed_bytes=OUTPUT_CHUNK_BYTES_MAX)
"""Each attempt waits for each chunk to be stored. What is dropped is sent again after two seconds, in which much more may be
said than all slots of an agent have to say at a time."""
OUTPUT_HEADERS = (HEADER_ATTEMPT, HEADER_STREAM, HEADER_OFFSET)
AGAIN_SECONDS = REPORT_STORE_SECONDS_MAX + REPORT_RETRY_SECONDS_MAX + 1.0
"""After so long an agent has told once more what nobody heard."""
SERVER_FAULT = 500
"""From this code on an error of the stream is none of what it was sent: its disk is full, or it has no leader."""
TICK_SECONDS = 0.25
STOOD_STILL_SECONDS = 1.0


class Intake:
    """Has stored what agents send, for as long as it is open. `known` names the agents that the log knows, and nobody else
    is heard; it is asked in another thread.

    By the answer to something else that it sends, an agent can have the server say something here under a made-up name.
    """

    def __init__(self, links: Links, settings: Settings, known: Callable[[], Mapping[str, object]]) -> None:
        self._links = links
        self._settings = settings
        self._known = known
        self._thread = in_own_thread("intake", self._opened)
        self._reports: _Reports | None = None

    async def __aenter__(self) -> Self:
        await self._thread.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._thread.__aexit__(kind, error, trace)

    async def until_told_again(self) -> None:
        """Return when it was listened, and stored, for so long that agents have told again what they told while it was not."""
        assert self._reports is not None
        while (left := self._reports.left_seconds(time.monotonic())) > 0:  # noqa: ASYNC110 - time alone tells
            await asyncio.sleep(left)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            # Two connections: no report waits behind what somebody prints.
            printing, reporting = [
                await stack.enter_async_context(another_fleet_link(self._links, self._settings)) for _ in range(2)
            ]
            await stack.enter_async_context(_hearing_output(printing, self._known))
            self._reports = await stack.enter_async_context(_Reports(reporting, self._known))
            yield


@asynccontextmanager
async def _hearing_output(links: Links, known: Callable[[], Mapping[str, object]]) -> AsyncIterator[None]:
    relay = Relay(
        links.fleet_client, answer=_as_it_is, unnamed=_as_it_is, kept=place_in_output, too_long=too_long_for(OUTPUT)
    )

    async def store(agent: str, message: Msg) -> None:
        await relay.store(agent, printed_as(message.subject), message)

    async with relay, Ear(links, PRINTED_SUBJECTS, store, OUTPUT_HEARD, known):
        yield


def place_in_output(given: Mapping[str, str]) -> dict[str, str]:
    """The headers that tell where a chunk belongs; what is longer than these can be is none of them."""
    return {name: given[name] for name in OUTPUT_HEADERS if 0 < len(given.get(name, "")) <= ID_CHARACTERS_MAX}


def too_long_for(stream: str) -> bytes:
    """The answer to what can be stored by nobody."""
    return not_stored(stream, 413, MESSAGE_TOO_LARGE, "longer than can be stored")


class _Refusal(Struct):
    code: int = 0


class _Answer(Struct):
    error: _Refusal | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


def could_not_store(answer: bytes) -> bool:
    """Whether the stream says that it could not store a message, whatever that was; an empty answer is that nobody is there."""
    if not answer:
        return True
    try:
        error = _decode_answer(answer).error
    except msgspec.DecodeError:
        return False
    return error is not None and error.code >= SERVER_FAULT


class _Reports:
    """Has reports stored. `since` is when it began to listen, and to have stored what it hears, without a gap."""

    def __init__(self, links: Links, known: Callable[[], Mapping[str, object]]) -> None:
        self.since = time.monotonic()
        self._client = links.fleet_client
        self._ear = Ear(links, REPORTED_SUBJECTS, self._store, REPORTS_HEARD, known)
        self._relay = Relay(
            links.fleet_client,
            answer=self._note_answer,
            unnamed=_as_it_is,
            kept=lambda _: {},
            too_long=too_long_for(REPORTS),
        )
        self._watch: asyncio.Task[None] | None = None
        self._looked_at = self.since

    def left_seconds(self, now: float) -> float:
        """For how long it is to go on listening until all was told again that was told while it did not.

        Whoever asks may be the first of this process to wake from a standstill: then that is yet to be noticed here.
        """
        if now - self._looked_at > STOOD_STILL_SECONDS:
            return TICK_SECONDS
        return self.since + AGAIN_SECONDS - now

    async def __aenter__(self) -> Self:
        await self._relay.__aenter__()
        await self._ear.__aenter__()
        self.since = self._looked_at = time.monotonic()
        self._watch = asyncio.create_task(self._notice_gaps(), name="notice gaps")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._watch is not None
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        await self._ear.__aexit__(kind, error, trace)
        await self._relay.__aexit__(kind, error, trace)

    async def _store(self, agent: str, message: Msg) -> None:
        await self._relay.store(agent, report_subject(agent), message)

    def _note_answer(self, answer: bytes) -> bytes:
        """Where there is none nothing is told, and the agent tells it again."""
        if could_not_store(answer):
            self.since = time.monotonic()
        return answer

    async def _notice_gaps(self) -> None:
        reconnects = self._client.stats["reconnects"]
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            stood_still = now - self._looked_at > STOOD_STILL_SECONDS
            if stood_still or not self._client.is_connected or self._client.stats["reconnects"] != reconnects:
                reconnects, self.since = self._client.stats["reconnects"], now
            self._looked_at = now


_T = TypeVar("_T")


def _as_it_is(told: _T) -> _T:
    return told
