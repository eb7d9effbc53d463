"""Has stored what agents report, within an allowance for each of them.

nats-server takes in what is stored in a stream one by one, and flushes each to disk: a few thousand a second, in the order in
which they come. So one agent that sends without end would keep the reports of all others from being stored at all. What agents
report is therefore heard here first; what one says beyond its allowance is dropped, and one that goes on is not heard until it
is quiet, at no cost to the others (`ears.py`). Dropped is what nobody acknowledged: its agent keeps it, and tells it again.

All instances hear everything, and each has it stored. Which of them comes first does not matter: the stream knows what it has
by the id that its agent gave it, or by its bytes, of which no two batches have the same. The stream's answer is handed on to
the agent, on the subject that the server has made for that: agents are in another account, so no reply subject of their choice
is seen here, and none other is answered.

A thread of its own does that: an agent waits for each answer, and decisions take many times as long.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from types import TracebackType
from typing import Self

import msgspec
import structlog
import uvloop
from msgspec import Struct
from nats.aio.msg import Msg
from nats.errors import Error

from taskyard.contracts.agent_protocol import REPORT_RETRY_SECONDS_MAX, REPORT_STORE_SECONDS_MAX
from taskyard.contracts.subjects import REPORTED_SUBJECTS, REPORTS, report_subject
from taskyard.embedded.nats_users import IMPORTED_REPLIES
from taskyard.eventlog.errors import LogUnavailable
from taskyard.eventlog.fitting import fits
from taskyard.machine.ears import Ear, Limits
from taskyard.service import Links, another_fleet_link
from taskyard.settings import Settings

REPORTS_HEARD = Limits(name="reports", per_second=1_000.0, at_once=500)
"""An agent waits for each batch to be stored, which takes a millisecond, before it sends the next one: it never says more."""
MESSAGE_ID = "Nats-Msg-Id"
ID_CHARACTERS_MAX = 128
ID_BYTES = 16
UNANSWERED_MAX = 20_000
"""Messages that the stream has not answered yet and whose agents are remembered. Of more the first are told again."""
AGAIN_SECONDS = REPORT_STORE_SECONDS_MAX + REPORT_RETRY_SECONDS_MAX + 1.0
"""After so long an agent has told once more what nobody heard."""
SERVER_FAULT = 500
"""From this code on an error of the stream is none of what it was sent: its disk is full, or it has no leader."""
TOO_LONG = msgspec.json.encode(
    {"stream": REPORTS, "seq": 0, "error": {"code": 413, "err_code": 10054, "description": "longer than can be stored"}}
)
TICK_SECONDS = 0.25
STOOD_STILL_SECONDS = 1.0

_logger = structlog.get_logger()


class Intake:
    """Has stored what agents report, for as long as it is open. `known` names the agents that the log knows, and nobody else
    is heard; it is asked in another thread.

    By the answer to something else that it sends, an agent can have the server say something here under a made-up name.
    """

    def __init__(self, links: Links, settings: Settings, known: Callable[[], Mapping[str, object]]) -> None:
        self._links = links
        self._settings = settings
        self._known = known
        self._hearing: _Hearing | None = None
        self._is_heard = asyncio.Event()
        self._stop: Callable[[], object] | None = None
        self._thread: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        tell = partial(asyncio.get_running_loop().call_soon_threadsafe, self._is_heard.set)
        self._thread = asyncio.create_task(asyncio.to_thread(self._run, tell), name="intake")
        heard = asyncio.create_task(self._is_heard.wait())
        await asyncio.wait((self._thread, heard), return_when=asyncio.FIRST_COMPLETED)
        heard.cancel()
        if self._thread.done():
            self._thread.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread is not None
        if self._stop is not None:
            self._stop()
        await self._thread

    async def until_told_again(self) -> None:
        """Return when it was listened, and stored, for so long that agents have told again what they told while it was not."""
        assert self._hearing is not None
        while (left := self._hearing.left_seconds(time.monotonic())) > 0:  # noqa: ASYNC110 - time alone tells
            await asyncio.sleep(left)

    def _run(self, tell: Callable[[], object]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._hear(tell))

    async def _hear(self, tell: Callable[[], object]) -> None:
        stop = asyncio.Event()
        self._stop = partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set)
        while not stop.is_set():
            try:
                async with (
                    another_fleet_link(self._links, self._settings) as links,
                    _Hearing(links, self._known) as self._hearing,
                ):
                    tell()
                    await stop.wait()
            except LogUnavailable as error:
                if self._hearing is None:  # the service cannot begin
                    raise
                _logger.warning("reports are not heard until there is another connection", reason=str(error))


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


class _Hearing:
    """What the thread does. `since` is when it began to listen, and to have stored what it hears, without a gap."""

    def __init__(self, links: Links, known: Callable[[], Mapping[str, object]]) -> None:
        self.since = time.monotonic()
        self._client = links.fleet_client
        self._ear = Ear(links, REPORTED_SUBJECTS, self._store, REPORTS_HEARD, known)
        self._inbox = self._client.new_inbox()
        self._replies: dict[str, tuple[str, float]] = {}
        self._number = 0
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
        await self._client.subscribe(f"{self._inbox}.*", cb=self._stored)
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

    async def _store(self, agent: str, message: Msg) -> None:
        told = (message.headers or {}).get(MESSAGE_ID, "")
        if not 0 < len(told) <= ID_CHARACTERS_MAX:
            told = blake2b(message.data, digest_size=ID_BYTES).hexdigest()
        if not fits(self._client, report_subject(agent), message.data):
            _logger.warning("a batch of reports is longer than what can be stored", agent=agent, size=len(message.data))
            await self._answer(message.reply, TOO_LONG)
            return
        # Under the agent's own name: no id of one is that of another.
        headers = {MESSAGE_ID: f"{agent}.{told}"}
        self._number += 1
        self._replies[str(self._number)] = (message.reply, time.monotonic())
        if len(self._replies) > UNANSWERED_MAX:
            del self._replies[next(iter(self._replies))]
        with suppress(Error, OSError):  # its agent tells it again
            await self._client.publish(
                report_subject(agent), message.data, reply=f"{self._inbox}.{self._number}", headers=headers
            )

    async def _stored(self, message: Msg) -> None:
        """Hand the stream's answer on to the agent, on nothing but a subject that the server has made for that.

        A message without data is none: while the stream has no leader the server says so, and the agent tells it again.
        """
        reply, _ = self._replies.pop(message.subject.rpartition(".")[2], ("", 0.0))
        if could_not_store(message.data):
            self.since = time.monotonic()
        if message.data:
            await self._answer(reply, message.data)

    async def _answer(self, reply: str, data: bytes) -> None:
        if reply.startswith(IMPORTED_REPLIES):
            with suppress(Error, OSError):
                await self._client.publish(reply, data)

    async def _notice_gaps(self) -> None:
        reconnects = self._client.stats["reconnects"]
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            stood_still = now - self._looked_at > STOOD_STILL_SECONDS
            if stood_still or not self._client.is_connected or self._client.stats["reconnects"] != reconnects:
                reconnects, self.since = self._client.stats["reconnects"], now
            if self._forget_unanswered(now):
                self.since = now
            self._looked_at = now

    def _forget_unanswered(self, now: float) -> bool:
        """Forget what the stream leaves unanswered for so long that its agent no longer waits; whether there was any."""
        late = [number for number, (_, at) in self._replies.items() if now - at > REPORT_STORE_SECONDS_MAX]
        for number in late:
            del self._replies[number]
        return bool(late)
