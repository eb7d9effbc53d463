"""What stood around waiting tasks at a moment: what `what_tasks_wait_for` finds in the read model. Pure.

A queue is looked at once, however many of its tasks are asked for: that costs as much as the queue is long.
"""

from bisect import bisect_left
from collections.abc import Iterable

from taskyard.api.past.state import PastState, PastWorker
from taskyard.api.reasons import NOTHING_AROUND, OTHERS_TASK, Around, needs_surroundings, suspects_words
from taskyard.contracts.fleet import ANY_KIND
from taskyard.contracts.lifecycle import Phase, TaskRecord
from taskyard.contracts.queues import Hold
from taskyard.contracts.values import Instant, Position, TaskId

PLACES_TOLD_MAX = 1_000
"""As in the read model: a task further back in its queue is not told its place."""
PLACES_COUNTED_MAX = 20_000
"""As there, for a whole page: one that shows tasks of many queues counts less far into each."""

WAITING = (Phase.PENDING, Phase.SCHEDULED)


class Surroundings:
    """What stood around tasks of a state. Places are told of `tasks` when they are given, otherwise of any one task.

    Tasks of others than `sees_only` are not named.
    """

    def __init__(self, state: PastState, now: Instant, sees_only: str | None, tasks: Iterable[TaskRecord] = ()) -> None:
        self._state = state
        self._sees_only = sees_only
        self._now = now
        queues = {(task.pool, task.queue) for task in tasks if needs_surroundings(task.phase, is_apply=task.confirmed)}
        self._places_max = min(PLACES_TOLD_MAX, PLACES_COUNTED_MAX // max(len(queues), 1))
        self._fronts: dict[tuple[str, str], _Front] = {}
        self._takers: dict[tuple[str, str], bool] = {}
        self._suspected: dict[tuple[str, str], str] = {}

    def of(self, record: TaskRecord) -> Around:
        """What stood around a live task of the state."""
        if not needs_surroundings(record.phase, is_apply=record.confirmed):
            return NOTHING_AROUND
        front = self._front(record)
        settings = self._state.settings
        queue, pool = settings.queue(record.pool, record.queue), settings.pool(record.pool)
        before = front.before(record)
        holder = self._holder_beside(record)
        lock = self._lock_of(record)
        return Around(
            queue_position=front.due[before] + 1 if is_placed(record) and before < self._places_max else None,
            next_ahead=self._named(
                front.open[before] if holder is not None and not record.locks_queue else front.last[before]
            ),
            workspace_holder=self._named(None if holder is None else holder.id),
            max_running=queue.max_running,
            admitted=front.admitted,
            queue_paused_by=queue.paused.by if queue.paused else None,
            queue_paused_reason=queue.paused.reason if queue.paused else "",
            queue_paused_at=queue.paused.at if queue.paused else None,
            pool_paused_by=pool.paused.by if pool.paused else None,
            pool_paused_reason=pool.paused.reason if pool.paused else "",
            pool_paused_at=pool.paused.at if pool.paused else None,
            locked_pool=lock[0] if lock else None,
            locked_by=lock[1].by if lock else None,
            locked_reason=lock[1].reason if lock else "",
            locked_at=lock[1].at if lock else None,
            aside_reason=pool.aside.get(record.id if record.confirmed else record.kind),
            has_worker=self._has_taker(record.pool, record.kind),
            suspects=self._suspects(record.pool, record.kind),
        )

    def _named(self, id: str | None) -> str | None:
        """The task as whoever asks may be told of it."""
        return id if id is None or may_name(self._state, id, self._sees_only) else OTHERS_TASK

    def _holder_beside(self, record: TaskRecord) -> TaskRecord | None:
        """Another task, of any pool, that has the queue for itself; the first one, if there are more."""
        others = (id for id in self._state.holders.get(record.queue, ()) if id != record.id)
        return min((self._state.tasks.live[id] for id in others), key=lambda other: other.submitted, default=None)

    def _lock_of(self, record: TaskRecord) -> tuple[str, Hold] | None:
        """The lock that holds the task, with its pool: the own one first, another pool's for one that locks its queue."""
        locked = self._state.settings.locks_of(record.queue)
        own = [queue for queue in locked if queue.pool == record.pool]
        for queue in own or (locked if record.locks_queue else ()):
            if queue.locked is not None:
                return queue.pool, queue.locked
        return None

    def _front(self, record: TaskRecord) -> "_Front":
        key = (record.pool, record.queue)
        front = self._fronts.get(key)
        if front is None:
            live = self._state.tasks.live
            mates = [live[id] for id in self._state.of_queue.get(key, ())]
            front = self._fronts[key] = _Front(mates, self._first_holder(record.queue), self._now)
        return front

    def _first_holder(self, name: str) -> str | None:
        holders = self._state.holders.get(name, ())
        return min(holders, key=lambda id: self._state.tasks.live[id].submitted, default=None)

    def _has_taker(self, pool: str, kind: str) -> bool:
        """Whether a worker was there that takes the kind."""
        known = self._takers.get((pool, kind))
        if known is None:
            known = self._takers[pool, kind] = any(worker.takes_tasks for worker in self._of_kind(pool, kind))
        return known

    def _suspects(self, pool: str, kind: str) -> str:
        """In words, who would have taken it, but was suspect."""
        known = self._suspected.get((pool, kind))
        if known is None:
            found = (
                one for one in self._of_kind(pool, kind) if one.is_suspect and not (one.is_lost or one.is_draining)
            )
            known = self._suspected[pool, kind] = suspects_words((worker.name, worker.reason) for worker in found)
        return known

    def _of_kind(self, pool: str, kind: str) -> Iterable[PastWorker]:
        return (
            worker
            for worker in self._state.workers.values()
            if worker.pool == pool and any(takes_kind(worker, slot, kind) for slot in range(len(worker.slots)))
        )


class _Front:
    """The tasks of one queue that wait, in their order, and what is true in front of each place.

    In front of the place `i`: `due[i]` tasks are due, `last[i]` is the last one of these, and `open[i]` the last one that
    does not wait for the workspace itself, which a task that does not lock it need not wait for.
    """

    def __init__(self, mates: list[TaskRecord], first_holder: str | None, now: Instant) -> None:
        self.admitted = sum(mate.phase is not Phase.PENDING for mate in mates)
        waiting = sorted((mate for mate in mates if is_placed(mate)), key=_place)
        self._places = [_place(mate) for mate in waiting]
        self.due = [0]
        self.last: list[str | None] = [None]
        self.open: list[str | None] = [None]
        for mate in waiting:
            is_due = mate.due <= now
            self.due.append(self.due[-1] + is_due)
            self.last.append(mate.id if is_due else self.last[-1])
            is_open = is_due and not (mate.locks_queue and mate.id != first_holder)
            self.open.append(mate.id if is_open else self.open[-1])

    def before(self, record: TaskRecord) -> int:
        """How many waiting tasks stand in front of it."""
        return bisect_left(self._places, _place(record))


def is_placed(record: TaskRecord) -> bool:
    """Whether it has a place among the waiting ones: an apply waits for its own slot only."""
    return record.phase in WAITING and not record.confirmed


def may_name(state: PastState, task: str, sees_only: str | None) -> bool:
    """Whether who sees tasks of `sees_only` only (None: all) may be told the id of a live task."""
    return sees_only in {None, state.tasks.live[TaskId(task)].submitted_by}


def takes_kind(worker: PastWorker, slot: int, kind: str) -> bool:
    """Whether a slot of the worker takes tasks of the kind."""
    return kind in worker.kinds and (ANY_KIND in worker.slots[slot] or kind in worker.slots[slot])


def _place(record: TaskRecord) -> tuple[int, Position]:
    return record.priority, record.submitted
