"""A state of the past as the API's answers, and the reasons for which its tasks waited. Pure.

It says what the read model would have said then: the same forms, the same reasons, the same limits.
"""

from collections.abc import Collection, Iterable
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from taskyard.api.past.state import PastState, PastWorker
from taskyard.api.past.surroundings import WAITING, Surroundings
from taskyard.api.reasons import Around, Waiting, pending_reason
from taskyard.api.row_views import queue_pause
from taskyard.api.views import PoolView, QueueView, SlotView, TaskView, WorkerView
from taskyard.contracts.events import TaskError
from taskyard.contracts.lifecycle import TaskRecord
from taskyard.contracts.queues import Hold
from taskyard.contracts.readable import UNREADABLE_SHOWN, is_readable
from taskyard.contracts.values import Instant, Position, TaskId, format_instant, format_position, seconds

LOST_WORKERS_SHOWN_SECONDS = 24 * 3600.0

_NULL = Raw(b"null")


def live_task_view(state: PastState, task: TaskId, now: Instant, sees_only: str | None) -> TaskView | None:
    """A task that lived then, with the reason why it waited."""
    record = state.tasks.live.get(task)
    if record is None:
        return None
    return task_view(record, state.positions[task], Surroundings(state, now, sees_only).of(record), now)


def task_view(record: TaskRecord, position: Position, around: Around, now: Instant) -> TaskView:
    """A task as its record tells it."""
    return TaskView(
        id=record.id,
        kind=record.kind,
        pool=record.pool,
        queue=record.queue,
        priority=record.priority,
        status=record.status.value,
        attempt=record.attempt,
        worker=record.worker,
        slot=record.slot,
        progress=record.progress,
        error=record.error,
        pending_reason=pending_reason(waiting_of(record), around, now),
        submitted_by=record.submitted_by,
        submitted_at=format_instant(record.submitted_at),
        scheduled_at=_time(record.scheduled_at),
        started_at=_time(record.started_at),
        finished_at=_time(record.finished_at),
        result=_result(record),
        labels=Raw(msgspec.json.encode(record.labels)),
        retry_of=record.retry_of,
        parent=None,
        position=format_position(position),
    )


def waiting_of(record: TaskRecord) -> Waiting:
    """What a task's own record tells about its waiting."""
    error: TaskError | None = record.error
    return Waiting(
        id=record.id,
        kind=record.kind,
        pool=record.pool,
        queue=record.queue,
        phase=record.phase,
        due=record.due,
        locks_queue=record.locks_queue,
        is_admitted=record.scheduled_at is not None,
        is_apply=record.confirmed,
        worker=record.worker,
        slot=record.slot,
        error_code=None if error is None else error.code,
        error_message="" if error is None else error.message,
    )


def worker_views(state: PastState, now: Instant, sees_only: str | None) -> list[WorkerView]:
    """Workers and their slots; those that were lost long ago are left out. Tasks of others than `sees_only` are not named, but
    those that had ended are, see `without_others`: whose they were is not known here.
    """
    since = now - seconds(LOST_WORKERS_SHOWN_SECONDS)
    return [
        _worker(state, worker, sees_only)
        for _, worker in sorted(state.workers.items())
        if not worker.is_lost or worker.changed_at > since or state.tasks.on_worker.get(worker.name)
    ]


def closing_tasks(state: PastState) -> set[str]:
    """Tasks that had ended, and something of which might still live on a worker."""
    return {task for worker in state.workers.values() for task in worker.closing.values()}


def without_others(views: Iterable[WorkerView], others: Collection[str]) -> list[WorkerView]:
    """The workers, with these tasks not named."""
    return [
        replace(view, slots=[replace(slot, task=None) if slot.task in others else slot for slot in view.slots])
        for view in views
    ]


def queue_views(state: PastState) -> list[QueueView]:
    """Queues with what waited and ran in them."""
    views: list[QueueView] = []
    for key, queue in sorted(state.queues.items()):
        tasks = [state.tasks.live[id] for id in state.of_queue.get(key, ())]
        waiting = sum(task.phase in WAITING for task in tasks)
        views.append(
            QueueView(
                pool=queue.pool,
                queue=queue.name,
                depth=waiting,
                running=len(tasks) - waiting,
                max_running=queue.max_running,
                **queue_pause(queue.paused, pool.paused if (pool := state.pools.get(queue.pool)) else None),
                **_held("locked", queue.locked),
            )
        )
    return views


def pool_views(state: PastState) -> list[PoolView]:
    """Pools with their settings and what was in them."""
    waiting: dict[str, int] = {}
    running: dict[str, int] = {}
    for record in state.tasks.live.values():
        counts = waiting if record.phase in WAITING else running
        counts[record.pool] = counts.get(record.pool, 0) + 1
    return [
        PoolView(
            pool=pool.name,
            depth=waiting.get(pool.name, 0),
            running=running.get(pool.name, 0),
            workers=sum(worker.pool == pool.name and not worker.is_lost for worker in state.workers.values()),
            max_waiting=pool.max_waiting,
            approval_timeout_seconds=pool.approval_timeout_seconds,
            placement=pool.placement,
            **_held("paused", pool.paused),
        )
        for _, pool in sorted(state.pools.items())
    ]


def _worker(state: PastState, worker: PastWorker, sees_only: str | None) -> WorkerView:
    held: dict[int, TaskRecord] = {}
    for id in state.tasks.on_worker.get(worker.name, ()):
        record = state.tasks.live[id]
        if record.slot is not None:
            held[record.slot] = record
    states = ((worker.is_lost, "lost"), (worker.is_suspect, "suspect"), (worker.is_draining, "draining"))
    return WorkerView(
        id=worker.name,
        pool=worker.pool,
        status=next((name for is_so, name in states if is_so), "active"),
        incarnation=str(worker.incarnation),
        joined_at=format_instant(worker.joined_at),
        reason=worker.reason,
        labels=Raw(msgspec.json.encode(worker.labels)),
        slots=[
            _slot(number, accepts, held.get(number), worker.closing.get(number), sees_only)
            for number, accepts in enumerate(worker.slots)
        ],
    )


def _slot(
    number: int, accepts: Iterable[str], record: TaskRecord | None, closing: TaskId | None, sees_only: str | None
) -> SlotView:
    if record is None and closing is not None:
        return SlotView(id=number, status="running", accepts=list(accepts), task=closing)
    if record is None:
        return SlotView(id=number, status="idle", accepts=list(accepts), task=None)
    status = "reserved" if record.is_reserved else "running"
    is_named = sees_only in {None, record.submitted_by}
    return SlotView(id=number, status=status, accepts=list(accepts), task=record.id if is_named else None)


def _held(what: str, hold: Hold | None) -> dict[str, Any]:
    return {
        what: hold is not None,
        f"{what}_by": hold.by if hold else None,
        f"{what}_reason": hold.reason if hold else None,
        f"{what}_at": format_instant(hold.at) if hold else None,
    }


def _result(record: TaskRecord) -> Raw | None:
    if record.result != _NULL:
        return record.result if is_readable(record.result) else UNREADABLE_SHOWN
    return None if record.changes is None else Raw(msgspec.json.encode({"changes": record.changes}))


def _time(at: Instant | None) -> str | None:
    return None if at is None else format_instant(at)
