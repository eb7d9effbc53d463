"""The stream of commands, as the doors write to it."""

from nats.aio.client import Client

from taskyard.api.errors import StoreUnavailable
from taskyard.contracts.subjects import COMMANDS, HEADER_ANSWER, HEADER_TRACEPARENT
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.jetstream_api import publish

STORE_SECONDS_MAX = 4.0


class JetStreamCommands:
    """Stores commands so that the scheduler answers them to the door `name`."""

    def __init__(self, nc: Client, name: str, *, store_seconds_max: float = STORE_SECONDS_MAX) -> None:
        self._nc = nc
        self._headers = {HEADER_ANSWER: name}
        self._store_seconds_max = store_seconds_max

    async def store(self, subject: str, data: bytes, *, traceparent: str | None = None) -> None:
        """Store a command. Raises `StoreUnavailable` when it was not acknowledged."""
        headers = self._headers if traceparent is None else {**self._headers, HEADER_TRACEPARENT: traceparent}
        try:
            ack = await publish(self._nc, subject, data, headers=headers, timeout=self._store_seconds_max)
        except EventLogError as error:
            raise StoreUnavailable(str(error)) from error
        if ack.stream != COMMANDS:
            raise StoreUnavailable(f"{subject} is stored by {ack.stream}, not by {COMMANDS}")
