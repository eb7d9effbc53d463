"""Makes the read model again from the log beside the live one, compares the two, and puts the new one in its place.

The live projector goes on meanwhile, and so does reading. The two are compared at the same position: rows of the live
schema are seen in a snapshot, and the new ones are folded to exactly its commit. To switch, the position row of the live
schema is locked (the projector waits), the little that is left is folded, and the schemas change names in one
transaction, which also retires the old generation: a projector that waited finds itself fenced, reads again, and goes
on with the new rows.

Where the two differ the new one takes the place of the live one all the same, and the report tells the rows: the log is
right by definition, and a read model that is wrong does not mend itself. Who wants to look first verifies only.
A live read model that was folded from another log (one that was restored, or made anew) cannot be compared at all. It is
replaced only if that is asked for: it may as well be that the settings name the wrong log.

A rebuild that dies leaves a schema that nobody reads, and one that ends may leave the old rows to who has begun to read
them. The next rebuild drops it, or the next start of a projector.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Literal

import asyncpg
from msgspec import Struct

from taskyard.eventlog.commit import StoredCommit
from taskyard.eventlog.log import EventLog
from taskyard.state_projector.advance import advance
from taskyard.state_projector.database import DATABASE_ERRORS, SCHEMA, connected, migrate
from taskyard.state_projector.differences import RowDifference, find_differences
from taskyard.state_projector.digest import KEYS, Digest, differing, digest_table
from taskyard.state_projector.errors import LeftOverInUse, LogMismatch
from taskyard.state_projector.generations import REBUILD_SCHEMA, claim_rebuild, drop_others, put_in_place
from taskyard.state_projector.projection import Projection
from taskyard.state_projector.store import LogPosition, Store

WRITE_EVENTS = 10_000
WRITE_BYTES = 8 << 20
"""From one of these on what was read is written: it bounds the memory, and how often progress is told."""
SWITCH_COMMITS_MAX = 50
"""The projector is kept waiting for so few commits only: before, the rebuild catches up."""
CATCH_UPS_MAX = 20
"""It gives up catching up after so many rounds, and keeps the projector waiting for what is left then."""

_log = logging.getLogger(__name__)


class RebuildReport(Struct, frozen=True, kw_only=True):
    """What a rebuild found. The digests are per table, at commit `sequence`; `differing` names unequal tables.

    `differences` names rows of these, the first few of each. Not `compared` is what was folded from another log.
    `unreadable` counts events that this version could not fold or show whole, and rows that could not be made or written:
    another version may, and mends them.
    """

    sequence: int
    events: int
    seconds: float
    old_digest: dict[str, str]
    new_digest: dict[str, str]
    differing: tuple[str, ...]
    differences: tuple[RowDifference, ...] = ()
    switched: bool
    compared: bool = True
    unreadable: int = 0

    @property
    def is_equal(self) -> bool:
        """Whether the live rows were what the log says, as far as they were compared."""
        return not self.differing


class Progress(Struct, frozen=True, kw_only=True):
    """How far a rebuild is: it folds up to commit `target`, then it compares tables, then it switches.

    `percent` is of the phase; `remaining_seconds` too, as far as it can be told.
    """

    phase: Literal["folding", "comparing", "switching"]
    sequence: int
    target: int
    events: int
    events_per_second: float
    percent: float
    remaining_seconds: float | None


def _tell_nobody(_progress: Progress) -> None:
    """For who does not watch."""


async def rebuild(
    log: EventLog[Any],
    dsn: str,
    *,
    verify_only: bool,
    other_log: bool = False,
    tell: Callable[[Progress], None] = _tell_nobody,
) -> RebuildReport:
    """Rebuild the read model from `log`; unless `verify_only`, the new rows take the place of the live ones.

    They do so even where the two differ; the report tells. With `other_log` also those of another log are replaced.
    `tell` hears of the progress.

    Raises:
        RebuildRunning: another rebuild is at work. Nothing was touched.
        LeftOverInUse: somebody still reads what an earlier one left behind. Nothing was touched.
        LogMismatch: the live read model is of another log, or this log ends before it. Nothing was switched.
    """
    began = time.monotonic()
    async with connected(dsn) as live, connected(dsn, REBUILD_SCHEMA) as beside:
        await claim_rebuild(live)
        await migrate(live)
        await drop_others(beside)
        try:
            await migrate(beside, REBUILD_SCHEMA)
            store = Store(beside, REBUILD_SCHEMA)
            again = _Again(log, store, await store.position(), tell)
            # Most of the work is done before the snapshot of the live rows begins, which holds back the vacuum.
            try:
                await again.catch_up(Store(live))
                found = await _compare(live, beside, again)
            except LogMismatch:
                if verify_only or not other_log:
                    raise
                await again.fold_to(await log.head())
                found = None
            if not verify_only:
                await _switch(live, beside, again, is_same_log=found is not None)
        finally:
            await _clean_up(beside)
    return RebuildReport(
        sequence=found.at.sequence if found else again.position.sequence,
        events=again.events,
        seconds=time.monotonic() - began,
        old_digest=found.old if found else {},
        new_digest=found.new if found else {},
        differing=differing(found.old, found.new) if found else (),
        differences=found.rows if found else (),
        switched=not verify_only,
        compared=found is not None,
        unreadable=again.unreadable,
    )


async def _clean_up(beside: asyncpg.Connection) -> None:
    """Drop what nobody needs any more. What came of the rebuild counts more: whoever begins next tries again."""
    try:
        await drop_others(beside)
    except (LeftOverInUse, *DATABASE_ERRORS) as error:
        _log.warning("a read model that is not used any more was not dropped", extra={"reason": str(error)})


class _Comparison(Struct, frozen=True, kw_only=True):
    """What was found at the position `at`."""

    at: LogPosition
    old: Digest
    new: Digest
    rows: tuple[RowDifference, ...]


class _Again:
    """The read model that is made again, at `position`."""

    def __init__(
        self, log: EventLog[Any], store: Store, position: LogPosition, tell: Callable[[Progress], None]
    ) -> None:
        self.position = position
        self.events = 0
        self._log = log
        self._store = store
        self._tell = tell
        self._began = time.monotonic()
        self._projection = Projection()

    @property
    def unreadable(self) -> int:
        """How many events and rows stood aside."""
        return self._projection.unreadable

    async def catch_up(self, live: Store) -> None:
        """Fold up to about where the live read model is."""
        for _ in range(CATCH_UPS_MAX):
            target = (await live.position()).sequence
            if 0 <= target - self.position.sequence <= SWITCH_COMMITS_MAX:
                return
            await self.fold_to(target)

    async def fold_to(self, sequence: int) -> None:
        """Fold and write the commits up to and including `sequence`."""
        gathered: list[StoredCommit[Any]] = []
        events = size = 0
        first = self.position.sequence + 1
        async for stored in self._log.read(first, sequence, floor=self.position.log_time):
            gathered.append(stored)
            events += len(stored.commit.events)
            size += stored.size
            if events >= WRITE_EVENTS or size >= WRITE_BYTES:
                await self._write(gathered, events, sequence)
                gathered, events, size = [], 0, 0
        if gathered:
            await self._write(gathered, events, sequence)
        if self.position.sequence != sequence:
            raise LogMismatch(f"the log ends at {self.position.sequence}, the read model was folded to {sequence}")

    def progress(self, phase: Literal["folding", "comparing", "switching"], done: float, target: int) -> None:
        """Tell that the share `done` of the phase is done."""
        passed = time.monotonic() - self._began
        self._tell(
            Progress(
                phase=phase,
                sequence=self.position.sequence,
                target=target,
                events=self.events,
                events_per_second=round(self.events / passed, 1) if passed else 0.0,
                percent=round(100 * done, 1),
                remaining_seconds=round(passed * (1 - done) / done, 1) if phase == "folding" and done else None,
            )
        )

    async def _write(self, commits: list[StoredCommit[Any]], events: int, target: int) -> None:
        self.position = await advance(self._store, self._projection, self.position, commits)
        self.events += events
        self.progress("folding", min(self.position.sequence / max(target, 1), 1.0), target)


async def _compare(live: asyncpg.Connection, beside: asyncpg.Connection, again: _Again) -> _Comparison:
    async with live.transaction(isolation="repeatable_read", readonly=True):
        # It stands idle while the other one works, which may take longer than a writer may.
        await live.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        at = await Store(live).position()
        await again.fold_to(at.sequence)
        if again.position.hash != at.hash:
            raise LogMismatch(f"commit {at.sequence} is another than the one that was folded")
        old: Digest = {}
        new: Digest = {}
        async with beside.transaction(isolation="repeatable_read", readonly=True):
            await beside.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            for number, table in enumerate(KEYS):
                again.progress("comparing", number / len(KEYS), at.sequence)
                old[table], new[table] = await asyncio.gather(
                    digest_table(live, SCHEMA, table), digest_table(beside, REBUILD_SCHEMA, table)
                )
            rows = await find_differences(live, SCHEMA, beside, REBUILD_SCHEMA, differing(old, new))
    return _Comparison(at=at, old=old, new=new, rows=rows)


async def _switch(live: asyncpg.Connection, beside: asyncpg.Connection, again: _Again, *, is_same_log: bool) -> None:
    again.progress("switching", 0.0, again.position.sequence)
    # What was written in bulk is unknown to the planner until somebody looks.
    await beside.execute(f"ANALYZE {', '.join(KEYS)}")
    if is_same_log:
        await again.catch_up(Store(live))
    async with live.transaction():
        sequence: int = await live.fetchval("SELECT sequence FROM log_position FOR UPDATE") or 0
        if is_same_log:
            await again.fold_to(sequence)
        await put_in_place(live, again.position.sequence)
    _log.info("read model was switched", extra={"sequence": again.position.sequence})
