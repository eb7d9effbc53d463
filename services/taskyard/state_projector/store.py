"""The rows in PostgreSQL: reading back what the projection must remember, and writing its changes with the position."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from taskyard.contracts.values import Instant
from taskyard.state_projector.database import NOTIFY_CHANNEL, SCHEMA
from taskyard.state_projector.errors import NotLeading, PositionMoved
from taskyard.state_projector.projection import ReadState, RowChanges
from taskyard.state_projector.rows import (
    ATTEMPT_COLUMNS,
    COUNT_COLUMNS,
    HISTORY_COLUMNS,
    POOL_COLUMNS,
    QUEUE_COLUMNS,
    REJECTION_COLUMNS,
    TASK_CHANGING_COLUMNS,
    TASK_COLUMNS,
    WORKER_COLUMNS,
    AttemptRow,
    PoolRow,
    QueueRow,
    Row,
    WorkerRow,
    restore_record,
)

FETCH_ROWS = 2_000
"""Live tasks read at once when the state is restored."""

_LEADER_LOCK = 0x7A5C_0002

_TYPES = {
    "tasks": (
        "text", "smallint", "text", "text", "bigint", "integer", "text", "integer", "boolean", "boolean", "smallint",
        "bigint", "bigint", "bigint", "text", "text", "text", "bigint", "text",
    ),
    "attempts": ("text", "integer", "text", "integer", "bigint", "bigint", "bigint", "text"),
    "queues": (
        "text", "text", "bigint", "text", "text", "bigint", "text", "text", "bigint", "bigint", "bigint", "bigint",
    ),
    "pools": ("text", "bigint", "double precision", "text", "text", "text", "bigint"),
    "workers": ("text", "text", "bigint", "boolean", "boolean", "boolean", "text", "bigint", "text", "text", "text"),
    "counts": ("text", "text", "bigint"),
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


def _update(table: str, key: Sequence[str], changing: Sequence[str]) -> str:
    settings = ", ".join(f"{column} = new.{column}" for column in changing)
    match = " AND ".join(f"{table}.{column} = new.{column}" for column in key)
    return f"UPDATE {table} SET {settings} FROM {_unnest(table, (*key, *changing))} WHERE {match}"  # noqa: S608 - constants


def _upsert(table: str, columns: Sequence[str], key_columns: int) -> str:
    settings = ", ".join(f"{column} = excluded.{column}" for column in columns[key_columns:])
    names, key = ", ".join(columns), ", ".join(columns[:key_columns])
    rows = f"SELECT {names} FROM {_unnest(table, columns)}"  # noqa: S608 - constants
    return f"INSERT INTO {table} ({names}) {rows} ON CONFLICT ({key}) DO UPDATE SET {settings}"


_UPDATE_TASKS = _update("tasks", ("id",), TASK_CHANGING_COLUMNS)
_UPDATE_ATTEMPTS = _update("attempts", ("task", "attempt"), ATTEMPT_COLUMNS[2:])
_UPSERT_QUEUES = _upsert("queues", QUEUE_COLUMNS, 2)
_UPSERT_POOLS = _upsert("pools", POOL_COLUMNS, 1)
_UPSERT_WORKERS = _upsert("workers", WORKER_COLUMNS, 1)
_UPSERT_COUNTS = _upsert("counts", COUNT_COLUMNS, 2)

_MOVE_POSITION = """
UPDATE log_position SET sequence = $1, hash = $2, log_time = $3
WHERE sequence = $4 AND hash = $5 AND generation = $6 RETURNING sequence
"""
_EXISTING = "SELECT id FROM tasks WHERE id = ANY ($1::text[])"
_OPEN_ATTEMPTS = """
SELECT a.task, a.attempt, a.worker, a.slot, a.assigned_at, a.started_at, a.finished_at, a.outcome
FROM tasks t JOIN attempts a ON a.task = t.id AND a.attempt = t.attempt
WHERE t.finished_at IS NULL AND a.finished_at IS NULL ORDER BY t.submitted
"""


class Store:
    """The read model in one schema, over one connection that is this store's alone."""

    def __init__(self, connection: asyncpg.Connection, schema: str = SCHEMA) -> None:
        self._connection = connection
        self._schema = schema

    async def lead(self) -> None:
        """Become the one instance that writes, until the connection ends. Only for peace: safety is in the position.

        Raises:
            NotLeading: another instance is.
        """
        if not await self._connection.fetchval("SELECT pg_try_advisory_lock($1)", _LEADER_LOCK):
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
            live = "SELECT record FROM tasks WHERE finished_at IS NULL ORDER BY submitted"
            async for row in self._connection.cursor(live, prefetch=FETCH_ROWS):
                records.append(restore_record(row[0]))  # noqa: PERF401 - a comprehension over a cursor would hide the await
            state = ReadState(
                records=records,
                attempts=[AttemptRow(*row) for row in await fetch(_OPEN_ATTEMPTS)],
                queues=[QueueRow(*row) for row in await fetch(_select("queues", QUEUE_COLUMNS))],
                pools=[PoolRow(*row) for row in await fetch(_select("pools", POOL_COLUMNS))],
                workers=[WorkerRow(*row) for row in await fetch(_select("workers", WORKER_COLUMNS))],
                counts={(row[0], row[1]): row[2] for row in await fetch(_select("counts", COUNT_COLUMNS))},
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
            await self._change(_UPDATE_TASKS, changes.changed_tasks)
            await self._copy("attempts", ATTEMPT_COLUMNS, changes.new_attempts)
            await self._change(_UPDATE_ATTEMPTS, changes.changed_attempts)
            await self._copy("history", HISTORY_COLUMNS, changes.history)
            await self._change(_UPSERT_QUEUES, changes.queues)
            await self._change(_UPSERT_POOLS, changes.pools)
            await self._change(_UPSERT_WORKERS, changes.workers)
            await self._change(_UPSERT_COUNTS, changes.counts)
            await self._copy("rejections", REJECTION_COLUMNS, changes.rejections)
            if self._schema == SCHEMA:
                await self._connection.execute("SELECT pg_notify($1, $2)", NOTIFY_CHANNEL, str(after.sequence))

    async def _copy(self, table: str, columns: Sequence[str], rows: list[Row]) -> None:
        if rows:
            await self._connection.copy_records_to_table(table, schema_name=self._schema, columns=columns, records=rows)

    async def _change(self, statement: str, rows: list[Row]) -> None:
        if rows:
            await self._connection.execute(statement, *map(list, zip(*rows, strict=True)))
