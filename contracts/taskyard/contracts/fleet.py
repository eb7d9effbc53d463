"""Workers and their slots, folded from the log: who is there, what each slot accepts, and which task has it.

A slot is busy exactly while a task's record `holds_slot`; no event releases one by itself, so none can be forgotten.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from taskyard.contracts.events import (
    AnyEvent,
    UnknownEvent,
    WorkerDrainRequested,
    WorkerJoined,
    WorkerLost,
    WorkerRecovered,
    WorkerSuspected,
)
from taskyard.contracts.tasks import Change
from taskyard.contracts.values import TaskId

ANY_KIND = "any"
DRAINED_GONE_MAX = 1_000
"""Drained workers that were lost and are remembered in case they come back as they were; beyond it the first are forgotten."""

_OF_WORKERS = frozenset((WorkerJoined, WorkerSuspected, WorkerRecovered, WorkerLost, WorkerDrainRequested))

Accepts = tuple[str, ...]
"""The kinds that a slot takes, sorted: what its template allows and its worker can run."""


class Worker(Struct, kw_only=True):
    """One incarnation of a worker. `busy` maps slot numbers to the tasks that hold them; `accepts[i]` is what slot i takes."""

    name: str
    incarnation: int
    pool: str
    slots: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...]
    labels: dict[str, str] = {}
    is_suspect: bool = False
    is_draining: bool = False
    is_lost: bool = False
    busy: dict[int, TaskId] = {}
    accepts: tuple[Accepts, ...] = ()

    def __post_init__(self) -> None:
        """Work out what each slot takes: asked for with every slot that is given or freed."""
        self.accepts = tuple(
            tuple(sorted(kind for kind in self.kinds if ANY_KIND in template or kind in template))
            for template in self.slots
        )

    @property
    def takes_tasks(self) -> bool:
        """Whether new slots of it may be given."""
        return not (self.is_suspect or self.is_draining or self.is_lost)


def join_counts(event: WorkerJoined, *, incarnation: int, is_lost: bool) -> bool:
    """Whether a worker that is known by this incarnation joins anew: as a later one, or lost and back as it was.

    It comes back as it was where only the network had been away. Every fold of workers asks here.
    """
    return event.incarnation > incarnation or (event.incarnation == incarnation and is_lost)


def concerns(
    event: WorkerSuspected | WorkerRecovered | WorkerLost | WorkerDrainRequested, *, incarnation: int, is_lost: bool
) -> bool:
    """Whether an event changes a worker that is known by this incarnation. Every fold of workers asks here.

    A drain that stands behind the loss of its worker has no effect: whoever folds may have forgotten the worker by then.
    """
    if isinstance(event, WorkerDrainRequested):
        return not is_lost
    return event.incarnation == incarnation


class Fleet:
    """All workers that live or still hold slots, and those that were drained before they were lost.

    `idle[pool][accepts]` counts idle slots, and `size[pool][accepts]` all slots, of workers that take tasks.
    """

    def __init__(self, workers: Iterable[Worker] = ()) -> None:
        self.workers: dict[str, Worker] = {}
        self.idle: dict[str, dict[Accepts, int]] = {}
        self.size: dict[str, dict[Accepts, int]] = {}
        for worker in workers:
            self.workers[worker.name] = worker
            self._count(worker, 1)

    def apply(self, event: AnyEvent | UnknownEvent, changes: Sequence[Change]) -> str | None:
        """Fold one event and what it did to tasks; the name of the worker that it concerned itself, if any."""
        if type(event) not in _OF_WORKERS:  # most events: told apart at once
            self._slots_changed(changes)
            return None
        match event:
            case WorkerJoined():
                self._joined(event)
                self._slots_changed(changes)
            case WorkerSuspected() | WorkerRecovered() | WorkerLost() | WorkerDrainRequested():
                self._slots_changed(changes)
                self._changed(event)
            case _:
                return None
        return event.worker

    def _slots_changed(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.held is None:
                if change.holds is not None and change.record is not None:
                    self._set(*change.holds, change.record.id)
            elif change.holds is None:
                self._set(*change.held, None)

    def size_for(self, pool: str, kind: str) -> int:
        """How many slots of the pool, idle or not, take the kind."""
        return sum(count for accepts, count in self.size.get(pool, {}).items() if kind in accepts)

    def _joined(self, event: WorkerJoined) -> None:
        earlier = self.workers.get(event.worker)
        is_draining = False
        if earlier is not None:
            if not join_counts(event, incarnation=earlier.incarnation, is_lost=earlier.is_lost):
                return
            is_draining = earlier.is_draining and event.incarnation == earlier.incarnation
            self._count(earlier, -1)
        worker = Worker(
            name=event.worker,
            incarnation=event.incarnation,
            pool=event.pool,
            slots=event.slots,
            kinds=event.kinds,
            labels=event.labels,
            is_draining=is_draining,
            busy=dict(earlier.busy) if earlier is not None else {},
        )
        self.workers[event.worker] = worker
        self._count(worker, 1)

    def _changed(self, event: WorkerSuspected | WorkerRecovered | WorkerLost | WorkerDrainRequested) -> None:
        worker = self.workers.get(event.worker)
        if worker is None or not concerns(event, incarnation=worker.incarnation, is_lost=worker.is_lost):
            return
        self._count(worker, -1)
        match event:
            case WorkerSuspected():
                worker.is_suspect = True
            case WorkerRecovered():
                worker.is_suspect = False
            case WorkerLost():
                worker.is_lost = True
            case WorkerDrainRequested():
                worker.is_draining = True
        self._count(worker, 1)
        self._forget_if_gone(worker)

    def _forget_if_gone(self, worker: Worker) -> None:
        if not worker.is_lost or worker.busy:
            return
        if not worker.is_draining:
            del self.workers[worker.name]
            return
        gone = [one.name for one in self.workers.values() if one.is_lost and one.is_draining and not one.busy]
        for name in gone[:-DRAINED_GONE_MAX]:
            del self.workers[name]

    def _set(self, name: str, slot: int, task: TaskId | None) -> None:
        worker = self.workers.get(name)
        if worker is None:
            return
        was_idle = slot not in worker.busy
        if task is None:
            worker.busy.pop(slot, None)
        else:
            worker.busy[slot] = task
        if worker.takes_tasks and was_idle != (task is None) and slot < len(worker.slots):
            idle = self.idle[worker.pool]
            idle[worker.accepts[slot]] += -1 if was_idle else 1
        self._forget_if_gone(worker)

    def _count(self, worker: Worker, sign: int) -> None:
        if not worker.takes_tasks:
            return
        idle, size = self.idle.setdefault(worker.pool, {}), self.size.setdefault(worker.pool, {})
        for slot in range(len(worker.slots)):
            accepts = worker.accepts[slot]
            size[accepts] = size.get(accepts, 0) + sign
            idle[accepts] = idle.get(accepts, 0) + (sign if slot not in worker.busy else 0)
