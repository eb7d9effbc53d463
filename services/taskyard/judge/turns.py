"""What begins when it may: against no pause, lock, limit or drain, and in the order of priority and submission."""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile

from taskyard.contracts.events import (
    SLOT_ALLOCATOR,
    AnyEvent,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    QueueUnlocked,
    SlotAssigned,
    TaskReprioritised,
    TaskScheduled,
    TaskSubmitted,
    UnknownEvent,
    WorkerDrainRequested,
    WorkerJoined,
    WorkerLost,
)
from taskyard.contracts.values import Incarnation
from taskyard.judge.commits import Commit
from taskyard.judge.faults import Faults, Rule
from taskyard.judge.life import NEVER, OVER, Life, Stage
from taskyard.judge.lives import Step


@dataclass(slots=True)
class _Queue:
    is_paused: bool = False
    limit: int = 0
    admitted: set[str] = field(default_factory=set[str])


class _Lane:
    """Tasks that were never tried, by priority and submission, and since which commit each has its place."""

    def __init__(self) -> None:
        self._order: list[tuple[int, int, str]] = []
        self._places: dict[str, tuple[tuple[int, int, str], int]] = {}

    def put(self, life: Life, since: int) -> None:
        """A task takes its place, or another one than it had."""
        self.drop(life.id)
        place = (life.priority, life.submitted, life.id)
        insort(self._order, place)
        self._places[life.id] = (place, since)

    def drop(self, id: str) -> None:
        """A task does not wait here any more."""
        known = self._places.pop(id, None)
        if known is not None:
            del self._order[bisect_left(self._order, known[0])]

    def before(self, id: str, sequence: int) -> Iterator[str]:
        """Who stood before a task already in the commit before `sequence`; nobody if it has no place."""
        own, since = self._places.get(id, (None, sequence))
        for place in takewhile(lambda place: place != own, self._order) if own is not None else ():
            if max(self._places[place[2]][1], since) < sequence:
                yield place[2]


class Turns:
    """Settings of pools and queues, who was drained, and who waits in which place.

    A decision cannot know what is appended meanwhile. But the settings are its own writer's, and whoever assigns slots has
    folded at least all that stood before its own last commit.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._sequence = 0
        self._assigner = self._assigner_before = 0
        self._queues: dict[tuple[str, str], _Queue] = {}
        self._locks: defaultdict[str, set[str]] = defaultdict(set)
        self._paused_pools: set[str] = set()
        self._incarnations: dict[str, Incarnation] = {}
        self._drained: dict[str, int] = {}
        self._lost: set[str] = set()
        self._fresh: dict[tuple[str, str, str], _Lane] = {}

    def see_commit(self, commit: Commit, sequence: int) -> None:
        """The next commit begins."""
        self._sequence = sequence
        if commit.writer == SLOT_ALLOCATOR:
            self._assigner_before, self._assigner = self._assigner, sequence

    def see(self, event: AnyEvent | UnknownEvent) -> None:
        """The next event: it may be a setting, or of a worker."""
        match event:
            case QueuePaused() | QueueResumed():
                is_paused = isinstance(event, QueuePaused)
                if event.queue is not None:
                    self._queue(event.pool, event.queue).is_paused = is_paused
                elif is_paused:
                    self._paused_pools.add(event.pool)
                else:
                    self._paused_pools.discard(event.pool)
            case QueueLocked():
                self._locks[event.queue].add(event.pool)
            case QueueUnlocked():
                locks = self._locks[event.queue]
                self._locks[event.queue] = locks - {event.pool} if event.pool in locks else set()
            case QueueConfigured() if event.max_running is not None:
                self._queue(event.pool, event.queue).limit = event.max_running
            case WorkerDrainRequested():
                if event.worker not in self._lost:
                    self._drained.setdefault(event.worker, self._sequence)
            case WorkerLost() if event.incarnation == self._incarnations.get(event.worker):
                self._lost.add(event.worker)
            case WorkerJoined():
                self._lost.discard(event.worker)
                if event.incarnation != self._incarnations.get(event.worker):
                    self._drained.pop(event.worker, None)
                self._incarnations[event.worker] = event.incarnation
            case _:
                pass

    def check(self, event: AnyEvent | UnknownEvent, step: Step, where: str) -> None:
        """An event took effect on a task."""
        life = step.life
        # An apply that gets its slot without having been scheduled has its turn by that: so it was in the first logs.
        if isinstance(event, TaskScheduled) or (isinstance(event, SlotAssigned) and step.before is Stage.PLANNED):
            self._scheduled(life, where)
        elif isinstance(event, SlotAssigned) and not life.is_confirmed:
            is_known = self._drained.get(event.worker, self._sequence) < self._assigner_before
            text = f"{where}: {event.worker} is drained and gets {life.id}"
            self._faults.require(not is_known, Rule.TURN, text, task=life.id)
        self._queue_up(event, life)
        admitted = self._queue(life.policy.pool, life.policy.queue).admitted
        if life.stage is Stage.PENDING or life.stage in OVER:
            admitted.discard(life.id)
        else:
            admitted.add(life.id)

    def _scheduled(self, life: Life, where: str) -> None:
        pool, name = life.policy.pool, life.policy.queue
        queue, faults = self._queue(pool, name), self._faults
        locks = self._locks.get(name, set[str]())
        # What has the workspace for itself minds the lock of every pool.
        is_locked = bool(locks) if life.policy.locks_queue else pool in locks
        is_closed = pool in self._paused_pools or queue.is_paused or is_locked
        faults.require(not is_closed, Rule.TURN, f"{where}: {pool}/{name} is paused or locked", task=life.id)
        if life.is_confirmed:  # it has its place in the queue, and has had its turn
            return
        is_full = 0 < queue.limit <= len(queue.admitted) - (life.id in queue.admitted)
        text = f"{where}: {pool}/{name} has {len(queue.admitted)} tasks, its limit is {queue.limit}"
        faults.require(not is_full, Rule.TURN, text, task=life.id)
        lane = self._fresh.get((pool, name, life.kind))
        for id in lane.before(life.id, self._sequence) if lane is not None else ():
            faults.add(Rule.TURN, f"{where}: {id} stands before {life.id} in {pool}/{name}", task=life.id)

    def _queue_up(self, event: AnyEvent | UnknownEvent, life: Life) -> None:
        """A task that was never tried and has no delay has a place; only its scheduler's own events change it."""
        lane = self._fresh.setdefault((life.policy.pool, life.policy.queue, life.kind), _Lane())
        is_fresh = life.stage is Stage.PENDING and life.attempt == 0 and life.due == NEVER
        if not is_fresh:
            lane.drop(life.id)
        elif isinstance(event, TaskSubmitted | TaskReprioritised):
            lane.put(life, self._sequence)

    def _queue(self, pool: str, name: str) -> _Queue:
        return self._queues.setdefault((pool, name), _Queue())
