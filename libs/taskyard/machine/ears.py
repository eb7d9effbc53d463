"""What agents call out without being asked: never answered, and bounded for each of them before it costs anything.

A reply subject is the sender's word: whoever answers on it publishes with its own rights where the sender wishes. So what
is heard here is handed on, and nothing else. A sender may speak so often; what it says beyond that is dropped unread, and
one that goes on is not heard at all until it has been quiet, which is told and counted.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Self

import structlog
from msgspec import Struct
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error

from taskyard.machine.telling import Telling
from taskyard.service import Links

PER_SECOND_MAX = 5.0
AT_ONCE_MAX = 20
"""What a sender may say at once. An agent speaks every two seconds, and a few times more while it joins or leaves."""
DROPPED_MAX = 200
"""Whoever has said so much more than it may, without a pause, is cut off."""
QUIET_SECONDS = 30.0
"""For so long one that was cut off must keep to the limit to be heard again."""
WEIGHED_BYTES = 64 * 1024
SENDERS_MAX = 20_000
"""Senders that are remembered, twice as many as workers that may be there; more are not heard."""

SENDER = 2
"""Which token of a subject names the sender."""
NARROW_SECONDS = 5.0
"""While one is cut off, this long only those are heard that were heard before,"""
LOOK_SECONDS = 0.5
"""and then so long all, unless that begins to cost."""
LATELY_SECONDS = 120.0

_logger = structlog.get_logger()


class Limits(Struct, frozen=True, kw_only=True):
    """What each sender may say, and under which name it is counted what was too much. What is longer counts as several."""

    name: str
    per_second: float
    at_once: int
    weighed_bytes: int = WEIGHED_BYTES


HEARTBEATS = Limits(name="heartbeats", per_second=PER_SECOND_MAX, at_once=AT_ONCE_MAX)


class _Sender:
    """How much one sender may still say, and since when it is cut off."""

    __slots__ = ("at", "cut_until", "dropped", "left")

    def __init__(self, at: float, left: float) -> None:
        self.left = left
        self.at = at
        self.dropped = 0
        self.cut_until = 0.0


class Allowance:
    """Who may be heard now. Time is given, in monotonic seconds."""

    def __init__(self, limits: Limits = HEARTBEATS) -> None:
        self.dropped = 0
        self.cut = 0
        self._limits = limits
        self._senders: dict[str, _Sender] = {}

    def allows(self, sender: str, now: float, cost: float = 1.0) -> bool:
        """Whether what `sender` says now is to be heard, which counts as `cost`. The hot path of a flood: a microsecond."""
        one = self._senders.get(sender)
        if one is None:
            if len(self._senders) >= SENDERS_MAX:
                self.dropped += 1
                return False
            one = self._senders[sender] = _Sender(now, float(self._limits.at_once))
        left = one.left + (now - one.at) * self._limits.per_second
        one.at = now
        if left >= self._limits.at_once:
            left, one.dropped = float(self._limits.at_once), 0
        if left < cost:
            one.left = left
            self._drop(sender, one, now)
            return False
        one.left = left - cost
        if now < one.cut_until:
            self.dropped += 1
            return False
        return True

    def heard_lately(self, now: float) -> set[str]:
        """Who has said something a while ago at most, and is not cut off."""
        senders = self._senders.items()
        return {name for name, one in senders if now >= one.cut_until and now - one.at < LATELY_SECONDS}

    def is_cut(self, sender: str, now: float) -> bool:
        """Whether the sender is not heard now."""
        one = self._senders.get(sender)
        return one is not None and now < one.cut_until

    def _drop(self, sender: str, one: _Sender, now: float) -> None:
        self.dropped += 1
        one.dropped += 1
        if one.dropped <= DROPPED_MAX:
            return
        if now >= one.cut_until:
            self.cut += 1
            _logger.warning(
                "an agent says too much and is not heard until it is quiet", agent=sender, of=self._limits.name
            )
        one.cut_until = now + QUIET_SECONDS


class Ear:
    """Hears subjects whose third token names the sender. `hear` gets the name and what is to be heard of it.

    What a sender says is dropped here at the cost of reading it, which is too much where one says it without end. So while
    one is cut off, the server is asked for those alone that were heard before, and for all only now and then: a newcomer may
    have to call for a while. Where `known` names those who are there, they are asked for at all times, and nobody else is heard.

    What cannot be heard for an error is told, seldom, and counted in `failed`; what comes behind it is heard.
    """

    def __init__(
        self,
        links: Links,
        pattern: str,
        hear: Callable[[str, Msg], Awaitable[None]],
        limits: Limits = HEARTBEATS,
        known: Callable[[], Mapping[str, object]] | None = None,
    ) -> None:
        assert pattern.split(".").index("*") == SENDER, "which token is the sender"
        self._client = links.fleet_client
        self._pattern = pattern
        self._hear = hear
        self._known = known
        self._weighed_bytes = limits.weighed_bytes
        self._allowance = Allowance(limits)
        self.failed = 0
        self._name = limits.name
        self._telling = Telling()
        self._all: Subscription | None = None
        self._some: dict[str, Subscription] = {}
        self._taken = 0
        self._dropped_max = DROPPED_MAX
        self._overrun = asyncio.Event()
        self._guard: asyncio.Task[None] | None = None
        self._show(links)

    async def __aenter__(self) -> Self:
        # Not a subscriber of FastStream, which answers whatever names a reply subject unless it is told not to.
        await self._hear_all()
        self._guard = asyncio.create_task(self._narrow_when_overrun(), name=f"guard {self._pattern}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._guard is not None
        self._guard.cancel()
        await asyncio.gather(self._guard, return_exceptions=True)

    async def caught_up(self, answer_seconds_max: int) -> None:
        """Return when all was heard that the server had sent before it answered.

        Raises:
            nats.errors.Error, OSError: it did not answer.
        """
        await self._client.flush(answer_seconds_max)
        # The answer has overtaken what was read before it and waits here.
        until = self._taken + self._waiting()
        while self._taken < until and self._waiting():  # noqa: ASYNC110 - it is this loop's own next turn that is waited for
            await asyncio.sleep(0)

    def _waiting(self) -> int:
        heard = [*self._some.values(), *([self._all] if self._all else [])]
        return sum(subscription.pending_msgs for subscription in heard)

    async def _take(self, message: Msg) -> None:
        self._taken += 1
        sender = message.subject.split(".", SENDER + 1)[SENDER]
        allowance = self._allowance
        try:
            await self._hear_if_allowed(sender, message)
        except Exception as error:  # noqa: BLE001 - one message must not keep the others from being heard
            self._fail(f"{self._name} of {sender}", error)
        if allowance.dropped >= self._dropped_max:
            self._overrun.set()

    async def _hear_if_allowed(self, sender: str, message: Msg) -> None:
        allowance = self._allowance
        if self._known is not None and sender not in self._known():
            allowance.dropped += 1
        elif allowance.allows(sender, time.monotonic(), max(len(message.data) / self._weighed_bytes, 1.0)):
            await self._hear(sender, message)

    def _fail(self, reference: str, error: Exception) -> None:
        self.failed += 1
        if self._telling.is_news(reference, error, time.monotonic()):
            _logger.error("could not be heard", reference=reference, exc_info=error)

    async def _narrow_when_overrun(self) -> None:
        while True:
            self._expect(DROPPED_MAX)
            await self._overrun.wait()
            await self._retrying(self._hear_some)
            while await self._is_overrun_still():
                await self._retrying(self._hear_some)

    async def _is_overrun_still(self) -> bool:
        """Hear all for a moment, after a while."""
        await asyncio.sleep(NARROW_SECONDS)
        self._expect(DROPPED_MAX)
        await self._retrying(self._hear_all)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._overrun.wait(), LOOK_SECONDS)
        return self._overrun.is_set()

    def _expect(self, dropped_max: int) -> None:
        self._overrun.clear()
        self._dropped_max = self._allowance.dropped + dropped_max

    async def _hear_all(self) -> None:
        if self._all is None:
            self._all = await self._client.subscribe(self._pattern, cb=self._take)
        await self._unsubscribe(list(self._some))

    async def _hear_some(self) -> None:
        """Those that are not cut off, one by one, and nobody else."""
        now = time.monotonic()
        wanted = self._allowance.heard_lately(now)
        known = self._known() if self._known is not None else ()
        wanted |= {sender for sender in islice(known, SENDERS_MAX) if not self._allowance.is_cut(sender, now)}
        for sender in wanted - self._some.keys():
            self._some[sender] = await self._client.subscribe(self._pattern.replace("*", sender, 1), cb=self._take)
        await self._unsubscribe(list(self._some.keys() - wanted))
        everybody, self._all = self._all, None
        if everybody is not None:
            await everybody.unsubscribe()

    async def _unsubscribe(self, senders: list[str]) -> None:
        for sender in senders:
            await self._some.pop(sender).unsubscribe()

    async def _retrying(self, change: Callable[[], Awaitable[None]]) -> None:
        """Make the change, over whatever is wrong with the connection: it is made again by itself, with what was asked for.

        What else is wrong is told: who is not narrowed any more could be flooded without end.
        """
        while True:
            try:
                return await change()
            except (Error, OSError):
                pass
            except Exception as error:  # noqa: BLE001 - see above
                self._fail(f"who is heard of {self._name}", error)
            await asyncio.sleep(LOOK_SECONDS)

    def _show(self, links: Links) -> None:
        name, allowance, labels = self._name, self._allowance, {"service": links.name}
        links.metrics.counter(
            f"taskyard_{name}_dropped",
            f"{name.capitalize()} beyond what an agent may send, dropped unread.",
            lambda: ((labels, allowance.dropped),),
        )
        links.metrics.counter(
            f"taskyard_{name}_failed",
            f"{name.capitalize()} that could not be heard for an error.",
            lambda: ((labels, self.failed),),
        )
        links.metrics.counter(
            "taskyard_agents_cut" if name == HEARTBEATS.name else f"taskyard_agents_cut_for_{name}",
            f"How often an agent said too much and was not heard until it was quiet: its {name}.",
            lambda: ((labels, allowance.cut),),
        )
