"""Reading: what the API answers from the read model in PostgreSQL.

Functions over a connection pool that return what goes out as JSON. `now` is the time for which reasons are told. What
needs more than one statement sees one state of the tables.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Any

import asyncpg
import msgspec
from msgspec import Raw

from taskyard.api.listing import Listing
from taskyard.api.reasons import NOTHING_AROUND, Around, Waiting, needs_surroundings, pending_reason
from taskyard.api.views import (
    AttemptView,
    HistoryItem,
    PoolView,
    QueueView,
    SlotView,
    StatsView,
    TaskPage,
    TaskView,
    TimesView,
    WorkerView,
)
from taskyard.contracts.events import TaskError
from taskyard.contracts.fleet import ANY_KIND
from taskyard.contracts.lifecycle import Phase
from taskyard.contracts.values import (
    EVENTS_PER_COMMIT_MAX,
    SECOND,
    Instant,
    Position,
    Status,
    format_instant,
    format_position,
    make_position,
    seconds,
)

COUNTED_AHEAD_MAX = 100_000
"""Further back in its queue than this a task is not told its place."""
HISTORY_ITEMS_MAX = 10_000
ITEMS_MAX = 10_000
"""The longest list of workers, queues or pools."""
LOST_WORKERS_SHOWN_SECONDS = 24 * 3600.0
MEASURED_TASKS = 10_000
"""Times are measured of this many tasks that ended last."""

Pool = asyncpg.Pool
Row = asyncpg.Record

_decode_error = msgspec.json.Decoder(TaskError).decode
_decode_event = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_slots = msgspec.json.Decoder(list[list[str]]).decode
_decode_kinds = msgspec.json.Decoder(list[str]).decode
_decode_held = msgspec.json.Decoder(list[tuple[int, str, bool]]).decode


async def get_task(pool: Pool, task: str, now: Instant) -> TaskView | None:
    """The task, or None."""
    async with _snapshot(pool) as connection:
        row = await connection.fetchrow(_statement("get_task"), task)
        return None if row is None else (await _views(connection, [row], now))[0]


async def list_tasks(pool: Pool, listing: Listing, now: Instant) -> TaskPage:
    """One page of tasks."""
    statement = _statement("list_tasks").format(
        conditions=listing.conditions, order=listing.order, limit=listing.limit + 1
    )
    async with _snapshot(pool) as connection:
        rows = await connection.fetch(statement, *listing.parameters)
        shown = rows[: listing.limit]
        items = await _views(connection, shown, now)
    return TaskPage(items=items, next_cursor=listing.cursor_after(shown[-1]) if len(rows) > listing.limit else None)


async def get_history(pool: Pool, task: str, after: Position = Position(0)) -> list[HistoryItem]:
    """The events of a task after a position, in the order of the log; HISTORY_ITEMS_MAX at most."""
    return [_history_item(row) for row in await pool.fetch(_statement("get_history"), task, after, HISTORY_ITEMS_MAX)]


async def list_attempts(pool: Pool, task: str) -> list[AttemptView]:
    """The attempts of a task."""
    return [
        AttemptView(
            attempt=row["attempt"],
            worker=row["worker"],
            slot=row["slot"],
            assigned_at=format_instant(row["assigned_at"]),
            started_at=_time(row["started_at"]),
            finished_at=_time(row["finished_at"]),
            outcome=row["outcome"],
        )
        for row in await pool.fetch(_statement("list_attempts"), task)
    ]


async def list_workers(pool: Pool, now: Instant) -> list[WorkerView]:
    """Workers and their slots; those that were lost long ago are left out."""
    since = now - seconds(LOST_WORKERS_SHOWN_SECONDS)
    return [_worker(row) for row in await pool.fetch(_statement("list_workers"), since, ITEMS_MAX)]


async def get_pool_of_worker(pool: Pool, worker: str) -> str | None:
    """The pool that a worker belongs to."""
    return await pool.fetchval(_statement("get_pool_of_worker"), worker)


async def list_queues(pool: Pool) -> list[QueueView]:
    """Queues with their depth, limits, locks and pauses."""
    return [
        QueueView(
            pool=row["pool"],
            queue=row["queue"],
            depth=row["pending"] + row["scheduled"],
            running=row["active"],
            max_running=row["max_running"],
            paused=row["paused_by"] is not None,
            paused_by=row["paused_by"],
            paused_reason=row["paused_reason"],
            paused_at=_time(row["paused_at"]),
            locked=row["locked_by"] is not None,
            locked_by=row["locked_by"],
            locked_reason=row["locked_reason"],
            locked_at=_time(row["locked_at"]),
        )
        for row in await pool.fetch(_statement("list_queues"), ITEMS_MAX)
    ]


async def list_pools(pool: Pool) -> list[PoolView]:
    """Pools with their settings and what is in them."""
    return [
        PoolView(
            pool=row["pool"],
            depth=row["pending"] + row["scheduled"],
            running=row["active"],
            workers=row["workers"],
            max_waiting=row["max_waiting"],
            approval_timeout_seconds=row["approval_timeout_seconds"],
            placement=row["placement"],
            paused=row["paused_by"] is not None,
            paused_by=row["paused_by"],
            paused_reason=row["paused_reason"],
            paused_at=_time(row["paused_at"]),
        )
        for row in await pool.fetch(_statement("list_pools"), ITEMS_MAX)
    ]


async def get_stats(pool: Pool) -> StatsView:
    """Numbers of tasks by status and kind, and how long the last ones took."""
    async with _snapshot(pool) as connection:
        counts = await connection.fetch(_statement("count_tasks"))
        times = await connection.fetchrow(_statement("measure_times"), MEASURED_TASKS)
    assert times is not None, "an aggregate has one row"
    by_status = {status.value: 0 for status in Status}
    by_kind: dict[str, dict[str, int]] = {}
    for kind, status, tasks in counts:
        by_status[status] = by_status.get(status, 0) + tasks
        by_kind.setdefault(kind, {})[status] = tasks
    return StatsView(
        tasks=sum(by_status.values()),
        by_status=by_status,
        by_kind=by_kind,
        measured=times["tasks"],
        waiting_seconds=_times(times["waited_mean"], times["waited"]),
        execution_seconds=_times(times["ran_mean"], times["ran"]),
    )


async def get_position(pool: Pool) -> Position:
    """How far the read model is: the last position of the last commit that was folded."""
    return whole_commit(await pool.fetchval(_statement("get_position")) or 0)


def whole_commit(sequence: int) -> Position:
    """The position after which nothing of the commit at `sequence` is left."""
    return make_position(sequence, EVENTS_PER_COMMIT_MAX - 1)


# -- tasks and their reasons -------------------------------------------------------------------------------------------


async def _views(connection: Any, rows: Sequence[Row], now: Instant) -> list[TaskView]:
    tasks = [_waiting(row) for row in rows]
    around = await _surroundings(connection, [task for task in tasks if needs_surroundings(task.phase)], now)
    return [
        _task(row, task, around.get(task.id, NOTHING_AROUND), now) for row, task in zip(rows, tasks, strict=True)
    ]


def _waiting(row: Row) -> Waiting:
    return Waiting(
        id=row["id"],
        kind=row["kind"],
        pool=row["pool"],
        queue=row["queue"],
        phase=Phase(row["phase"]),
        due=row["due"],
        exclusive=row["exclusive"],
        is_admitted=row["scheduled_at"] is not None,
        is_apply=row["confirmed"],
        worker=row["worker"],
        slot=row["slot"],
        error_code=None if row["error"] is None else _decode_error(row["error"]).code,
    )


async def _surroundings(connection: Any, tasks: Sequence[Waiting], now: Instant) -> dict[str, Around]:
    if not tasks:
        return {}
    ids = [task.id for task in tasks]
    rows = {row["id"]: row for row in await connection.fetch(_statement("what_tasks_wait_for"), ids, now, COUNTED_AHEAD_MAX)}
    pools = sorted({task.pool for task in tasks})
    accepted = _accepted(await connection.fetch(_statement("what_workers_accept"), pools))
    return {task.id: _around(rows[task.id], (task.pool, task.kind) in accepted) for task in tasks}


def _accepted(rows: Iterable[Row]) -> set[tuple[str, str]]:
    """Pools with the kinds that some active worker of theirs takes."""
    return {
        (row["pool"], kind)
        for row in rows
        for slot in _decode_slots(row["slots"])
        for kind in _decode_kinds(row["kinds"])
        if ANY_KIND in slot or kind in slot
    }


def _around(row: Row, has_worker: bool) -> Around:  # noqa: FBT001 - one row of a table in Python
    return Around(
        queue_position=None if row["is_beyond_count"] else int(row["ahead"]) + 1,
        next_ahead=row["next_ahead"],
        workspace_holder=row["holder"],
        max_running=row["max_running"],
        admitted=row["admitted"] or 0,
        queue_paused_by=row["queue_paused_by"],
        queue_paused_reason=row["queue_paused_reason"] or "",
        pool_paused_by=row["pool_paused_by"],
        pool_paused_reason=row["pool_paused_reason"] or "",
        locked_by=row["locked_by"],
        locked_reason=row["locked_reason"] or "",
        has_worker=has_worker,
    )


def _task(row: Row, task: Waiting, around: Around, now: Instant) -> TaskView:
    return TaskView(
        id=row["id"],
        kind=row["kind"],
        pool=row["pool"],
        queue=row["queue"],
        priority=row["priority"],
        status=row["status"],
        attempt=row["attempt"],
        worker=row["worker"],
        slot=row["slot"],
        progress=row["progress"],
        error=None if row["error"] is None else _decode_error(row["error"]),
        pending_reason=pending_reason(task, around, now),
        submitted_by=row["submitted_by"],
        submitted_at=format_instant(row["submitted_at"]),
        scheduled_at=_time(row["scheduled_at"]),
        started_at=_time(row["started_at"]),
        finished_at=_time(row["finished_at"]),
        result=_result(row),
        labels=Raw(row["labels"]),
        retry_of=row["retry_of"],
        parent=None,
        position=format_position(row["position"]),
    )


def _result(row: Row) -> Raw | None:
    if row["result"] is not None:
        return Raw(row["result"])
    return None if row["changes"] is None else Raw(f'{{"changes":{row["changes"]}}}')


# -- other rows --------------------------------------------------------------------------------------------------------


def _history_item(row: Row) -> HistoryItem:
    data = _decode_event(row["event"])
    for shown in ("type", "task", "by"):
        data.pop(shown, None)
    return HistoryItem(
        position=format_position(row["position"]),
        at=format_instant(row["at"]),
        type=row["type"],
        by=row["by"] or row["writer"],
        void=row["void"],
        data=data,
    )


def _worker(row: Row) -> WorkerView:
    held = {slot: (task, is_reserved) for slot, task, is_reserved in _decode_held(row["held"] or "[]")}
    states = (("lost", "lost"), ("suspect", "suspect"), ("draining", "draining"))
    return WorkerView(
        id=row["worker"],
        pool=row["pool"],
        status=next((name for column, name in states if row[column]), "active"),
        reason=row["reason"],
        labels=Raw(row["labels"]),
        slots=[_slot(number, accepts, held) for number, accepts in enumerate(_decode_slots(row["slots"]))],
    )


def _slot(number: int, accepts: list[str], held: Mapping[int, tuple[str, bool]]) -> SlotView:
    if number not in held:
        return SlotView(id=number, status="idle", accepts=accepts, task=None)
    task, is_reserved = held[number]
    return SlotView(id=number, status="reserved" if is_reserved else "running", accepts=accepts, task=task)


def _times(mean: float | None, percentiles: Sequence[float] | None) -> TimesView:
    if mean is None or percentiles is None:
        return TimesView(mean=None, p50=None, p95=None)
    return TimesView(mean=mean / SECOND, p50=percentiles[0] / SECOND, p95=percentiles[1] / SECOND)


def _time(at: Instant | None) -> str | None:
    return None if at is None else format_instant(at)


@cache
def _statement(name: str) -> str:
    return files("taskyard.api").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


@asynccontextmanager
async def _snapshot(pool: Pool) -> Any:
    """A connection on which all statements see one state of the tables."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        yield connection
