"""Has stored what principals command over NATS without asking for the verdict, within an allowance for each of them.

nats-server takes in what is stored in a stream one by one, and flushes each to disk: a few thousand a second, in the order in
which they come. So one principal that sends without end would keep the commands of all others, and those of the doors, from
being stored at all. What principals send is therefore heard here first. What one sends beyond its allowance is refused, with
the error that a stream has for that, and one that goes on is not heard for a while: what it sends then dies in nats-server,
which answers whoever asks that nobody listens. Each principal has a subscription of its own, so the others are not touched.

All instances hear everything, and each has it stored; which one is first does not matter, for each gives a message the same
id: the one that its sender gave it, or its bytes, and how often they came. Only while one of them starts, or does not hear a
sender that says too much, may they count differently: then one of several commands that have the same bytes within two minutes,
and no id, may be taken for one of the others.

The stream's answer is handed on to the sender, on the subject that the server has made for that: clients are in another
account, so no reply subject of their choice is seen here, and none other is answered.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from time import monotonic
from types import TracebackType
from typing import Self

import msgspec
from nats.aio.client import Client
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
from taskyard.embedded.nats_users import IMPORTED_REPLIES
from taskyard.eventlog.fitting import fits
from taskyard.quotas import Quota, Shares
from taskyard.telemetry.context import valid_traceparent
from taskyard.telemetry.metrics import MetricsScope

COMMANDS_HEARD = Quota(per_second=2_000, at_once=1_000)
"""Whoever has more to say says it in batches: one of 500 tasks of 200 bytes counts as thirteen commands. The others wait for
what is stored at once, which of batches that cannot be accepted takes half a second to decide on."""
WEIGHED_BYTES = 8 * 1024
"""What is longer counts as several."""
REFUSED_A_SECOND_MAX = 1_000
QUIET_SECONDS = 10.0
"""Whoever goes on though so much is refused is not heard for so long. Who waits for answers never comes to that."""
AGAIN_SECONDS = 0.5
MESSAGE_ID = "Nats-Msg-Id"
ID_CHARACTERS_MAX = 128
ID_BYTES = 16
UNANSWERED_MAX = 20_000
"""Messages that the stream has not answered yet and whose senders are remembered. Of more the first get no answer."""
REMEMBERED_MAX = 500_000
"""Messages without an id whose bytes are remembered, those of the last two minutes."""


def _not_stored(code: int, err_code: int, description: str) -> bytes:
    """The answer of a stream that has not stored a message, in the words of JetStream."""
    error = {"code": code, "err_code": err_code, "description": description}
    return msgspec.json.encode({"stream": COMMANDS, "seq": 0, "error": error})


TOO_MANY = _not_stored(
    429,
    10167,
    f"too many commands of yours: {COMMANDS_HEARD.per_second:g} a second may be stored, and longer ones count once for each "
    f"{WEIGHED_BYTES // 1024} KiB; send batches, or wait",
)
TOO_LONG = _not_stored(413, 10054, "the command is longer than what can be stored, or its subject is; send batches")
NO_STREAM = _not_stored(503, 10008, "the stream of commands has no leader now; send it again")

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
        self._refused += _cost(size)
        return self._refused > REFUSED_A_SECOND_MAX


def _cost(size: int) -> float:
    return max(size / WEIGHED_BYTES, 1.0)


class Intake:
    """Hears commands of the principals of these names, each by a subscription of its own, and has them stored.

    No other name is heard: by the answer to something else that it asks, a client can have the server say something here under
    a made-up one.
    """

    def __init__(self, client: Client, names: Iterable[str], metrics: MetricsScope) -> None:
        self.refused = 0
        self.cut = 0
        self._client = client
        self._names = tuple(names)
        self._occurrences = Occurrences()
        self._inbox = ""
        self._answers: Subscription | None = None
        self._replies: dict[str, str] = {}
        self._number = 0
        self._hearing: set[asyncio.Task[None]] = set()
        metrics.counter(
            "taskyard_commands_beyond_share",
            "Commands to be stored beyond what a principal may send, or longer than a message may be, refused.",
            lambda: (({}, self.refused),),
        )
        metrics.counter(
            "taskyard_principals_cut",
            "How often a principal commanded too much and was not heard for a while.",
            lambda: (({}, self.cut),),
        )

    async def __aenter__(self) -> Self:
        self._inbox = self._client.new_inbox()
        self._answers = await self._client.subscribe(f"{self._inbox}.*", cb=self._stored)
        for name in self._names:
            is_too_much = asyncio.Event()
            pace = Pace()
            subscription = await self._listen(name, pace, is_too_much)
            self._hearing.add(
                asyncio.create_task(self._hear(name, pace, is_too_much, subscription), name=f"api hears {name}")
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._hearing:
            task.cancel()
        await asyncio.gather(*self._hearing, return_exceptions=True)
        if self._answers is not None:
            await self._end(self._answers)

    async def _hear(self, name: str, pace: Pace, is_too_much: asyncio.Event, subscription: Subscription) -> None:
        """Hear one principal for ever, but for a while each time that it sends far too much: then it costs us nothing."""
        try:
            while True:
                await is_too_much.wait()
                self.cut += 1
                _log.warning("a principal commands too much and is not heard for a while", extra={"by": name})
                await self._end(subscription)
                await asyncio.sleep(QUIET_SECONDS)
                is_too_much.clear()
                subscription = await self._listen(name, pace, is_too_much)
        finally:
            await self._end(subscription)

    async def _listen(self, name: str, pace: Pace, is_too_much: asyncio.Event) -> Subscription:
        async def take(message: Msg) -> None:
            if is_too_much.is_set():
                return
            now = monotonic()
            is_within = pace.allows(len(message.data), now)
            if is_within and fits(self._client, message.subject, message.data):
                await self._store(name, message)
                return
            self.refused += 1
            await self._answer(message.reply, TOO_LONG if is_within else TOO_MANY)
            if pace.refuses_too_much(len(message.data), now):
                is_too_much.set()

        while True:
            try:
                return await self._client.subscribe(commanded_subjects(name), cb=take)
            except (Error, OSError):
                await asyncio.sleep(AGAIN_SECONDS)

    async def _end(self, subscription: Subscription) -> None:
        with suppress(Error, OSError):
            await subscription.unsubscribe()

    async def _store(self, principal: str, message: Msg) -> None:
        given = message.headers or {}
        headers = {MESSAGE_ID: f"{principal}.{self._id_of(message, given.get(MESSAGE_ID, ''))}"}
        if (traceparent := valid_traceparent(given.get(HEADER_TRACEPARENT))) is not None:
            headers[HEADER_TRACEPARENT] = traceparent
        reply = ""
        if message.reply.startswith(IMPORTED_REPLIES):
            self._number += 1
            self._replies[str(self._number)] = message.reply
            reply = f"{self._inbox}.{self._number}"
            if len(self._replies) > UNANSWERED_MAX:
                del self._replies[next(iter(self._replies))]
        with suppress(Error, OSError):  # nothing is acknowledged, so who sent it sends it again
            subject = stored_subject(message.subject)
            await self._client.publish(subject, message.data, reply=reply, headers=headers)

    def _id_of(self, message: Msg, given: str) -> str:
        """What tells the message from all others of its sender."""
        if 0 < len(given) <= ID_CHARACTERS_MAX:
            return given
        digest = blake2b(message.subject.encode(), digest_size=ID_BYTES)
        digest.update(message.data)
        told = digest.hexdigest()
        return f"{told}.{self._occurrences.count(told, monotonic())}"

    async def _stored(self, message: Msg) -> None:
        """Hand the answer on: that of the stream, or that there is none, which the server tells by a message without data."""
        await self._answer(self._replies.pop(message.subject.rpartition(".")[2], ""), message.data or NO_STREAM)

    async def _answer(self, reply: str, data: bytes) -> None:
        if reply.startswith(IMPORTED_REPLIES):
            with suppress(Error, OSError):
                await self._client.publish(reply, data)
