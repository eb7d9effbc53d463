"""A state of the past as the API's answers, and the reasons for which its tasks waited. Pure.

It says what the read model would have said then: the same forms, the same reasons, the same limits.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw

from taskyard.api.past.state import Hold, PastState, PastWorker
from taskyard.api.reasons import NOTHING_AROUND, Around, Waiting, needs_surroundings, pending_reason
from taskyard.api.views import PoolView, QueueView, SlotView, TaskView, WorkerView
from taskyard.contracts.events import TaskError
from taskyard.contracts.fleet import ANY_KIND
from taskyard.contracts.lifecycle import Phase, TaskRecord
from taskyard.contracts.values import Instant, Position, TaskId, format_instant, format_position, seconds

PLACES_TOLD_MAX = 1_000
"""As in the read model: a task further back in its queue is not told its place."""
LOST_WORKERS_SHOWN_SECONDS = 24 * 3600.0

_NULL = Raw(b"null")
_WAITING = (Phase.PENDING, Phase.SCHEDULED)


def live_task_view(state: PastState, task: TaskId, now: Instant) -> TaskView | None:
    """A task that lived then, with the reason why it waited."""
    record = state.tasks.live.get(task)
    if record is None:
        return None
    return task_view(record, state.positions[task], around_of(state, record, now), now)


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
        exclusive=record.exclusive,
        is_admitted=record.scheduled_at is not None,
        is_apply=record.confirmed,
        worker=record.worker,
        slot=record.slot,
        error_code=None if error is None else error.code,
    )


def around_of(state: PastState, record: TaskRecord, now: Instant) -> Around:
    """What stood around a task: what `what_tasks_wait_for` finds in the read model."""
    if not needs_surroundings(record.phase):
        return NOTHING_AROUND
    mates = [state.tasks.live[id] for id in state.of_queue.get((record.pool, record.queue), ())]
    holder = min((mate for mate in mates if mate.holds_workspace and mate.id != record.id), key=_order, default=None)
    ahead = [mate for mate in mates if _waits(mate) and _place(mate) < _place(record) and mate.due <= now]
    blocking = [mate for mate in ahead if not _waits_for_workspace(mate, record, holder)]
    queue, pool = state.queue(record.pool, record.queue), state.pool(record.pool)
    before = sum(_waits(mate) and _place(mate) < _place(record) for mate in mates)
    return Around(
        queue_position=len(ahead) + 1 if _waits(record) and before < PLACES_TOLD_MAX else None,
        next_ahead=max(blocking, key=_place).id if blocking else None,
        workspace_holder=None if holder is None else holder.id,
        max_running=queue.max_running,
        admitted=sum(mate.phase is not Phase.PENDING for mate in mates),
        queue_paused_by=queue.paused.by if queue.paused else None,
        queue_paused_reason=queue.paused.reason if queue.paused else "",
        pool_paused_by=pool.paused.by if pool.paused else None,
        pool_paused_reason=pool.paused.reason if pool.paused else "",
        locked_by=queue.locked.by if queue.locked else None,
        locked_reason=queue.locked.reason if queue.locked else "",
        has_worker=any(_takes(worker, record) for worker in state.workers.values()),
    )


def worker_views(state: PastState, now: Instant) -> list[WorkerView]:
    """Workers and their slots; those that were lost long ago are left out."""
    since = now - seconds(LOST_WORKERS_SHOWN_SECONDS)
    return [
        _worker(state, worker)
        for _, worker in sorted(state.workers.items())
        if not worker.is_lost or worker.changed_at > since or state.tasks.on_worker.get(worker.name)
    ]


def queue_views(state: PastState) -> list[QueueView]:
    """Queues with what waited and ran in them."""
    views: list[QueueView] = []
    for key, queue in sorted(state.queues.items()):
        tasks = [state.tasks.live[id] for id in state.of_queue.get(key, ())]
        waiting = sum(task.phase in _WAITING for task in tasks)
        views.append(
            QueueView(
                pool=queue.pool,
                queue=queue.name,
                depth=waiting,
                running=len(tasks) - waiting,
                max_running=queue.max_running,
                **_held("paused", queue.paused),
                **_held("locked", queue.locked),
            )
        )
    return views


def pool_views(state: PastState) -> list[PoolView]:
    """Pools with their settings and what was in them."""
    waiting: dict[str, int] = {}
    running: dict[str, int] = {}
    for record in state.tasks.live.values():
        counts = waiting if record.phase in _WAITING else running
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


def _worker(state: PastState, worker: PastWorker) -> WorkerView:
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
        reason=worker.reason,
        labels=Raw(msgspec.json.encode(worker.labels)),
        slots=[_slot(number, accepts, held.get(number)) for number, accepts in enumerate(worker.slots)],
    )


def _slot(number: int, accepts: Iterable[str], record: TaskRecord | None) -> SlotView:
    if record is None:
        return SlotView(id=number, status="idle", accepts=list(accepts), task=None)
    status = "reserved" if record.is_reserved else "running"
    return SlotView(id=number, status=status, accepts=list(accepts), task=record.id)


def takes_kind(worker: PastWorker, slot: int, kind: str) -> bool:
    """Whether a slot of the worker takes tasks of the kind."""
    return kind in worker.kinds and (ANY_KIND in worker.slots[slot] or kind in worker.slots[slot])


def _takes(worker: PastWorker, record: TaskRecord) -> bool:
    return (
        worker.pool == record.pool
        and worker.takes_tasks
        and any(takes_kind(worker, slot, record.kind) for slot in range(len(worker.slots)))
    )


def _waits(record: TaskRecord) -> bool:
    """Whether it has a place among the waiting ones: an apply waits for its own slot only."""
    return record.phase in _WAITING and not record.confirmed


def _waits_for_workspace(mate: TaskRecord, record: TaskRecord, holder: TaskRecord | None) -> bool:
    """Whether a task before this one does not keep it, since it waits for the workspace, which this one need not."""
    return mate.exclusive and not record.exclusive and holder is not None and mate.id != holder.id


def _place(record: TaskRecord) -> tuple[int, Position]:
    return record.priority, record.submitted


def _order(record: TaskRecord) -> Position:
    return record.submitted


def _held(what: str, hold: Hold | None) -> dict[str, Any]:
    return {
        what: hold is not None,
        f"{what}_by": hold.by if hold else None,
        f"{what}_reason": hold.reason if hold else None,
        f"{what}_at": format_instant(hold.at) if hold else None,
    }


def _result(record: TaskRecord) -> Raw | None:
    if record.result != _NULL:
        return record.result
    return None if record.changes is None else Raw(msgspec.json.encode({"changes": record.changes}))


def _time(at: Instant | None) -> str | None:
    return None if at is None else format_instant(at)
