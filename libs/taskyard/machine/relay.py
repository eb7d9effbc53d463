"""Has stored in a stream what others have sent here, and hands the stream's answers on to them.

Who sends is in another account, so no reply subject of its choice is seen here: answered is on what the server has made for
the import, and on nothing else. All instances of a service may have stored the same: the stream knows a message by the id that
its sender gave it, below the sender's own name, or else by its bytes.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from hashlib import blake2b
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error

from taskyard.contracts.agent_protocol import REPORT_STORE_SECONDS_MAX
from taskyard.embedded.nats_users import IMPORTED_REPLIES
from taskyard.eventlog.fitting import fits

MESSAGE_ID = "Nats-Msg-Id"
ID_CHARACTERS_MAX = 128
ID_BYTES = 16
UNANSWERED_MAX = 20_000
"""Messages that the stream has not answered yet and that are remembered. The first of more count as if it never would."""
ANSWER_SECONDS_MAX = REPORT_STORE_SECONDS_MAX
"""For so long senders wait for an answer."""
TICK_SECONDS = 0.25

_logger = structlog.get_logger()


def not_stored(stream: str, code: int, err_code: int, description: str) -> bytes:
    """The answer of a stream that has not stored a message, in the words of JetStream."""
    error = {"code": code, "err_code": err_code, "description": description}
    return msgspec.json.encode({"stream": stream, "seq": 0, "error": error})


async def nothing() -> None:
    """What follows an answer where nobody waits for that."""


class _Sent(NamedTuple):
    reply: str
    at: float
    then: Callable[[], Awaitable[None]]


class Relay:
    """One for each connection. `answer` makes what the sender is told of what the stream answered; an empty answer of the
    stream means that there is none, and nothing is told where it makes nothing of it.

    `unnamed` tells a message without an id from others of the same digest. `kept` are the headers that are kept of what was
    sent. What does not fit with ours is not stored, and `too_long` is told.
    """

    def __init__(
        self,
        client: Client,
        *,
        answer: Callable[[bytes], bytes],
        unnamed: Callable[[str], str],
        kept: Callable[[Mapping[str, str]], dict[str, str]],
        too_long: bytes,
    ) -> None:
        self.client = client
        self._answer_of = answer
        self._unnamed = unnamed
        self._kept = kept
        self._too_long = too_long
        self._inbox = client.new_inbox()
        self._answers: Subscription | None = None
        self._unanswered: dict[str, _Sent] = {}
        self._number = 0
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._answers = await self.client.subscribe(f"{self._inbox}.*", cb=self._answered)
        self._watch = asyncio.create_task(self._give_up(), name="relay gives up")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._answers is not None and self._watch is not None
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        with suppress(Error, OSError):
            await self._answers.unsubscribe()

    async def store(
        self, sender: str, subject: str, message: Msg, then: Callable[[], Awaitable[None]] = nothing
    ) -> None:
        """Have it stored on this subject, and do something `then`, when the stream has answered or nobody waits any more.

        Where it cannot be sent nobody is told so, and the sender sends it again.
        """
        if not fits(self.client, subject, message.data):
            _logger.warning("a message is longer than what can be stored", by=sender, size=len(message.data))
            await self.answer(message.reply, self._too_long)
            await then()
            return
        given = message.headers or {}
        headers = self._kept(given)
        headers[MESSAGE_ID] = f"{sender}.{self._id_of(message, headers, given.get(MESSAGE_ID, ''))}"
        self._number += 1
        number = str(self._number)
        self._unanswered[number] = _Sent(message.reply, time.monotonic(), then)
        with suppress(Error, OSError):
            await self.client.publish(subject, message.data, reply=f"{self._inbox}.{number}", headers=headers)
        if len(self._unanswered) > UNANSWERED_MAX:
            await self._end(next(iter(self._unanswered)), b"")

    async def answer(self, reply: str, data: bytes) -> None:
        """Tell a sender something, where it asked to be told."""
        if data and reply.startswith(IMPORTED_REPLIES):
            with suppress(Error, OSError):
                await self.client.publish(reply, data)

    def _id_of(self, message: Msg, kept: Mapping[str, str], given: str) -> str:
        """What tells the message from all others of its sender."""
        if 0 < len(given) <= ID_CHARACTERS_MAX:
            return given
        digest = blake2b(f"{message.subject} {kept}".encode(), digest_size=ID_BYTES)
        digest.update(message.data)
        return self._unnamed(digest.hexdigest())

    async def _answered(self, message: Msg) -> None:
        await self._end(message.subject.rpartition(".")[2], message.data)

    async def _end(self, number: str, answer: bytes) -> None:
        sent = self._unanswered.pop(number, None)
        if sent is not None:
            await self.answer(sent.reply, self._answer_of(answer))
            await sent.then()

    async def _give_up(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            before = time.monotonic() - ANSWER_SECONDS_MAX
            for number in [number for number, sent in self._unanswered.items() if sent.at < before]:
                await self._end(number, b"")
