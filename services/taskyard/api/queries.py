"""Reading: what the API answers from the read model in PostgreSQL.

Functions over a connection pool that return what goes out as JSON. `now` is the time for which reasons are told. What
needs more than one statement sees one state of the tables.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Any

import asyncpg

from taskyard.api.directory import Place
from taskyard.api.list_pages import ListWanted
from taskyard.api.listing import Listing
from taskyard.api.pages import Placed
from taskyard.api.read_model import REJECTIONS_MAX, FoldedTo
from taskyard.api.reasons import NOTHING_AROUND, Around, Waiting, needs_surroundings
from taskyard.api.row_views import (
    Row,
    Takers,
    closing_tasks,
    history_item,
    queue_pause,
    rejection,
    surroundings,
    task_view,
    tasks_around,
    time_text,
    times_view,
    waiting_task,
    worker_view,
)
from taskyard.api.views import (
    HistoryItem,
    PoolView,
    QueueView,
    Rejection,
    StatsView,
    TaskView,
    WorkerView,
)
from taskyard.contracts.nearest import NAMES_COMPARED_MAX
from taskyard.contracts.queues import Hold
from taskyard.contracts.values import (
    EVENTS_PER_COMMIT_MAX,
    Instant,
    Position,
    Status,
    make_position,
    seconds,
)

PLACES_TOLD_MAX = 1_000
"""A task further back in its queue is not told its place: counting costs, and clients ask again and again."""
PLACES_COUNTED_MAX = 20_000
"""The same for a whole page: one that shows tasks of many long queues counts less far into each."""
LOST_WORKERS_SHOWN_SECONDS = 24 * 3600.0
MEASURED_TASKS = 1_000
"""Times are measured of this many tasks that ended last: enough for percentiles, and clients ask again and again."""
OWN_TASKS_LOOKED_AT = 20_000
"""The same for one submitter: those are sought among the tasks that were submitted last."""

Pool = asyncpg.Pool


async def get_task(pool: Pool, task: str, now: Instant, sees_only: str | None) -> TaskView | None:
    """The task, or None. Why it waits is told without the ids of tasks of others than `sees_only`."""
    async with _snapshot(pool) as connection:
        row = await connection.fetchrow(_statement("get_task"), task)
        return None if row is None else (await _views(connection, [row], now, sees_only))[0]


async def list_tasks(pool: Pool, listing: Listing, now: Instant, sees_only: str | None) -> list[Placed]:
    """The tasks of one page, and one more if there is another page; as `get_task`."""
    statement = _statement("list_tasks").format(
        conditions=listing.conditions, order=listing.order, limit=listing.limit + 1
    )
    async with _snapshot(pool) as connection:
        rows = await connection.fetch(statement, *listing.parameters)
        views = await _views(connection, rows, now, sees_only)
    return [
        Placed(
            key=listing.sort.key(submitted=row["submitted"], priority=row["priority"], finished_at=row["finished_at"]),
            submitted=row["submitted"],
            task=view,
        )
        for row, view in zip(rows, views, strict=True)
    ]


async def get_history(pool: Pool, task: str, wanted: ListWanted) -> list[HistoryItem]:
    """The events of a task in the order of the log: those of a page, and one more if there is another page."""
    rows = await pool.fetch(_statement("get_history"), task, *wanted.behind, wanted.limit + 1)
    return [history_item(row) for row in rows]


async def get_rejections(pool: Pool, command: str) -> list[Rejection]:
    """How a command of this id was refused; REJECTIONS_MAX at most."""
    return [rejection(row) for row in await pool.fetch(_statement("get_rejections"), command, REJECTIONS_MAX)]


async def get_workers_of(pool: Pool, task: str) -> dict[int, str]:
    """Which worker had each attempt of a task."""
    return {row["attempt"]: row["worker"] for row in await pool.fetch(_statement("get_workers_of"), task)}


async def list_workers(pool: Pool, now: Instant, wanted: ListWanted, sees_only: str | None) -> list[WorkerView]:
    """Workers and their slots, as `get_history`; those that were lost long ago are left out.

    Of tasks of others than `sees_only` it shows that they are there, and not which they are.
    """
    since = now - seconds(LOST_WORKERS_SHOWN_SECONDS)
    async with _snapshot(pool) as connection:
        statement = _statement("list_workers")
        rows = await connection.fetch(statement, since, sees_only, *wanted.behind, wanted.limit + 1)
        stopping = [task for row in rows for task in closing_tasks(row)]
        own = await _own(connection, stopping, sees_only)
    return [worker_view(row, own) for row in rows]


async def get_own_tasks(pool: Pool, tasks: Sequence[str], sees_only: str) -> set[str]:
    """Those of the tasks that are of one principal."""
    return await _own(pool, tasks, sees_only) or set()


async def get_place(pool: Pool, task: str) -> Place | None:
    """Where a task belongs: what of it never changes."""
    row = await pool.fetchrow(_statement("get_place"), task)
    return None if row is None else Place(pool=row["pool"], queue=row["queue"], submitted_by=row["submitted_by"])


async def get_pool_of_worker(pool: Pool, worker: str) -> str | None:
    """The pool that a worker belongs to."""
    return await pool.fetchval(_statement("get_pool_of_worker"), worker)


async def list_queues(pool: Pool, wanted: ListWanted) -> list[QueueView]:
    """Queues with their depth, limits, locks and pauses, as `get_history`."""
    return [
        QueueView(
            pool=row["pool"],
            queue=row["queue"],
            depth=row["pending"] + row["scheduled"],
            running=row["active"],
            max_running=row["max_running"],
            **queue_pause(_hold(row, ""), _hold(row, "pool_")),
            locked=row["locked_by"] is not None,
            locked_by=row["locked_by"],
            locked_reason=row["locked_reason"],
            locked_at=time_text(row["locked_at"]),
        )
        for row in await pool.fetch(_statement("list_queues"), *wanted.behind, wanted.limit + 1)
    ]


async def list_pools(pool: Pool, wanted: ListWanted) -> list[PoolView]:
    """Pools with their settings and what is in them, as `get_history`."""
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
            paused_at=time_text(row["paused_at"]),
        )
        for row in await pool.fetch(_statement("list_pools"), *wanted.behind, wanted.limit + 1)
    ]


async def get_known_pools(pool: Pool, wanted: Sequence[str]) -> list[str]:
    """Those of the wanted pools that are there, and others that may have been meant."""
    return [row["pool"] for row in await pool.fetch(_statement("get_known_pools"), list(wanted), NAMES_COMPARED_MAX)]


async def get_known_workers(pool: Pool, wanted: Sequence[str]) -> list[str]:
    """Those of the wanted workers that have ever joined, and others that may have been meant."""
    rows = await pool.fetch(_statement("get_known_workers"), list(wanted), NAMES_COMPARED_MAX)
    return [row["worker"] for row in rows]


async def get_stats(pool: Pool, by: str | None) -> StatsView:
    """Numbers of tasks by status and kind, and how long the last ones took; of those of one submitter, or of all."""
    async with _snapshot(pool) as connection:
        counts = await connection.fetch(_statement("count_tasks"), by)
        if by is None:
            times = await connection.fetchrow(_statement("measure_times"), MEASURED_TASKS)
        else:
            times = await connection.fetchrow(_statement("measure_times_of"), MEASURED_TASKS, by, OWN_TASKS_LOOKED_AT)
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
        waiting_seconds=times_view(times["waited_mean"], times["waited"]),
        execution_seconds=times_view(times["ran_mean"], times["ran"]),
    )


async def get_position(pool: Pool) -> Position:
    """How far the read model is: the last position of the last commit that was folded."""
    return whole_commit((await get_folded_to(pool)).sequence)


async def get_folded_to(pool: Pool) -> FoldedTo:
    """The last commit that was folded."""
    row = await pool.fetchrow(_statement("get_position"))
    return FoldedTo(sequence=0, hash="") if row is None else FoldedTo(sequence=row["sequence"], hash=row["hash"])


def whole_commit(sequence: int) -> Position:
    """The position after which nothing of the commit at `sequence` is left."""
    return make_position(sequence, EVENTS_PER_COMMIT_MAX - 1)


# -- tasks and their reasons -------------------------------------------------------------------------------------------


async def _views(connection: Any, rows: Sequence[Row], now: Instant, sees_only: str | None) -> list[TaskView]:
    tasks = [waiting_task(row) for row in rows]
    around = await _surroundings(
        connection, [task for task in tasks if needs_surroundings(task.phase, is_apply=task.is_apply)], now, sees_only
    )
    return [
        task_view(row, task, around.get(task.id, NOTHING_AROUND), now) for row, task in zip(rows, tasks, strict=True)
    ]


async def _surroundings(
    connection: Any, tasks: Sequence[Waiting], now: Instant, sees_only: str | None
) -> dict[str, Around]:
    if not tasks:
        return {}
    ids = [task.id for task in tasks]
    places = min(PLACES_TOLD_MAX, PLACES_COUNTED_MAX // len({(task.pool, task.queue) for task in tasks}))
    rows = {row["id"]: row for row in await connection.fetch(_statement("what_tasks_wait_for"), ids, now, places)}
    pools = sorted({task.pool for task in tasks})
    takers = Takers(await connection.fetch(_statement("what_workers_accept"), pools))
    own = await _own(connection, [id for row in rows.values() for id in tasks_around(row)], sees_only)
    # A row may be missing here: a rebuild may put other tables in place between two statements of one snapshot.
    found = (task for task in tasks if task.id in rows)
    return {task.id: surroundings(rows[task.id], task, takers, own) for task in found}


async def _own(connection: Any, tasks: Sequence[str], sees_only: str | None) -> set[str] | None:
    """Those of the tasks that are of `sees_only`; None: all may be seen."""
    if sees_only is None:
        return None
    if not tasks:
        return set()
    return {row["id"] for row in await connection.fetch(_statement("get_own_tasks"), tasks, sees_only)}


def _hold(row: Row, whose: str) -> Hold | None:
    by = row[f"{whose}paused_by"]
    return None if by is None else Hold(by=by, reason=row[f"{whose}paused_reason"], at=row[f"{whose}paused_at"])


@cache
def _statement(name: str) -> str:
    return files("taskyard.api").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


@asynccontextmanager
async def _snapshot(pool: Pool) -> AsyncIterator[Any]:
    """A connection on which all statements see one state of the tables."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        yield connection
