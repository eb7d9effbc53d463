"""The slot allocator's state: a fold of the log.

`apply` keeps tasks, workers, what waits for a slot in the order of the log, and tells the cache of idle slots what changed.
"""

from msgspec import Struct

from taskyard.contracts.events import (
    NO_RESPONDERS,
    AnyEvent,
    NotDelivered,
    PlacingFailed,
    PlacingResumed,
    PoolConfigured,
    SlotAssigned,
    UnknownEvent,
    WorkerJoined,
)
from taskyard.contracts.fleet import Fleet, Worker
from taskyard.contracts.lifecycle import ON_WORKER, Phase, TaskRecord, Verdict
from taskyard.contracts.tasks import Change, TaskTable
from taskyard.contracts.values import Incarnation, Instant, Position, TaskId
from taskyard.machine.aside import Aside
from taskyard.slot_allocator.placement import FIRST_FIT, IdleSlots


class Saved(Struct, frozen=True, kw_only=True):
    """The snapshot of the state."""

    tasks: list[TaskRecord]
    workers: list[Worker]
    joined: dict[str, Position]
    waiting: dict[str, list[TaskId]]
    policies: dict[str, str]
    told_aside: list[tuple[str, str]] = []


class AllocatorState:
    """What the slot allocator knows from the log.

    `waiting` has, per pool, the scheduled tasks that need a slot, and `applies` those that wait on a reserved one.
    """

    def __init__(self) -> None:
        self.tasks = TaskTable()
        self.fleet = Fleet()
        self.joined: dict[str, Position] = {}
        self.waiting: dict[str, dict[TaskId, None]] = {}
        self.applies: dict[TaskId, None] = {}
        self.policies: dict[str, str] = {}
        self.idle = IdleSlots(is_open=False)
        self.touched: dict[str, None] = {}
        self.not_reached: dict[str, Incarnation] = {}
        self.aside: Aside[tuple[str, str]] = Aside()
        """Pools and kinds at whose placing deciding raised."""
        self.applies_aside: Aside[TaskId] = Aside()
        """Applies at which it did."""
        self.told_aside: dict[tuple[str, str], None] = {}
        """Pools, and kinds or tasks, of which the log tells that they stand aside."""

    def apply(self, event: AnyEvent | UnknownEvent, at: Instant, position: Position) -> None:
        """Fold one event."""
        changes = self.tasks.apply(event, at, position)
        concerned = self.fleet.apply(event, changes)
        if concerned is not None:
            self._worker_changed(event, concerned, position)
        for change in changes:
            if change.verdict is Verdict.EFFECTIVE and change.record is not None:
                self._task_changed(event, change, change.record)
            elif isinstance(event, SlotAssigned) and change.verdict is Verdict.VOID:
                self._slot_freed(event.worker, event.slot)  # it was never taken
        if isinstance(event, PoolConfigured) and event.placement is not None:
            self.policies[event.pool] = event.placement
        elif isinstance(event, PlacingFailed):
            self.told_aside[event.pool, event.what] = None
        elif isinstance(event, PlacingResumed):
            self.told_aside.pop((event.pool, event.what), None)

    def policy(self, pool: str) -> str:
        """The placement policy of a pool."""
        return self.policies.get(pool, FIRST_FIT)

    def _worker_changed(self, event: AnyEvent | UnknownEvent, name: str, position: Position) -> None:
        if isinstance(event, WorkerJoined):
            self.joined[name] = position
        worker = self.fleet.workers.get(name)
        if len(self.joined) > len(self.fleet.workers):
            self._forget_who_is_gone()
        if worker is None:
            return
        self.idle.add_worker(worker, self.joined[name])
        self.touched[worker.pool] = None

    def _forget_who_is_gone(self) -> None:
        """The fleet forgets workers by itself, and with one of them others too: those that were drained first."""
        self.joined = {name: at for name, at in self.joined.items() if name in self.fleet.workers}

    def _task_changed(self, event: AnyEvent | UnknownEvent, change: Change, record: TaskRecord) -> None:
        if change.before in ON_WORKER and record.phase in ON_WORKER:
            return  # delivered or started: nothing waits for a slot or gives one back
        if isinstance(event, NotDelivered) and event.reason == NO_RESPONDERS and record.worker is not None:
            self.not_reached[record.worker] = record.incarnation
        if change.before is Phase.SCHEDULED:
            self.waiting.get(record.pool, {}).pop(record.id, None)
            self.applies.pop(record.id, None)
        if record.phase is Phase.SCHEDULED:
            if record.confirmed:
                self.applies[record.id] = None
            else:
                self.waiting.setdefault(record.pool, {})[record.id] = None
                self.touched[record.pool] = None
        if change.released is not None:
            self._slot_freed(*change.released)

    def look_aside(self, now: Instant) -> None:
        """Look again at what has stood aside for long enough."""
        for pool, _ in self.aside.take_back(now):
            self.touched[pool] = None
        self.applies_aside.take_back(now)

    def offer_again(self, pool: str) -> None:
        """Make the cache of idle slots of a pool anew."""
        self.idle.forget(pool)
        for worker in self.fleet.workers.values():
            if worker.pool == pool:
                self.idle.add_worker(worker, self.joined[worker.name])

    def _slot_freed(self, name: str, slot: int) -> None:
        worker = self.fleet.workers.get(name)
        if worker is None:  # it was lost before, and this was the last slot that it held
            self._forget_who_is_gone()
            return
        self.idle.add(worker, slot, self.joined[name])
        self.touched[worker.pool] = None

    def stand_by(self) -> None:
        """Remember nothing to decide."""
        self.idle = IdleSlots(is_open=False)
        self.not_reached = {}
        self.aside = Aside()
        self.applies_aside = Aside()

    def open_idle_slots(self) -> None:
        """Look at everything once, as a new leader does."""
        self.idle = IdleSlots(is_open=True)
        for worker in self.fleet.workers.values():
            self.idle.add_worker(worker, self.joined[worker.name])
        self.touched = dict.fromkeys(self.waiting)
        self.not_reached = {}  # what was folded long ago says nothing of who listens now

    def saved(self) -> Saved:
        """The state for a snapshot."""
        return Saved(
            tasks=list(self.tasks.live.values()),
            workers=list(self.fleet.workers.values()),
            joined=self.joined,
            waiting={pool: list(tasks) for pool, tasks in self.waiting.items()},
            policies=self.policies,
            told_aside=list(self.told_aside),
        )

    @classmethod
    def restored(cls, saved: Saved) -> "AllocatorState":
        """The state of a snapshot."""
        state = cls()
        state.tasks = TaskTable(saved.tasks)
        state.fleet = Fleet(saved.workers)
        state.joined = dict(saved.joined)
        state.waiting = {pool: dict.fromkeys(tasks) for pool, tasks in saved.waiting.items()}
        applies = (r for r in saved.tasks if r.phase is Phase.SCHEDULED and r.confirmed)
        state.applies = dict.fromkeys(record.id for record in applies)
        state.policies = dict(saved.policies)
        state.told_aside = dict.fromkeys(saved.told_aside)
        return state
