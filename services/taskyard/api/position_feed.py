"""Knows how far the read model is, and wakes who waits for a position: one connection for all of them.

Within one generation of rows the position only rises, but for a PostgreSQL that died: the projector's writes are not
flushed one by one, so the last moment of them is lost, and written again from the log. Until then nobody reads what would be
older than what was read before. A rebuild puts another generation in place, which may be of another log (one that was
restored, or made anew) and stand anywhere: then what was reached before says nothing any more.
"""

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
CATCH_UP_SECONDS_MAX = 10.0
"""Lost rows that are not written again for this long are read as they are: the projector may be away as well."""
CATCH_UP_POLL_SECONDS = 0.05
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

_POSITION = "SELECT sequence, generation FROM taskyard.log_position"

_log = logging.getLogger(__name__)


class PositionFeed:
    """Follows the read model's position. `is_connected` tells whether it is heard of just now, and may be read.

    `generation` names the rows that it is of.
    """

    def __init__(self, dsn: str) -> None:
        self.is_connected = False
        self.generation = ""
        self._dsn = dsn
        self._reached = 0
        self._reached_before = 0
        """What was reached when nothing was heard any more; 0 once that is reached again, or given up."""
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._is_doubtful = asyncio.Event()
        self.silence: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done as soon as nothing is heard of the read model any more; another one is made when it is heard again."""
        self._heard = asyncio.Event()

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

    async def wait_until_connected(self, timeout_seconds: float) -> bool:
        """Wait until the read model is heard of and may be read; False when it is not in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._heard.wait()
        return self.is_connected

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self._follow()
            except CONNECTION_ERRORS:
                pass
            except Exception:  # noqa: BLE001 - who asks for the read model must not wait for ever
                _log.exception("position of the read model cannot be followed")
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=CONNECT_SECONDS_MAX, command_timeout=READ_SECONDS_MAX)
        try:
            await connection.add_listener(NOTIFY_CHANNEL, self._hear)
            connection.add_termination_listener(lambda _: self._is_doubtful.set())
            patience = asyncio.get_running_loop().time() + CATCH_UP_SECONDS_MAX
            while True:
                self._is_doubtful.clear()
                before = self._reached
                self._read(await connection.fetchrow(_POSITION), before)
                if self._reached < self._reached_before and asyncio.get_running_loop().time() < patience:
                    await asyncio.sleep(CATCH_UP_POLL_SECONDS)
                    continue
                self._be_heard()
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._is_doubtful.wait()
        except Exception as error:
            # Told before closing: that waits for a server that stands still.
            if self.is_connected:
                _log.warning("position of the read model is not heard of", extra={"error": str(error)})
            self._be_silent()
            raise
        finally:
            with suppress(*CONNECTION_ERRORS):
                await connection.close(timeout=CONNECT_SECONDS_MAX)

    def _be_heard(self) -> None:
        if self._reached < self._reached_before:
            lost = {"sequence": self._reached, "before": self._reached_before}
            _log.warning("lost rows of the read model are not written again", extra=lost)
        self._reached_before = 0
        self.is_connected = True
        self._heard.set()
        if self.silence.done():
            self.silence = asyncio.get_running_loop().create_future()

    def _be_silent(self) -> None:
        self._reached_before = max(self._reached, self._reached_before)
        self._reached = 0
        self.is_connected = False
        self._heard.clear()
        if not self.silence.done():
            self.silence.set_result(None)

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        sequence = int(str(payload))
        if sequence > self._reached:
            self._reach(sequence)
        else:
            self._is_doubtful.set()  # it came late, or is of other rows: the position row tells

    def _read(self, row: asyncpg.Record | None, before: int) -> None:
        """Take what the position row says, which was asked for when `before` was reached."""
        sequence, generation = (0, "") if row is None else (row["sequence"], row["generation"])
        # Less than was heard before: the last that was told of former rows came after they were replaced.
        if generation != self.generation or sequence < before:
            _log.info("rows of the read model are others", extra={"sequence": sequence, "before": before})
            self.generation, self._reached, self._reached_before = generation, 0, 0
        self._reach(sequence)

    def _reach(self, sequence: int) -> None:
        self._reached = max(self._reached, sequence)
        for reached, wanted in self._waiting.items():
            if wanted <= self._reached and not reached.done():
                reached.set_result(None)
