"""Has stored what principals command over NATS without asking for the verdict, within an allowance for each of them.

nats-server takes in what is stored in a stream one by one, and flushes each to disk: a few thousand a second, in the order in
which they come. So one principal that sends without end would keep the commands of all others, and those of the doors, from
being stored at all. What principals send is therefore heard here first. What one sends beyond its allowance is refused, with
the error that a stream has for that, and one that goes on is not heard for a while: what it sends then dies in nats-server,
which answers whoever asks that nobody listens. Before it is heard again as before, a few of its messages are: while it has not
stopped, these few are all that it costs.

Each principal is heard over a connection of its own (of very many some share one), and all in a thread of their own. So
neither the others nor the doors wait behind what one has sent, and where the server cuts a connection on which too much
waits, it is that one's.

All instances hear everything, and each has it stored (`machine/relay.py`); which one is first does not matter, for each gives a
message the same id: the one that its sender gave it, or its bytes, and how often they came. Only while one of them starts, or
does not hear a sender that says too much, may they count differently: then one of several commands that have the same bytes
within two minutes, and no id, may be taken for one of the others.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Self

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error

from taskyard.contracts.subjects import (
    COMMANDS,
    HEADER_TRACEPARENT,
    STREAM_REMEMBERS_SECONDS,
    commanded_subjects,
    stored_subject,
)
from taskyard.eventlog.jetstream_api import MESSAGE_TOO_LARGE
from taskyard.machine.own_thread import in_own_thread
from taskyard.machine.relay import Relay, not_stored
from taskyard.quotas import Quota, Shares
from taskyard.service import Links, another_control_client
from taskyard.settings import Settings
from taskyard.telemetry.context import valid_traceparent
from taskyard.telemetry.metrics import MetricsScope

COMMANDS_HEARD = Quota(per_second=2_000, at_once=1_000)
"""Whoever has more to say says it in batches: one of 500 tasks of 200 bytes counts as 25 commands."""
WEIGHED_BYTES = 4 * 1024
"""What is longer counts as several."""
UNDER_WAY_MAX = 64
"""So many are being stored at a time, and the others wait here: behind those that are the commands of everybody else wait."""
WAITING_MAX = 1_000
REFUSED_A_SECOND_MAX = 1_000
"""Whoever goes on though so much is refused is not heard for a while. Who waits for answers never comes to that,"""
REFUSED_WEIGHED_BYTES = 64 * 1024
"""with long commands either: to refuse one costs little more than to refuse a short one."""
QUIET_SECONDS = 10.0
QUIET_SECONDS_MAX = 60.0
FORGIVEN_SECONDS = 60.0
"""Who was heard for so long without saying too much is cut off as briefly again as the first time."""
LOOK_SECONDS = 0.1
"""For so long one that was cut off is heard, to see whether it has stopped,"""
LOOK_MESSAGES = int(COMMANDS_HEARD.per_second * LOOK_SECONDS)
"""and no more than it may have stored in that time."""
AGAIN_SECONDS = 0.5
CONNECTIONS_MAX = 16
"""More principals share them."""
REMEMBERED_MAX = 500_000
"""Messages without an id whose bytes are remembered, those of the last two minutes."""


TOO_MANY = not_stored(
    COMMANDS,
    429,
    10167,
    f"too many commands of yours: {COMMANDS_HEARD.per_second:g} a second may be stored, and longer ones count once for each "
    f"{WEIGHED_BYTES // 1024} KiB; send batches, or wait",
)
TOO_LONG = not_stored(
    COMMANDS, 413, MESSAGE_TOO_LARGE, "the command is longer than what can be stored, or its subject is; send batches"
)
NO_STREAM = not_stored(COMMANDS, 503, 10008, "the stream of commands has no leader now; send it again")

_log = logging.getLogger(__name__)


class Occurrences:
    """How often the same came within the time for which a stream knows a message again. Time is given, in seconds."""

    def __init__(self, seconds: float = STREAM_REMEMBERS_SECONDS, remembered_max: int = REMEMBERED_MAX) -> None:
        self._seconds = seconds
        self._remembered_max = remembered_max
        self._came: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def count(self, key: str, now: float) -> int:
        """It came once more: for which time. The same number comes again only once the stream has forgotten the former."""
        while self._came and (
            len(self._came) > self._remembered_max or now - next(iter(self._came.values()))[1] > 2 * self._seconds
        ):
            self._came.popitem(last=False)
        number = self._came.pop(key, (0, 0.0))[0] + 1
        self._came[key] = (number, now)
        return number


class Pace:
    """How fast one principal sends: what is within its share, and when it is too much even to be refused."""

    def __init__(self) -> None:
        self._shares = Shares(COMMANDS_HEARD)
        self._refused = 0.0
        self._second = 0

    def allows(self, size: int, now: float) -> bool:
        """Whether a command of so many bytes may be stored now."""
        return self._shares.take("", _cost(size), now)

    def refuses_too_much(self, size: int, now: float) -> bool:
        """One more was refused: whether it is not worth while to go on hearing this principal."""
        if int(now) != self._second:
            self._second, self._refused = int(now), 0.0
        self._refused += max(size / REFUSED_WEIGHED_BYTES, 1.0)
        return self._refused > REFUSED_A_SECOND_MAX

    def begin_with_nothing(self, now: float) -> None:
        """The share is used up, and grows from now on."""
        self._shares.charge("", COMMANDS_HEARD.at_once, now)


def _cost(size: int) -> float:
    return max(size / WEIGHED_BYTES, 1.0)


class Patience:
    """For how long a principal is not heard each time that it has said too much: twice as long as the time before."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._until = 0.0

    def lose(self, now: float) -> float:
        """It has said too much."""
        is_again = self._seconds and now - self._until < FORGIVEN_SECONDS
        self._seconds = min(self._seconds * 2, QUIET_SECONDS_MAX) if is_again else QUIET_SECONDS
        self._until = now + self._seconds
        return self._seconds


