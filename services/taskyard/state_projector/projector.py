"""The projector as a running thing: follows the log, folds, writes; begins again from PostgreSQL after any trouble.

One instance of several writes: the one that has the lease. It gives the lease up when PostgreSQL is out of its reach.

One task reads the log ahead while another writes. Whatever goes wrong with PostgreSQL (away, a connection lost in the
middle of a commit, another instance) is answered in one way: forget everything, read the state and its position from
PostgreSQL again, and follow the log from there. Nothing can be lost or doubled, since both are written together.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from taskyard.contracts.values import Instant
from taskyard.eventlog.commit import StoredCommit
from taskyard.eventlog.errors import EventLogError, LeaseLost, LogVersionUnknown
from taskyard.eventlog.leases import RENEWALS_PER_LEASE, Lease, work_with_lease
from taskyard.eventlog.log import EventLog
from taskyard.state_projector.advance import advance
from taskyard.state_projector.database import DATABASE_ERRORS, connected, migrate
from taskyard.state_projector.errors import LogMismatch, NotLeading, PositionMoved
from taskyard.state_projector.generations import drop_left_over
from taskyard.state_projector.projection import Projection
from taskyard.state_projector.read_ahead import ReadAhead, count_events
from taskyard.state_projector.store import LogPosition, Store

WRITE_INTERVAL_SECONDS = 0.02
"""Writes begin at least this far apart: what arrives meanwhile shares one transaction. The first one after a pause does
not wait."""
WAIT_PER_WRITE = 2.0
"""A write waits this many times as long as the one before took: writing takes a third of the time at most, until waits
have reached their bound."""
WAIT_SECONDS_MAX = 0.2
RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits before the next try; the last one repeats for ever."""

_log = logging.getLogger(__name__)


class Projector:
    """Keeps the read model at `dsn` at the end of `log`, while `instance` has the lease.

    `folded` is the sequence it is at, as far as known here; `unreadable` counts events and rows that stood aside.
    """

    def __init__(
        self,
        log: EventLog[Any],
        dsn: str,
        *,
        lease: Lease,
        lease_seconds: float,
        instance: str,
        count_events: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self.folded = 0
        self.unreadable = 0
        self.is_ready = False
        self._log = log
        self._dsn = dsn
        self._lease = lease
        self._lease_seconds = lease_seconds
        self._instance = instance
        self._count_events = count_events
        self._failures = 0
        self._ahead: ReadAhead | None = None

    @property
    def is_writing(self) -> bool:
        """Whether this instance is the one that writes, and knows where it is."""
        return self._ahead is not None

    @property
    def waiting_since(self) -> Instant | None:
        """Log time of the first commit that was read and is not written yet; None where there is none."""
        return None if self._ahead is None else self._ahead.oldest

    async def run(self, stop: asyncio.Event) -> None:
        """Project until `stop`. Comes back early only for what waiting cannot mend.

        Raises:
            SchemaTooNew: a newer version has migrated the tables.
            LogVersionUnknown: the log means what only a newer version knows: the rows would be wrong.
        """
        while not stop.is_set():
            if not await self._lease.try_acquire(self._instance):
                self.is_ready = True  # a standby is as it should be
                await _unless(stop, self._lease.until_free(self._lease_seconds / RENEWALS_PER_LEASE))
                continue
            delay = 0.0
            try:
                await work_with_lease(self._lease, self._lease_seconds, self.run_once(stop))
            except LeaseLost as error:
                _log.warning("projection goes on elsewhere", extra={"reason": str(error)})
            except PositionMoved as error:
                _log.warning("read model was moved by another; reading it again", extra={"reason": str(error)})
            except LogVersionUnknown:
                raise
            except (*DATABASE_ERRORS, EventLogError, LogMismatch, NotLeading) as error:
                self.is_ready = False
                delay = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
                self._failures += 1
                fields = {"error": f"{type(error).__name__}: {error}", "retry_seconds": delay}
                _log.warning("projection failed and begins again", extra=fields)
            finally:
                await self._lease.release()
            await _unless(stop, asyncio.sleep(delay))
        self.is_ready = False

    async def run_once(self, stop: asyncio.Event) -> None:
        """Read the state from PostgreSQL and project from there, until `stop` or the first trouble."""
        async with connected(self._dsn) as connection:
            await migrate(connection)
            store = Store(connection)
            await store.lead()
            await drop_left_over(connection)
            state, position = await store.load()
            projection = Projection(state)
            self.unreadable += projection.unreadable
            self.folded = position.sequence
            _log.info("projection began", extra={"sequence": position.sequence, "live_tasks": projection.live_tasks})
            await self._follow(store, projection, position, stop)

    async def _follow(self, store: Store, projection: Projection, position: LogPosition, stop: asyncio.Event) -> None:
        ahead = self._ahead = ReadAhead()
        reading = asyncio.create_task(self._read(position, ahead), name="projector reads the log")
        stopping = asyncio.create_task(stop.wait(), name="projector waits for its stop")
        gathering = asyncio.create_task(ahead.gather(0.0))
        now = asyncio.get_running_loop().time
        try:
            while not stop.is_set():
                await asyncio.wait((gathering, reading, stopping), return_when=asyncio.FIRST_COMPLETED)
                if gathering.done():
                    began = now()
                    position = await self._write(store, projection, position, gathering.result())
                    self.is_ready, self._failures = True, 0
                    gathering = asyncio.create_task(ahead.gather(_next_write(began, now())))
                elif reading.done():
                    await reading
        finally:
            self._ahead = None
            for task in (reading, stopping, gathering):
                task.cancel()
            await asyncio.gather(reading, stopping, gathering, return_exceptions=True)

    async def _read(self, position: LogPosition, ahead: ReadAhead) -> None:
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
                    await ahead.put(commits)

    async def _write(
        self, store: Store, projection: Projection, before: LogPosition, commits: Sequence[StoredCommit[Any]]
    ) -> LogPosition:
        unreadable = projection.unreadable
        after = await advance(store, projection, before, commits)
        self.unreadable += projection.unreadable - unreadable
        self.folded = after.sequence
        self._count_events(count_events(commits))
        return after


def _next_write(began: float, ended: float) -> float:
    """When to write next, after a write that took from `began` to `ended`.

    The longer writes take, the longer they wait, up to a bound: what a task went through in between costs one row. So
    a busy log is shown a little later, and for much less work.
    """
    return max(began + WRITE_INTERVAL_SECONDS, ended + min(WAIT_PER_WRITE * (ended - began), WAIT_SECONDS_MAX))


async def _unless(stop: asyncio.Event, waiting: Coroutine[Any, Any, None]) -> None:
    """Wait for something, or until it is time to stop."""
    tasks = (asyncio.create_task(waiting), asyncio.create_task(stop.wait()))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
