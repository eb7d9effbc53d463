"""Makes the read model again from the log beside the live one, compares the two, and puts the new one in its place.

The live projector goes on meanwhile. The two are compared at the same position: rows of the live schema are seen in a
snapshot, and the new ones are folded to exactly its commit. To switch, the position row of the live schema is locked
(the projector waits), the rest is folded, and the schemas change names in one transaction, which also moves the old
position: a projector that waited finds itself fenced, reads again, and goes on with the new rows.
"""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from msgspec import Struct

from taskyard.eventlog.commit import StoredCommit
from taskyard.eventlog.log import EventLog
from taskyard.service import linked
from taskyard.settings import Settings
from taskyard.state_projector.advance import advance
from taskyard.state_projector.database import NOTIFY_CHANNEL, SCHEMA, connect, migrate
from taskyard.state_projector.digest import Digest, differing, digest
from taskyard.state_projector.errors import LogMismatch, NotLeading
from taskyard.state_projector.projection import Projection
from taskyard.state_projector.store import LogPosition, Store

REBUILD_SCHEMA = "taskyard_rebuild"
RETIRED_SCHEMA = "taskyard_retired"
WRITE_EVENTS = 20_000
RETIRED_SEQUENCE = -1
"""The sequence of a read model that is no longer one."""

_REBUILD_LOCK = 0x7A5C_0003

_log = logging.getLogger(__name__)


class RebuildReport(Struct, frozen=True, kw_only=True):
    """What a rebuild found. The digests are per table, at commit `sequence`; `differing` names unequal tables."""

    sequence: int
    events: int
    seconds: float
    old_digest: dict[str, str]
    new_digest: dict[str, str]
    differing: tuple[str, ...]
    switched: bool

    @property
    def is_equal(self) -> bool:
        """Whether the live rows were what the log says."""
        return not self.differing


async def run(settings: Settings, *, verify_only: bool) -> RebuildReport:
    """Rebuild as the settings tell where the log and the read model are: see `rebuild`."""
    async with linked("rebuild", settings) as links:
        return await rebuild(links.log, settings.postgres_dsn, verify_only=verify_only)


async def rebuild(log: EventLog[Any], dsn: str, *, verify_only: bool) -> RebuildReport:
    """Rebuild the read model from `log`; unless `verify_only`, the new rows take the place of the live ones.

    They do so even where the two differ: the log is right. The report tells.

    Raises:
        NotLeading: another rebuild is at work.
        LogMismatch: the live read model is of another log, or this log ends before it. Nothing was switched.
    """
    began = time.monotonic()
    async with _connected(dsn, SCHEMA) as live, _connected(dsn, REBUILD_SCHEMA) as beside:
        if not await live.fetchval("SELECT pg_try_advisory_lock($1)", _REBUILD_LOCK):
            raise NotLeading("another rebuild is at work")
        await migrate(live)
        for left_over in (REBUILD_SCHEMA, RETIRED_SCHEMA):
            await _drop(beside, left_over)
        await migrate(beside, REBUILD_SCHEMA)
        store = Store(beside, REBUILD_SCHEMA)
        again = _Again(log, store, await store.position())
        # Most of the work is done before the snapshot of the live rows begins, which holds back the vacuum.
        await again.fold_to((await Store(live).position()).sequence)
        async with live.transaction(isolation="repeatable_read", readonly=True):
            at = await Store(live).position()
            old = await digest(live, SCHEMA)
        await again.fold_to(at.sequence)
        if again.position.hash != at.hash:
            raise LogMismatch(f"commit {at.sequence} is another than the one that was folded")
        new = await _digest_beside(beside)
        if not verify_only:
            await _switch(live, again)
        await _drop(beside, REBUILD_SCHEMA)
    return RebuildReport(
        sequence=at.sequence,
        events=again.events,
        seconds=time.monotonic() - began,
        old_digest=old,
        new_digest=new,
        differing=differing(old, new),
        switched=not verify_only,
    )


class _Again:
    """The read model that is made again, at `position`."""

    def __init__(self, log: EventLog[Any], store: Store, position: LogPosition) -> None:
        self.position = position
        self.events = 0
        self._log = log
        self._store = store
        self._projection = Projection()

    async def fold_to(self, sequence: int) -> None:
        """Fold and write the commits up to and including `sequence`."""
        gathered: list[StoredCommit[Any]] = []
        events = 0
        first = self.position.sequence + 1
        async for stored in self._log.read(first, sequence, floor=self.position.log_time):
            gathered.append(stored)
            events += len(stored.commit.events)
            if events >= WRITE_EVENTS:
                await self._write(gathered, events)
                gathered, events = [], 0
        if gathered:
            await self._write(gathered, events)
        if self.position.sequence != max(sequence, 0):
            raise LogMismatch(f"the log ends at {self.position.sequence}, the read model was folded to {sequence}")

    async def _write(self, commits: list[StoredCommit[Any]], events: int) -> None:
        self.position = await advance(self._store, self._projection, self.position, commits)
        self.events += events


async def _digest_beside(beside: asyncpg.Connection) -> Digest:
    async with beside.transaction(isolation="repeatable_read", readonly=True):
        return await digest(beside, REBUILD_SCHEMA)


async def _switch(live: asyncpg.Connection, again: _Again) -> None:
    async with live.transaction():
        sequence: int = await live.fetchval("SELECT sequence FROM log_position FOR UPDATE") or 0
        await again.fold_to(sequence)
        await live.execute("UPDATE log_position SET sequence = $1", RETIRED_SEQUENCE)
        await live.execute(f'ALTER SCHEMA "{SCHEMA}" RENAME TO "{RETIRED_SCHEMA}"')
        await live.execute(f'ALTER SCHEMA "{REBUILD_SCHEMA}" RENAME TO "{SCHEMA}"')
        await live.execute("SELECT pg_notify($1, $2)", NOTIFY_CHANNEL, str(sequence))
    _log.info("read model was switched", extra={"sequence": sequence})
    await _drop(live, RETIRED_SCHEMA)


async def _drop(connection: asyncpg.Connection, schema: str) -> None:
    await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')


@asynccontextmanager
async def _connected(dsn: str, schema: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(dsn, schema)
    try:
        yield connection
    finally:
        await connection.close()