def hearing_commands(links: Links, settings: Settings, names: Sequence[str]) -> AbstractAsyncContextManager[None]:
    """Hear commands of the principals of these names, each by a subscription of its own, and have them stored.

    No other name is heard: by the answer to something else that it asks, a client can have the server say something here under
    a made-up one.
    """
    counts = _Counts(links.metrics)
    return in_own_thread("intake", lambda: _hearing_all(links, settings, names, counts))


@asynccontextmanager
async def _hearing_all(
    links: Links, settings: Settings, names: Sequence[str], counts: "_Counts"
) -> AsyncIterator[None]:
    occurrences = Occurrences()

    def unnamed(digest: str) -> str:
        return f"{digest}.{occurrences.count(digest, monotonic())}"

    count = min(len(names), CONNECTIONS_MAX)
    async with AsyncExitStack() as stack:
        for place in range(count):
            client = await stack.enter_async_context(another_control_client(links, settings))
            relay = Relay(client, answer=_or_no_stream, unnamed=unnamed, kept=_trace_in, too_long=TOO_LONG)
            await stack.enter_async_context(relay)
            for name in names[place::count]:
                await stack.enter_async_context(_Hearing(name, relay, counts))
        yield


def _or_no_stream(answer: bytes) -> bytes:
    """That there is none the server tells by a message without data."""
    return answer or NO_STREAM


def _trace_in(given: Mapping[str, str]) -> dict[str, str]:
    traceparent = valid_traceparent(given.get(HEADER_TRACEPARENT))
    return {} if traceparent is None else {HEADER_TRACEPARENT: traceparent}


class _Counts:
    def __init__(self, metrics: MetricsScope) -> None:
        self.refused = 0
        self.cut = 0
        metrics.counter(
            "taskyard_commands_beyond_share",
            "Commands to be stored beyond what a principal may send, refused.",
            lambda: (({}, self.refused),),
        )
        metrics.counter(
            "taskyard_principals_cut",
            "How often a principal commanded too much and was not heard for a while.",
            lambda: (({}, self.cut),),
        )


class _Hearing:
    """Hears one principal."""

    def __init__(self, name: str, relay: Relay, counts: _Counts) -> None:
        self._name = name
        self._relay = relay
        self._counts = counts
        self._pace = Pace()
        self._patience = Patience()
        self._waiting: deque[Msg] = deque()
        self._under_way = 0.0
        self._is_too_much = asyncio.Event()
        self._subscription: Subscription | None = None
        self._guard: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._listen()
        self._guard = asyncio.create_task(self._cut_when_too_much(), name=f"api hears {self._name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._guard is not None
        self._guard.cancel()
        await asyncio.gather(self._guard, return_exceptions=True)
        await self._end()

    async def _cut_when_too_much(self) -> None:
        while True:
            await self._is_too_much.wait()
            await self._end()
            self._counts.cut += 1
            _log.warning("a principal commands too much and is not heard for a while", extra={"by": self._name})
            goes_on = True
            while goes_on:
                await asyncio.sleep(self._patience.lose(monotonic()))
                goes_on = await self._goes_on()
            await self._listen()

    async def _goes_on(self) -> bool:
        """Hear a few messages at most: whether they came at once. The server counts them, so no more are on their way."""
        self._pace.begin_with_nothing(monotonic())
        self._is_too_much.clear()
        subscription = await self._listen(LOOK_MESSAGES)
        await asyncio.sleep(LOOK_SECONDS)
        await self._end()
        return subscription.delivered >= LOOK_MESSAGES

    async def _listen(self, messages_max: int = 0) -> Subscription:
        while True:
            with suppress(Error, OSError):
                self._subscription = await self._relay.client.subscribe(commanded_subjects(self._name), cb=self._take)
                if messages_max:
                    await self._subscription.unsubscribe(messages_max)
                return self._subscription
            await asyncio.sleep(AGAIN_SECONDS)

    async def _end(self) -> None:
        if self._subscription is not None:
            with suppress(Error, OSError):
                await self._subscription.unsubscribe()

    async def _take(self, message: Msg) -> None:
        if self._is_too_much.is_set():
            return
        now = monotonic()
        if len(self._waiting) < WAITING_MAX and self._pace.allows(len(message.data), now):
            self._waiting.append(message)
            await self._store_waiting()
            return
        self._counts.refused += 1
        await self._relay.answer(message.reply, TOO_MANY)
        if self._pace.refuses_too_much(len(message.data), now):
            self._is_too_much.set()

    async def _store_waiting(self) -> None:
        while self._waiting and self._under_way < UNDER_WAY_MAX:
            message = self._waiting.popleft()
            cost = _cost(len(message.data))
            self._under_way += cost
            then = partial(self._was_stored, cost)
            await self._relay.store(self._name, stored_subject(message.subject), message, then)

    async def _was_stored(self, cost: float) -> None:
        self._under_way -= cost
        await self._store_waiting()
