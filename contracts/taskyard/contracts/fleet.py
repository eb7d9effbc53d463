"""Workers and their slots, folded from the log: who is there, what each slot accepts, and which task has it.

`joined` and `WorkerState.change` are the one fold of workers: machines, read model and the past all ask them.

A slot is busy exactly while a task's record `holds_slot`; no event releases one by itself, so none can be forgotten.
"""

from collections.abc import Iterable, Sequence
from typing import get_args

from msgspec import Struct, structs

from taskyard.contracts.events import (
    AnyEvent,
    ForceStopped,
    SlotCleared,
    UnknownEvent,
    WorkerDrainRequested,
    WorkerJoined,
    WorkerLost,
    WorkerRecovered,
    WorkerSuspected,
)
from taskyard.contracts.incarnations import REPLACED_KEPT_MAX, continues
from taskyard.contracts.lifecycle import ATTEMPT_OPEN
from taskyard.contracts.tasks import Change
from taskyard.contracts.values import Incarnation, TaskId

ANY_KIND = "any"
GONE_KEPT_MAX = 1_000
"""Workers that were lost while they were drained, or while a slot was closing, and are remembered in case they come back as
they were; beyond it the first are forgotten."""

WorkerChange = WorkerSuspected | WorkerRecovered | WorkerLost | WorkerDrainRequested
OfWorker = WorkerJoined | WorkerChange | SlotCleared
"""Events of one worker."""
_OF_WORKERS = frozenset((WorkerJoined, SlotCleared, ForceStopped, *get_args(WorkerChange)))

Accepts = tuple[str, ...]
"""The kinds that a slot takes, sorted: what its template allows and its worker can run."""


class WorkerState(Struct, kw_only=True):
    """A worker as its current incarnation is: the one that joined last.

    `slots[i]` lists what slot i takes, `kinds` what it runs; `place` is the folder and boot that its processes belong to;
    `replaced` are incarnations of that name that others followed, as far as they are remembered. `closing` are slots of
    tasks that were ended by force: they are taken until the worker tells that nothing lives there. `reason` says why it is
    suspect, drained or lost, whichever was told last and holds still; `drain_reason` why it is drained.
    """

    name: str
    incarnation: Incarnation
    pool: str
    slots: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...]
    labels: dict[str, str] = {}
    place: str = ""
    replaced: tuple[Incarnation, ...] = ()
    closing: dict[int, TaskId] = {}
    reason: str = ""
    drain_reason: str = ""
    is_suspect: bool = False
    is_draining: bool = False
    is_lost: bool = False

    @property
    def takes_tasks(self) -> bool:
        """Whether new slots of it may be given."""
        return not (self.is_suspect or self.is_draining or self.is_lost)

    def close(self, event: AnyEvent | UnknownEvent, change: Change) -> bool:
        """Take in that a task was ended by force while this incarnation had it, if that is so: its slot is not free by that."""
        record, slot = change.record, change.held
        is_forced = isinstance(event, ForceStopped) and change.before in ATTEMPT_OPEN
        # What another host had before this one took its name is not in a slot of this one.
        if not is_forced or record is None or slot is None or record.incarnation != self.incarnation:
            return False
        self.closing[slot[1]] = record.id
        return True

    def clear(self, event: SlotCleared) -> bool:
        """Take in that nothing lives in a slot any more; whether it was closing."""
        if self.closing.get(event.slot) != event.task:
            return False
        del self.closing[event.slot]
        return True

    def change(self, event: WorkerChange) -> bool:
        """Take in what is told of it; whether that means this incarnation.

        A drain behind the loss of its worker has no effect: whoever folds may have forgotten the worker by then.
        """
        is_meant = (
            not self.is_lost if isinstance(event, WorkerDrainRequested) else event.incarnation == self.incarnation
        )
        if not is_meant:
            return False
        self.reason = self.drain_reason if isinstance(event, WorkerRecovered) else event.reason
        match event:
            case WorkerSuspected():
                self.is_suspect = True
            case WorkerRecovered():
                self.is_suspect = False
            case WorkerLost():
                self.is_lost = True
            case WorkerDrainRequested():
                self.is_draining, self.drain_reason = True, event.reason
        return True


