"""The door over NATS: requests on `taskyard.request.<principal>.<pool>.<verb>`, answered as HTTP would, with `code`."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from faststream.nats import NatsBroker
from faststream.nats.annotations import NatsMessage
from faststream.nats.subscriber.usecases import ConcurrentCoreSubscriber
from nats.aio.subscription import Subscription
from nats.errors import Error

from taskyard.api import replies
from taskyard.api.costs import Costs
from taskyard.api.denials import Denials
from taskyard.api.doors import Door
from taskyard.api.errors import Refusal, invalid
from taskyard.api.metrics import Metrics
from taskyard.api.principals import Caller, Principals
from taskyard.api.replies import Reply
from taskyard.api.submission import NATS_LIMITS
from taskyard.contracts.audit import AccessDenied
from taskyard.contracts.events import FieldError
from taskyard.contracts.faults import form_of
from taskyard.contracts.subjects import HEADER_TRACEPARENT, REQUEST_SUBJECTS
from taskyard.contracts.values import NAME_PATTERN, is_name
from taskyard.contracts.verbs import SUBMIT, VERBS

QUEUE = "api"
DOOR = "nats"
REQUESTS_MAX = 1_000
"""How many requests are answered at a time; each may wait for its verdict."""
DRAIN_SECONDS_MAX = 5.0
"""How long requests that came before the service was told to stop may take to be answered."""
DRAIN_POLL_SECONDS = 0.02
_INTERNAL_REPLIES = ("taskyard.", "$")
"""Replies must not become messages of ours: a client's reply subject arrives mapped and never looks like these."""

_log = logging.getLogger(__name__)


class NatsDoor:
    """Answers requests of principals that NATS has recognised: the subject says who asks."""

    def __init__(
        self,
        door: Door,
        principals: Principals,
        costs: Costs,
        metrics: Metrics,
        *,
        trace: Callable[[AccessDenied], None],
    ) -> None:
        self._door = door
        self._costs = costs
        self._principals = principals
        self._metrics = metrics
        self._denials = Denials(DOOR, trace)
        self._subscriber: ConcurrentCoreSubscriber | None = None

    def attach(self, broker: NatsBroker) -> None:
        """Subscribe on the broker, before it is started."""
        subscriber = broker.subscriber(
            REQUEST_SUBJECTS,
            queue=QUEUE,
            max_workers=REQUESTS_MAX,
            decoder=_as_it_is,
            # The handler answers by itself: FastStream would reply to whatever subject a message names.
            no_reply=True,
        )
        subscriber(self._on_request)
        assert isinstance(subscriber, ConcurrentCoreSubscriber)
        self._subscriber = subscriber

    async def drain(self) -> None:
        """Take no more requests, which go to another instance, and answer all that were sent here before."""
        if self._subscriber is None or not isinstance(self._subscriber.subscription, Subscription):
            return
        subscription, self._subscriber.subscription = self._subscriber.subscription, None
        with suppress(Error, OSError, TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS_MAX):
                await subscription.drain()
                quiet = 0
                while quiet < 2:  # in a row: a request that has left the queue is worked on before the next look
                    quiet = quiet + 1 if self._is_idle() else 0
                    await asyncio.sleep(DRAIN_POLL_SECONDS)

    def _is_idle(self) -> bool:
        subscriber = self._subscriber
        assert subscriber is not None
        waiting = subscriber.receive_stream.statistics().current_buffer_used
        return waiting == 0 and subscriber.limiter.value == subscriber.max_workers

    async def answer(self, subject: str, data: bytes, traceparent: str | None = None) -> bytes:
        """The reply to one request; it never raises."""
        try:
            reply = await self._decide(subject, data, traceparent)
        except Refusal as refusal:
            _, _, who, *what = subject.split(".", 3) + [""] * 2
            self._denials.note(refusal.status, who=who, where=None, what="".join(what), reason=refusal.detail)
            reply = replies.refused(refusal)
        except Exception:  # noqa: BLE001 - one request must not end the others
            _log.exception("request failed", extra={"subject": subject[:200]})
            reply = replies.refused(Refusal(500, "internal", "the request could not be handled"))
        verb = subject.rpartition(".")[2]
        self._metrics.command(DOOR, verb if verb in VERBS else "unknown", reply.code)
        return replies.with_code(reply)

    async def _decide(self, subject: str, data: bytes, traceparent: str | None) -> Reply:
        tokens = subject.split(".")
        if len(tokens) != 5:
            raise invalid(FieldError(path="", message="the subject must be taskyard.request.<principal>.<pool>.<verb>"))
        _, _, principal, pool, verb = tokens
        caller = self._principals.named(principal)
        self._costs.admit(caller)
        try:
            reply = await self._ask(caller, verb, data, pool=pool, traceparent=traceparent)
        except Refusal as refusal:
            self._costs.note(caller, len(data), refusal)
            raise
        self._costs.note(caller, len(data), reply)
        return reply

    async def _ask(self, caller: Caller, verb: str, data: bytes, *, pool: str, traceparent: str | None) -> Reply:
        if not is_name(pool):
            raise invalid(FieldError(path="pool", message=form_of(NAME_PATTERN)))
        if verb == SUBMIT:
            return await self._door.submit(caller, data, pool=pool, limits=NATS_LIMITS, traceparent=traceparent)
        return await self._door.command(caller, verb, data, pool=pool, traceparent=traceparent)

    async def _on_request(self, message: NatsMessage) -> None:
        raw = message.raw_message
        traceparent = raw.headers.get(HEADER_TRACEPARENT) if raw.headers else None
        answer = await self.answer(raw.subject, raw.data, traceparent)
        if raw.reply and not raw.reply.startswith(_INTERNAL_REPLIES):
            await raw.respond(answer)


async def _as_it_is(message: NatsMessage) -> bytes:
    """Leave the body alone: what is no JSON must reach the door and be answered."""
    return message.body
