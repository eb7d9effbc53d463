"""The stream of commands, as the doors write to it."""

import asyncio

from nats.aio.client import Client

from taskyard.api.errors import StoreFull, StoreUnavailable
from taskyard.contracts.subjects import COMMANDS, HEADER_ANSWER, HEADER_TRACEPARENT
from taskyard.eventlog.append import Patience
from taskyard.eventlog.errors import ApiRefused, EventLogError, Unanswered
from taskyard.eventlog.jetstream_api import NOT_STORED, STREAM_IS_FULL, PublishAck, publish

STORE_SECONDS_MAX = 4.0
"""How long storing a command is tried. A stream is without a leader for a moment when one hands over to another; an
election after a leader was killed takes longer, and who commands is told to send it again.
"""
TRY_SECONDS_MIN = 0.5
"""With less time left nothing is sent again."""


class JetStreamCommands:
    """Stores commands so that the scheduler answers them to the door `name`."""

    def __init__(self, nc: Client, name: str, *, store_seconds_max: float = STORE_SECONDS_MAX) -> None:
        self._nc = nc
        self._headers = {HEADER_ANSWER: name}
        self._store_seconds_max = store_seconds_max

    async def store(self, subject: str, data: bytes, *, traceparent: str | None = None) -> int:
        """Store a command; the sequence by which it is stored.

        Raises:
            StoreFull: there is no room for it.
            StoreUnavailable: it was not acknowledged.
        """
        headers = self._headers if traceparent is None else {**self._headers, HEADER_TRACEPARENT: traceparent}
        try:
            ack = await self._publish(subject, data, headers)
        except ApiRefused as error:
            is_full = error.error_code == NOT_STORED and error.description == STREAM_IS_FULL
            raise (StoreFull if is_full else StoreUnavailable)(str(error)) from error
        except EventLogError as error:
            raise StoreUnavailable(str(error)) from error
        if ack.stream != COMMANDS:
            raise StoreUnavailable(f"{subject} is stored by {ack.stream}, not by {COMMANDS}")
        return ack.seq

    async def _publish(self, subject: str, data: bytes, headers: dict[str, str]) -> PublishAck:
        now = asyncio.get_running_loop().time
        ends_at = now() + self._store_seconds_max
        patience = Patience(self._store_seconds_max - TRY_SECONDS_MIN)
        while True:
            try:
                return await publish(self._nc, subject, data, headers=headers, timeout=ends_at - now())
            except Unanswered as error:
                await patience.pause(error)  # if it was stored all the same, its id makes it be decided once