def joined(event: WorkerJoined, known: WorkerState | None) -> WorkerState | None:
    """The worker as it joins; None: it is there already.

    Whoever joined last in the log is the one, so that all agree who fold it, whatever they remember of those before. One
    comes back as it was where only the network had been away, and is still to be drained then.
    """
    is_same = known is not None and event.incarnation == known.incarnation
    if known is not None and is_same and not known.is_lost:
        return None
    before = () if known is None else (*known.replaced, known.incarnation)
    # A dict as an ordered set. What is told of runs that never joined counts too: their last words may come late.
    replaced = dict.fromkeys((*before, *reversed(event.follows)))
    replaced.pop(event.incarnation, None)
    drained = known if known is not None and is_same and known.is_draining else None
    drain_reason = "" if drained is None else drained.drain_reason
    return WorkerState(
        name=event.worker,
        incarnation=event.incarnation,
        pool=event.pool,
        slots=event.slots,
        kinds=event.kinds,
        labels=event.labels,
        place=event.place,
        replaced=tuple(replaced)[-REPLACED_KEPT_MAX:],
        # Another host knows nothing of them, and has nothing there.
        closing=dict(known.closing) if known is not None and continues(event, known.incarnation) else {},
        reason=drain_reason,
        drain_reason=drain_reason,
        is_draining=drained is not None,
    )


class Worker(WorkerState, kw_only=True):
    """A worker and who has its slots. `busy` maps slot numbers to tasks; `accepts[i]` is what slot i takes."""

    busy: dict[int, TaskId] = {}
    accepts: tuple[Accepts, ...] = ()

    def __post_init__(self) -> None:
        """Work out what each slot takes: asked for with every slot that is given or freed."""
        self.accepts = tuple(
            tuple(sorted(kind for kind in self.kinds if ANY_KIND in template or kind in template))
            for template in self.slots
        )


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
            case SlotCleared():
                self._cleared(event)
            case ForceStopped():
                self._ended_by_force(event, changes)
                return None
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
        state = joined(event, earlier)
        if state is None:
            return
        if earlier is not None:
            self._count(earlier, -1)
        # What was closing and is no more is free.
        busy = (
            {}
            if earlier is None
            else {slot: task for slot, task in earlier.busy.items() if slot not in earlier.closing}
        )
        worker = Worker(**structs.asdict(state), busy=busy | state.closing)
        self.workers[event.worker] = worker
        self._count(worker, 1)

    def _changed(self, event: WorkerChange) -> None:
        worker = self.workers.get(event.worker)
        if worker is None:
            return
        self._count(worker, -1)
        worker.change(event)
        self._count(worker, 1)
        self._forget_if_gone(worker)

    def _ended_by_force(self, event: ForceStopped, changes: Sequence[Change]) -> None:
        for change in changes:
            worker = self.workers.get(change.held[0]) if change.held is not None else None
            if worker is None or not worker.close(event, change):
                self._slots_changed((change,))

    def _cleared(self, event: SlotCleared) -> None:
        worker = self.workers.get(event.worker)
        if worker is not None and worker.clear(event):
            self._set(event.worker, event.slot, None)

    def _forget_if_gone(self, worker: Worker) -> None:
        if not _is_gone(worker):
            return
        if not worker.is_draining and not worker.closing:
            del self.workers[worker.name]
            return
        gone = [one.name for one in self.workers.values() if _is_gone(one)]
        for name in gone[:-GONE_KEPT_MAX]:
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


def _is_gone(worker: Worker) -> bool:
    """Whether it was lost, and no task has anything there."""
    return worker.is_lost and worker.busy.keys() <= worker.closing.keys()
