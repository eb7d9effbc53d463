"""What requests that are refused may cost: each principal has a share, and is heard no more for a while behind it.

To read what cannot be accepted costs the service far more than it costs to send. Who has used up its share is refused before
its request is read, and over HTTP not at once: a client that waits for the answer sends nothing meanwhile.
"""

import asyncio
import time
from collections.abc import Callable

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from taskyard.api.errors import BeyondShare, Refusal
from taskyard.api.principals import Caller
from taskyard.api.replies import AcceptedBatch, Problem, Reply
from taskyard.contracts.values import Role
from taskyard.quotas import Quota, Shares

REFUSED_BYTES = Quota(at_once=32 << 20, per_second=2 << 20)
"""Of the bodies that were refused, or of which something was."""
REFUSED_BYTES_MIN = 16 << 10
"""A refusal counts as so many bytes at least: 2,000 short ones at once, and 128 a second."""
ADMIN_TIMES = 8
"""The share of an admin is so many times as large."""
SLOW_SECONDS = 1.0
SLOW_EACH_MAX = 100
"""Answers of one principal that are kept back at a time: each holds a connection, which others may need."""

SERVER_ERROR = 500

_SLOW = "taskyard_slow"


class Costs:
    """The share of each principal."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shares = Shares(REFUSED_BYTES)

    def admit(self, caller: Caller) -> None:
        """Let a request of the caller be read. Raises `BeyondShare`."""
        seconds = self._shares.wait_seconds(caller.name, self._clock())
        if seconds > 0:
            limit = REFUSED_BYTES.per_second * (ADMIN_TIMES if caller.role is Role.ADMIN else 1)
            told = f"too much of what you sent was refused: no more than {limit / (1 << 20):g} MiB a second are read of that"
            raise BeyondShare(429, "too_much_refused", told, seconds=seconds)

    def note(self, caller: Caller, size: int, told: Refusal | Reply) -> None:
        """Note what the caller was told of a request of so many bytes: it costs what was refused by the caller's own fault."""
        if _is_refused(told):
            times = ADMIN_TIMES if caller.role is Role.ADMIN else 1
            self._shares.charge(caller.name, max(size, REFUSED_BYTES_MIN) / times, self._clock())


def _is_refused(told: Refusal | Reply) -> bool:
    if isinstance(told, Refusal):
        return told.status < SERVER_ERROR and not isinstance(told, BeyondShare)
    if isinstance(told.body, AcceptedBatch):
        return any(isinstance(entry.error, Problem) for entry in told.body.tasks)
    return isinstance(told.body, Problem) and told.code < SERVER_ERROR


def be_slow(scope: Scope, caller: Caller) -> None:
    """Let the answer to this request come late."""
    scope["state"][_SLOW] = caller.name


def answering_slowly(app: ASGIApp) -> ASGIApp:
    """Keep back the answers that are to come late, so that who asks in vain does not ask again at once."""
    waiting: dict[str, int] = {}

    async def wait(name: str) -> None:
        if waiting.get(name, 0) >= SLOW_EACH_MAX:
            return
        waiting[name] = waiting.get(name, 0) + 1
        try:
            await asyncio.sleep(SLOW_SECONDS)
        finally:
            waiting[name] -= 1

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start" and (name := scope.get("state", {}).get(_SLOW)) is not None:
                await wait(name)
            await send(message)

        await app(scope, receive, send_on)

    return answer
