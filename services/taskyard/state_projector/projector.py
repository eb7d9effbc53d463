"""The projector as a running thing: follows the log, folds, writes; begins again from PostgreSQL after any trouble.

One task reads the log ahead while another writes. Whatever goes wrong with PostgreSQL (away, a connection lost in the
middle of a commit, another instance) is answered in one way: forget everything, read the state and its position from
PostgreSQL again, and follow the log from there. Nothing can be lost or doubled, since both are written together.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import asyncpg

from taskyard.eventlog.commit import StoredCommit
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.log import EventLog
from taskyard.state_projector.advance import advance
from taskyard.state_projector.database import connect, migrate
from taskyard.state_projector.errors import LogMismatch, NotLeading, PositionMoved
from taskyard.state_projector.projection import Projection
from taskyard.state_projector.store import LogPosition, Store

WRITE_INTERVAL_SECONDS = 0.02
"""Writes begin at least this far apart: what arrives meanwhile shares one transaction. The first one after a pause does
not wait."""
WRITE_EVENTS_MAX = 20_000
READ_AHEAD_BATCHES_MAX = 8
STANDBY_SECONDS = 1.0
RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits before the next try; the last one repeats for ever."""
CLOSE_SECONDS_MAX = 2.0

DATABASE_ERRORS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises when PostgreSQL is away, goes away, or refuses."""

Commits = list[StoredCommit[Any]]

_log = logging.getLogger(__name__)


class Projector:
    """Keeps the read model at `dsn` at the end of `log`. `folded` is the sequence it is at, as far as known here."""

    def __init__(
        self, log: EventLog[Any], dsn: str, *, count_events: Callable[[int], None] = lambda _count: None
    ) -> None:
        self.folded = 0
        self.is_ready = False
        self._log = log
        self._dsn = dsn
        self._count_events = count_events
        self._failures = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Project until `stop`. Comes back early only for what waiting cannot mend.

        Raises:
            SchemaTooNew: a newer version has migrated the tables.
        """
        while not stop.is_set():
            try:
                await self.run_once(stop)
            except NotLeading:
                self.is_ready = True  # a standby is as it should be
                await _pause(stop, STANDBY_SECONDS)
            except PositionMoved as error:
                _log.warning("read model was moved by another; reading it again", extra={"reason": str(error)})
            except (*DATABASE_ERRORS, EventLogError, LogMismatch) as error:
                self.is_ready = False
                delay = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
                self._failures += 1
                fields = {"error": f"{type(error).__name__}: {error}", "retry_seconds": delay}
                _log.warning("projection failed and begins again", extra=fields)
                await _pause(stop, delay)
        self.is_ready = False

    async def run_once(self, stop: asyncio.Event) -> None:
        """Read the state from PostgreSQL and project from there, until `stop` or the first trouble."""
        connection = await connect(self._dsn)
        try:
            await migrate(connection)
            store = Store(connection)
            await store.lead()
            state, position = await store.load()
            projection = Projection(state)
            self.folded = position.sequence
            _log.info("projection began", extra={"sequence": position.sequence, "live_tasks": projection.live_tasks})
            await self._follow(store, projection, position, stop)
        finally:
            with suppress(*DATABASE_ERRORS):
                await connection.close(timeout=CLOSE_SECONDS_MAX)

    async def _follow(self, store: Store, projection: Projection, position: LogPosition, stop: asyncio.Event) -> None:
        arrived: asyncio.Queue[Commits] = asyncio.Queue(READ_AHEAD_BATCHES_MAX)
        reading = asyncio.create_task(self._read(position, arrived), name="projector reads the log")
        stopping = asyncio.create_task(stop.wait(), name="projector waits for its stop")
        getting = asyncio.create_task(arrived.get())
        now = asyncio.get_running_loop().time
        try:
            while not stop.is_set():
                await asyncio.wait((getting, reading, stopping), return_when=asyncio.FIRST_COMPLETED)
                if getting.done():
                    commits = _drain(arrived, getting.result())
                    getting = asyncio.create_task(arrived.get())
                    due = now() + WRITE_INTERVAL_SECONDS
                    position = await self._write(store, projection, position, commits)
                    self.is_ready, self._failures = True, 0
                    await asyncio.sleep(max(due - now(), 0))
                elif reading.done():
                    await reading
        finally:
            for task in (reading, stopping, getting):
                task.cancel()
            await asyncio.gather(reading, stopping, getting, return_exceptions=True)

    async def _read(self, position: LogPosition, arrived: asyncio.Queue[Commits]) -> None:
        # From the last commit that was folded on: its hash shows whether this is the log that it was.
        after = max(position.sequence - 1, 0)
        is_known = position.sequence == 0
        async with self._log.follow(after, floor=position.log_time) as batches:
            self.is_ready = self.is_ready or is_known
            async for batch in batches:
                commits = batch
                if not is_known:
                    if commits[0].hash != position.hash:
                        raise LogMismatch(f"commit {position.sequence} is another than the one that was folded")
                    is_known = self.is_ready = True
                    commits = commits[1:]
                if commits:
                    await arrived.put(commits)

    async def _write(
        self, store: Store, projection: Projection, before: LogPosition, commits: Sequence[StoredCommit[Any]]
    ) -> LogPosition:
        after = await advance(store, projection, before, commits)
        self.folded = after.sequence
        self._count_events(sum(len(stored.commit.events) for stored in commits))
        return after


def _drain(arrived: asyncio.Queue[Commits], first: Commits) -> Commits:
    """Everything that has arrived, up to a bound."""
    commits = list(first)
    events = sum(len(stored.commit.events) for stored in commits)
    while events < WRITE_EVENTS_MAX and not arrived.empty():
        batch = arrived.get_nowait()
        commits += batch
        events += sum(len(stored.commit.events) for stored in batch)
    return commits


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
