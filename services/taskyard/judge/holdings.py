"""Who has which slot and which workspace, and which worker could give a slot at all."""

from collections.abc import Iterator
from dataclasses import dataclass

from taskyard.contracts.events import (
    AnyEvent,
    ForceStopped,
    SlotAssigned,
    SlotCleared,
    TaskScheduled,
    UnknownEvent,
    WorkerJoined,
    WorkerLost,
)
from taskyard.contracts.incarnations import continues
from taskyard.contracts.values import Incarnation
from taskyard.judge.faults import Faults, Rule
from taskyard.judge.life import Life, Stage
from taskyard.judge.lives import Step

_ANY = "any"
_WITH_WORKER = (Stage.ASSIGNED, Stage.DISPATCHED, Stage.RUNNING, Stage.HELD, Stage.STOPPING)


@dataclass(slots=True)
class _Worker:
    incarnation: Incarnation
    slots: tuple[tuple[str, ...], ...]
    is_lost: bool = False


class Holdings:
    """Slots by worker and number, workspaces by the name of the queue: one in all pools."""

    def __init__(self, faults: Faults) -> None:
        self.slots: dict[tuple[str, int], str] = {}
        self.workspaces: dict[str, str] = {}
        self._faults = faults
        self._workers: dict[str, _Worker] = {}
        self._closing: dict[tuple[str, int], str] = {}

    def see_worker(self, event: AnyEvent | UnknownEvent) -> None:
        """A worker may have come or gone, or told that a slot is empty."""
        if isinstance(event, SlotCleared):
            if self._closing.get((event.worker, event.slot)) == event.task:
                self._free((event.worker, event.slot))
        elif isinstance(event, WorkerJoined):
            before = self._workers.get(event.worker)
            if before is not None and not before.is_lost:
                is_its = continues(event, before.incarnation)
                text = f"{event.incarnation} takes the name of {event.worker}, which is there as {before.incarnation}"
                self._faults.require(is_its, Rule.NAME, text)
            if before is not None and before.incarnation not in (event.incarnation, event.continues):
                for slot in [slot for slot in self._closing if slot[0] == event.worker]:
                    self._free(slot)
            self._workers[event.worker] = _Worker(event.incarnation, event.slots)
        elif isinstance(event, WorkerLost):
            worker = self._workers.get(event.worker)
            if worker is not None and worker.incarnation == event.incarnation:
                worker.is_lost = True

    def see(self, event: AnyEvent | UnknownEvent, step: Step, where: str) -> None:
        """What an event did to a task may have taken or freed something."""
        life = step.life
        worker = self._workers.get(life.worker or "")
        is_its = worker is not None and worker.incarnation == life.incarnation
        if isinstance(event, ForceStopped) and step.before in _WITH_WORKER and step.held is not None and is_its:
            self._closing[step.held] = life.id  # its worker may still have it: nobody else gets the slot
        else:
            self._slot(step, where)
        match event:
            case TaskScheduled() if life.policy.locks_queue:
                holder = self.workspaces.setdefault(life.policy.queue, life.id)
                text = f"{where}: {life.policy.queue} is {holder}'s, not {life.id}'s"
                self._faults.require(holder == life.id, Rule.WORKSPACE, text, task=life.id)
            case SlotAssigned():
                self._fits(event, life, step, where)
            case _:
                pass
        if life.is_over and self.workspaces.get(life.policy.queue) == life.id:
            del self.workspaces[life.policy.queue]

    def _slot(self, step: Step, where: str) -> None:
        life, held = step.life, step.life.held
        if step.held is not None and step.held != held:
            is_own = self.slots.pop(step.held, None) == life.id
            self._faults.require(is_own, Rule.SLOT, f"{where}: {step.held} was not its own", task=life.id)
        if held is not None:
            holder = self.slots.setdefault(held, life.id)
            text = f"{where}: {held} is {holder}'s, not {life.id}'s"
            self._faults.require(holder == life.id, Rule.SLOT, text, task=life.id)

    def held_at_the_end(self) -> Iterator[tuple[tuple[str, int], str]]:
        """What is still held; but not what a worker that is lost has in a slot that is to be emptied: it may never be back."""
        for slot, task in self.slots.items():
            worker = self._workers.get(slot[0])
            if slot not in self._closing or worker is None or not worker.is_lost:
                yield slot, task

    def _free(self, slot: tuple[str, int]) -> None:
        del self._closing[slot]
        self.slots.pop(slot, None)

    def _fits(self, event: SlotAssigned, life: Life, step: Step, where: str) -> None:
        if life.is_confirmed:  # on the slot of its plan, whatever its worker has said of it since
            is_same = step.held == (event.worker, event.slot)
            text = f"{where}: the apply of {life.id} gets {event.worker} slot {event.slot}, its plan has {step.held}"
            self._faults.require(is_same, Rule.SLOT, text, task=life.id)
            return
        worker = self._workers.get(event.worker)
        if worker is None or event.slot >= len(worker.slots):
            self._faults.add(Rule.SLOT, f"{where}: {event.worker} has no slot {event.slot}", task=life.id)
            return
        is_there = worker.incarnation == event.incarnation and not worker.is_lost
        text = f"{where}: incarnation {event.incarnation} of {event.worker} is not there"
        self._faults.require(is_there, Rule.SLOT, text, task=life.id)
        takes, kind = worker.slots[event.slot], life.kind
        text = f"{where}: slot {event.slot} takes {takes}, not {kind}"
        self._faults.require(_ANY in takes or kind in takes, Rule.SLOT, text, task=life.id)
