"""The rows in PostgreSQL: reading back what the projection must remember, and writing its changes with the position."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import asyncpg

from taskyard.contracts.lifecycle import TaskRecord
from taskyard.contracts.values import Instant
from taskyard.state_projector.database import NOTIFY_CHANNEL, SCHEMA
from taskyard.state_projector.digest import KEYS
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

REFUSED = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    # What the driver itself cannot encode.
    ValueError,
    TypeError,
    OverflowError,
)
"""What writing rows raises when it is one of them that cannot be kept, and not PostgreSQL that is away."""
REFUSED_TOLD_MAX = 20
"""So many rows of one write are told in the log, and how many more there are."""

_LEADER_LOCK = 0x7A5C_0002
_TEMPORARY = "pg_temp"

_log = logging.getLogger(__name__)

T = TypeVar("T")
_Put = Callable[[list[Row]], Awaitable[None]]

_TYPES = {
    "queues": (
        "text", "text", "bigint", "text", "text", "bigint", "text", "text", "bigint", "bigint", "bigint", "bigint",
    ),
    "pools": ("text", "bigint", "double precision", "text", "text", "text", "bigint", "text"),
    "workers": (
        "text", "text", "text", "boolean", "boolean", "boolean", "text", "bigint", "bigint", "text", "text", "text", "text",
        "text", "text", "text",
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
_LIVE_TASKS = f"SELECT t.id, t.record FROM tasks t WHERE {_LIVE} ORDER BY t.submitted"  # noqa: S608 - constants
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
        state = ReadState()
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            position = await self.position()
            records: list[TaskRecord] = []
            async for row in self._connection.cursor(_LIVE_TASKS, prefetch=FETCH_ROWS):
                records += _read_back(state, "tasks", [row], lambda row: restore_record(row[1]))
            state.records = records
            state.attempts = [AttemptRow(*row) for row in await fetch(_OPEN_ATTEMPTS)]
            queues, pools = _select("queues", QUEUE_COLUMNS), _select("pools", POOL_COLUMNS)
            state.queues = _read_back(state, "queues", await fetch(queues), restore_queue)
            state.pools = _read_back(state, "pools", await fetch(pools), restore_pool)
            workers = await fetch(_select("workers", WORKER_COLUMNS))
            state.workers = _read_back(state, "workers", workers, restore_worker)
            state.counts = {(row[0], row[1], row[2]): row[3] for row in await fetch(_select("counts", COUNT_COLUMNS))}
        return state, position

    async def existing(self, tasks: Sequence[str]) -> frozenset[str]:
        """Which of these ids have a row."""
        if not tasks:
            return frozenset()
        return frozenset(row[0] for row in await self._connection.fetch(_EXISTING, tasks))

    async def write(self, changes: RowChanges, *, before: LogPosition, after: LogPosition) -> Sequence[tuple[str, Row]]:
        """Write the changes and move the position, in one transaction; then who waits for the position is told.

        Returns the rows that PostgreSQL cannot keep, each with its table: they are left as they were, and told.

        Raises:
            PositionMoved: the read model is not at `before`; nothing was written.
        """
        puts: list[tuple[str, _Put, list[Row]]] = [
            ("tasks", partial(self._copy, "tasks", TASK_COLUMNS), changes.new_tasks),
            ("tasks", partial(self._update, "tasks", _CHANGED_TASK_COLUMNS, 1), changes.changed_tasks),
            ("attempts", partial(self._copy, "attempts", ATTEMPT_COLUMNS), changes.new_attempts),
            ("attempts", partial(self._update, "attempts", ATTEMPT_COLUMNS, 2), changes.changed_attempts),
            ("history", partial(self._copy, "history", HISTORY_COLUMNS), changes.history),
            ("queues", partial(self._upsert, _UPSERT_QUEUES), changes.queues),
            ("pools", partial(self._upsert, _UPSERT_POOLS), changes.pools),
            ("workers", partial(self._upsert, _UPSERT_WORKERS), changes.workers),
            ("counts", partial(self._upsert, _UPSERT_COUNTS), changes.counts),
            ("rejections", partial(self._copy, "rejections", REJECTION_COLUMNS), changes.rejections),
            ("refused_tasks", partial(self._copy, "refused_tasks", REFUSED_TASK_COLUMNS), changes.refused_tasks),
        ]
        try:
            async with self._connection.transaction():
                await self._move(before, after)
                for _, put, rows in puts:
                    await put(rows)
                await self._notify(after)
        except REFUSED:
            self._stages.clear()  # what was made in the transaction is gone with it
        else:
            return ()
        refused: list[tuple[str, Row]] = []
        async with self._connection.transaction():
            await self._move(before, after)
            for table, put, rows in puts:
                await self._put_what_can_be_kept(table, put, rows, refused)
            await self._notify(after)
        if len(refused) > REFUSED_TOLD_MAX:
            _log.error("more rows were refused", extra={"rows": len(refused) - REFUSED_TOLD_MAX})
        return refused

    async def _put_what_can_be_kept(
        self, table: str, put: _Put, rows: list[Row], refused: list[tuple[str, Row]]
    ) -> None:
        """Put the rows, in halves where one of them is refused, down to that one."""
        if not rows:
            return
        try:
            async with self._connection.transaction():
                await put(rows)
        except REFUSED as error:
            self._stages.clear()
            if len(rows) > 1:
                half = len(rows) // 2
                await self._put_what_can_be_kept(table, put, rows[:half], refused)
                await self._put_what_can_be_kept(table, put, rows[half:], refused)
                return
            refused.append((table, rows[0]))
            if len(refused) <= REFUSED_TOLD_MAX:
                fields = {"table": table, "key": rows[0][: len(KEYS[table])], "error": repr(error)}
                _log.error("PostgreSQL cannot keep a row, which was left as it was", extra=fields)

    async def _move(self, before: LogPosition, after: LogPosition) -> None:
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

    async def _notify(self, after: LogPosition) -> None:
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


def _read_back(state: ReadState, table: str, rows: Iterable[Sequence[Any]], restore: Callable[[Any], T]) -> list[T]:
    """What the rows tell. One that cannot be read is told and counted, and what it tells of is not known from then on."""
    found: list[T] = []
    for row in rows:
        try:
            found.append(restore(row))
        except Exception as error:  # noqa: BLE001 - one row must not stop the projection
            state.unreadable += 1
            fields = {"table": table, "key": tuple(row[: len(KEYS[table])]), "error": repr(error)}
            _log.error("a row cannot be read back: a rebuild makes it again", extra=fields)
    return found
