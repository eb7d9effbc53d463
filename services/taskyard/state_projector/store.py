"""The rows in PostgreSQL: reading back what the projection must remember, and writing its changes with the position."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from taskyard.contracts.values import Instant
from taskyard.state_projector.database import NOTIFY_CHANNEL, SCHEMA
from taskyard.state_projector.errors import NotLeading, PositionMoved
from taskyard.state_projector.projection import ReadState, RowChanges
from taskyard.state_projector.rows import (
    ATTEMPT_COLUMNS,
    BIGINT_MAX,
    COUNT_COLUMNS,
    HISTORY_COLUMNS,
    POOL_COLUMNS,
    QUEUE_COLUMNS,
    REFUSED_TASK_COLUMNS,
    REJECTION_COLUMNS,
    TASK_CHANGING_COLUMNS,
    TASK_COLUMNS,
    WORKER_COLUMNS,
    AttemptRow,
    Row,
    restore_pool,
    restore_queue,
    restore_record,
    restore_worker,
)

FETCH_ROWS = 2_000
"""Live tasks read at once when the state is restored."""

END_SECONDS_MAX = 5.0
"""How long a session that is ended may take to be gone."""

STAGED_ROWS_MIN = 64
"""From so many rows on it is cheaper to copy them into a temporary table and update all at once."""

_LEADER_LOCK = 0x7A5C_0002
_TEMPORARY = "pg_temp"

_log = logging.getLogger(__name__)

_TYPES = {
    "queues": (
        "text", "text", "bigint", "text", "text", "bigint", "text", "text", "bigint", "bigint", "bigint", "bigint",
    ),
    "pools": ("text", "bigint", "double precision", "text", "text", "text", "bigint"),
    "workers": (
        "text", "text", "text", "boolean", "boolean", "boolean", "text", "bigint", "bigint", "text", "text", "text", "text",
        "text", "text",
    ),
    "counts": ("text", "text", "text", "bigint"),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPosition:
    """How far the read model is: the last commit folded, its hash, and the log time reached.

    `generation` names the rows themselves: a rebuild puts others in their place, which may be at the same commit.
    """

    sequence: int
    hash: str
    log_time: Instant
    generation: str


def _unnest(table: str, columns: Sequence[str]) -> str:
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(_TYPES[table], 1))
    return f"unnest({arrays}) AS new ({', '.join(columns)})"


def _select(table: str, columns: Sequence[str]) -> str:
    return f"SELECT {', '.join(columns)} FROM {table}"  # noqa: S608 - constants


def _stage(table: str, columns: Sequence[str]) -> str:
    rows = f"SELECT {', '.join(columns)} FROM {table}"  # noqa: S608 - constants
    return f"CREATE TEMPORARY TABLE IF NOT EXISTS changed_{table} ON COMMIT DELETE ROWS AS {rows} WITH NO DATA"


def _update_one(table: str, columns: Sequence[str], keys: int) -> str:
    values = [f"{column} = ${number}" for number, column in enumerate(columns, 1)]
    return f"UPDATE {table} SET {', '.join(values[keys:])} WHERE {' AND '.join(values[:keys])}"  # noqa: S608 - constants


def _update_staged(table: str, columns: Sequence[str], keys: int) -> str:
    settings = ", ".join(f"{column} = new.{column}" for column in columns[keys:])
    match = " AND ".join(f"{table}.{column} = new.{column}" for column in columns[:keys])
    return f"UPDATE {table} SET {settings} FROM changed_{table} new WHERE {match}"  # noqa: S608 - constants


def _upsert(table: str, columns: Sequence[str], key_columns: int) -> str:
    settings = ", ".join(f"{column} = excluded.{column}" for column in columns[key_columns:])
    names, key = ", ".join(columns), ", ".join(columns[:key_columns])
    rows = f"SELECT {names} FROM {_unnest(table, columns)}"  # noqa: S608 - constants
    return f"INSERT INTO {table} ({names}) {rows} ON CONFLICT ({key}) DO UPDATE SET {settings}"


_CHANGED_TASK_COLUMNS = ("id", *TASK_CHANGING_COLUMNS)
_UPSERT_QUEUES = _upsert("queues", QUEUE_COLUMNS, 2)
_UPSERT_POOLS = _upsert("pools", POOL_COLUMNS, 1)
_UPSERT_WORKERS = _upsert("workers", WORKER_COLUMNS, 1)
_UPSERT_COUNTS = _upsert("counts", COUNT_COLUMNS, 3)

_MOVE_POSITION = """
UPDATE log_position SET sequence = $1, hash = $2, log_time = $3
WHERE sequence = $4 AND hash = $5 AND generation = $6 RETURNING sequence
"""
_END_FORMER = """
SELECT pg_terminate_backend(pid, $2) FROM pg_locks
WHERE locktype = 'advisory' AND objid::bigint = $1 AND granted AND pid <> pg_backend_pid()
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_EXISTING = "SELECT id FROM tasks WHERE id = ANY ($1::text[])"
_LIVE = f"coalesce(t.finished_at, {BIGINT_MAX}) = {BIGINT_MAX}"
"""As `tasks_finished` has it, which so gives live tasks in the order of their submission."""
_LIVE_TASKS = f"SELECT t.record FROM tasks t WHERE {_LIVE} ORDER BY t.submitted"  # noqa: S608 - constants
_OPEN_ATTEMPTS = f"""
SELECT a.task, a.attempt, a.worker, a.slot, a.assigned_at, a.started_at, a.finished_at, a.outcome
FROM tasks t JOIN attempts a ON a.task = t.id AND a.attempt = t.attempt
WHERE {_LIVE} AND a.finished_at IS NULL ORDER BY t.submitted
"""  # noqa: S608 - constants


