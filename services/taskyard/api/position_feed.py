"""Knows how far the read model is, and wakes who waits for a position: one connection for all of them."""

import asyncio
import logging
from contextlib import suppress
from typing import Any

import asyncpg

from taskyard.contracts.values import Position, commit_sequence

NOTIFY_CHANNEL = "taskyard_position"
"""Where the projector tells the sequence of the last commit that it folded, when that is written."""
POLL_SECONDS = 0.5
"""How often the position is read all the same: a notification may be lost with its connection, and a server that stands
still shows by this alone."""
RETRY_SECONDS = 0.5
CONNECT_SECONDS_MAX = 5
READ_SECONDS_MAX = 2.0
"""A server that has not told the position for this long is taken for away; it may only be busy, so not for less."""

CONNECTION_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # A server that dies in the middle of a statement leaves asyncpg's protocol in a state that it reports as its own bug.
    asyncpg.InternalClientError,
)
"""What using a connection may raise when PostgreSQL is away."""

_POSITION = "SELECT sequence FROM taskyard.log_position"

_log = logging.getLogger(__name__)


class PositionFeed:
    """Follows the read model's position. `is_connected` tells whether it is heard of just now."""

    def __init__(self, dsn: str) -> None:
        self.is_connected = False
        self._dsn = dsn
        self._reached = 0
        self._waiting: dict[asyncio.Future[None], int] = {}
        self.silence: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done as soon as nothing is heard of the read model any more; another one is made when it is heard again."""

    async def wait_for(self, position: Position, timeout_seconds: float) -> bool:
        """Wait until the read model has the position; False when it has not in time."""
        sequence = commit_sequence(position)
        if sequence <= self._reached:
            return True
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[reached] = sequence
        try:
            async with asyncio.timeout(timeout_seconds):
                await reached
        except TimeoutError:
            return sequence <= self._reached
        finally:
            del self._waiting[reached]
        return True

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            with suppress(*CONNECTION_ERRORS):
                await self._follow()
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=CONNECT_SECONDS_MAX, command_timeout=READ_SECONDS_MAX)
        try:
            await connection.add_listener(NOTIFY_CHANNEL, self._hear)
            while True:
                self._reach(await connection.fetchval(_POSITION) or 0)
                self.is_connected = True
                if self.silence.done():
                    self.silence = asyncio.get_running_loop().create_future()
                await asyncio.sleep(POLL_SECONDS)
        except CONNECTION_ERRORS as error:
            # Told before closing: that waits for a server that stands still.
            if self.is_connected:
                _log.warning("position of the read model is not heard of", extra={"error": str(error)})
            self.is_connected = False
            if not self.silence.done():
                self.silence.set_result(None)
            raise
        finally:
            with suppress(*CONNECTION_ERRORS):
                await connection.close(timeout=CONNECT_SECONDS_MAX)

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        self._reach(int(str(payload)))

    def _reach(self, sequence: int) -> None:
        self._reached = max(self._reached, sequence)
        for reached, wanted in self._waiting.items():
            if wanted <= self._reached and not reached.done():
                reached.set_result(None)