class Store:
    """The read model in one schema, over one connection that is this store's alone."""

    def __init__(self, connection: asyncpg.Connection, schema: str = SCHEMA) -> None:
        self._connection = connection
        self._schema = schema
        self._stages: set[str] = set()

    async def lead(self) -> None:
        """Become the one instance that writes, until the connection ends; whoever has the lease may.

        Safety is in the position. But an instance that stands still in the middle of a transaction, or is cut off, would
        hold its locks for as long as its session lasts: so that is ended.

        Raises:
            NotLeading: another instance was faster.
        """
        take = "SELECT pg_try_advisory_lock($1)"
        if await self._connection.fetchval(take, _LEADER_LOCK):
            return
        ended = await self._connection.fetch(_END_FORMER, _LEADER_LOCK, round(END_SECONDS_MAX * 1000))
        _log.warning("ended the session of the instance that wrote before", extra={"sessions": len(ended)})
        if not await self._connection.fetchval(take, _LEADER_LOCK):
            raise NotLeading("another instance writes the read model")

    async def position(self) -> LogPosition:
        """How far the read model is."""
        row = await self._connection.fetchrow("SELECT sequence, hash, log_time, generation FROM log_position")
        assert row is not None, "the migration has made the row"
        return LogPosition(
            sequence=row["sequence"], hash=row["hash"], log_time=Instant(row["log_time"]), generation=row["generation"]
        )

    async def load(self) -> tuple[ReadState, LogPosition]:
        """What the projection must remember, and the position at which it is that."""
        fetch = self._connection.fetch
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            position = await self.position()
            records = []
            async for row in self._connection.cursor(_LIVE_TASKS, prefetch=FETCH_ROWS):
                records.append(restore_record(row[0]))  # noqa: PERF401 - a comprehension over a cursor would hide the await
            state = ReadState(
                records=records,
                attempts=[AttemptRow(*row) for row in await fetch(_OPEN_ATTEMPTS)],
                queues=[restore_queue(row) for row in await fetch(_select("queues", QUEUE_COLUMNS))],
                pools=[restore_pool(row) for row in await fetch(_select("pools", POOL_COLUMNS))],
                workers=[restore_worker(row) for row in await fetch(_select("workers", WORKER_COLUMNS))],
                counts={(row[0], row[1], row[2]): row[3] for row in await fetch(_select("counts", COUNT_COLUMNS))},
            )
        return state, position

    async def existing(self, tasks: Sequence[str]) -> frozenset[str]:
        """Which of these ids have a row."""
        if not tasks:
            return frozenset()
        return frozenset(row[0] for row in await self._connection.fetch(_EXISTING, tasks))

    async def write(self, changes: RowChanges, *, before: LogPosition, after: LogPosition) -> None:
        """Write the changes and move the position, in one transaction; then who waits for the position is told.

        Raises:
            PositionMoved: the read model is not at `before`; nothing was written.
        """
        async with self._connection.transaction():
            moved = await self._connection.fetchval(
                _MOVE_POSITION,
                after.sequence,
                after.hash,
                after.log_time,
                before.sequence,
                before.hash,
                before.generation,
            )
            if moved is None:
                raise PositionMoved(f"the read model is no longer at commit {before.sequence}")
            await self._copy("tasks", TASK_COLUMNS, changes.new_tasks)
            await self._update("tasks", _CHANGED_TASK_COLUMNS, 1, changes.changed_tasks)
            await self._copy("attempts", ATTEMPT_COLUMNS, changes.new_attempts)
            await self._update("attempts", ATTEMPT_COLUMNS, 2, changes.changed_attempts)
            await self._copy("history", HISTORY_COLUMNS, changes.history)
            await self._upsert(_UPSERT_QUEUES, changes.queues)
            await self._upsert(_UPSERT_POOLS, changes.pools)
            await self._upsert(_UPSERT_WORKERS, changes.workers)
            await self._upsert(_UPSERT_COUNTS, changes.counts)
            await self._copy("rejections", REJECTION_COLUMNS, changes.rejections)
            await self._copy("refused_tasks", REFUSED_TASK_COLUMNS, changes.refused_tasks)
            if self._schema == SCHEMA:
                await self._connection.execute("SELECT pg_notify($1, $2)", NOTIFY_CHANNEL, str(after.sequence))

    async def _make_stage(self, table: str, columns: Sequence[str]) -> None:
        """Make the temporary table of this connection that many changed rows go through. It lives while this does."""
        if table not in self._stages:
            await self._connection.execute(_stage(table, columns))
            self._stages.add(table)

    async def _copy(self, table: str, columns: Sequence[str], rows: list[Row]) -> None:
        if rows:
            await self._connection.copy_records_to_table(table, schema_name=self._schema, columns=columns, records=rows)

    async def _update(self, table: str, columns: Sequence[str], keys: int, rows: list[Row]) -> None:
        if len(rows) < STAGED_ROWS_MIN:
            if rows:
                await self._connection.executemany(_update_one(table, columns, keys), rows)
            return
        # As arrays they would cost several times as much to encode: the driver looks at the type of each element.
        await self._make_stage(table, columns)
        await self._connection.copy_records_to_table(
            f"changed_{table}", schema_name=_TEMPORARY, columns=columns, records=rows
        )
        await self._connection.fetch(_update_staged(table, columns, keys))

    async def _upsert(self, statement: str, rows: list[Row]) -> None:
        if rows:
            await self._connection.fetch(statement, *map(list, zip(*rows, strict=True)))
