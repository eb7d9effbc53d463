"""Given, when, then for one pure machine: events that the log has, inputs and time that pass, events that follow.

`when` does what the loop does: decide, store, fold, until the machine is quiet. Some things are held that hold for all
machines: deciding changes nothing of what is folded, deciding once more chooses nothing, and a new leader, made from a
snapshot, neither.
"""

from collections.abc import Sequence
from typing import Any, Self

import msgspec
from msgspec import Raw

from taskyard.contracts.events import (
    AnyEvent,
    SlotAssigned,
    TaskSubmitted,
    UnknownEvent,
    WorkerJoined,
    WorkerLost,
    decode_event,
)
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.lifecycle import TaskRecord
from taskyard.contracts.values import SECOND, Instant, Position, TaskId, make_position, make_uuid7, seconds
from taskyard.dispatcher.machine import Dispatcher
from taskyard.machine.machine import Decision, Machine
from taskyard.scheduler.machine import Scheduler
from taskyard.slot_allocator.liveness import Listened
from taskyard.slot_allocator.machine import SlotAllocator

START = Instant(1_790_000_000 * SECOND)
DECISIONS_MAX = 100
SUSPECT_SECONDS, LOST_SECONDS = 10.0, 30.0
PLANS_AND_ANY: tuple[tuple[str, ...], ...] = (("any",), ("plan",), ("plan",))
"""The default template of a worker's slots."""


def task_id(number: int, at: Instant = START) -> TaskId:
    """The id of task `number`; all are of one instant, so that only the number tells them apart."""
    return TaskId(make_uuid7(at, number))


A, B, C, D = (task_id(number) for number in range(1, 5))


def submitted(task: TaskId = A, kind: str = "noop", **fields: Any) -> TaskSubmitted:
    """A submission that states only what matters; the rest is the kind's."""
    policy = KINDS[kind]
    values: dict[str, Any] = {
        "pool": "default",
        "queue": "network" if policy.queue_required else "default",
        "by": "alice",
        "input": Raw(b'{"directory":"/tf"}' if policy.queue_required else b"{}"),
        "digest": "0" * 16,
        "timeout_seconds": policy.timeout_seconds,
        "max_attempts": policy.max_attempts,
        "retry_delays_seconds": policy.retry_delays_seconds,
        "lock": policy.lock,
        "approval": policy.approval,
        "on_lost": policy.on_lost,
    }
    return TaskSubmitted(task=task, kind=kind, **(values | fields))


def run(number: int) -> str:
    """The incarnation of a worker's first, second, … run."""
    return f"r{number}"


def joined(worker: str = "w1", incarnation: int = 1, **fields: Any) -> WorkerJoined:
    """A worker with the default template that can run every kind."""
    values: dict[str, Any] = {"pool": "default", "slots": PLANS_AND_ANY, "kinds": tuple(sorted(KINDS))}
    before = run(incarnation - 1) if incarnation > 1 else None
    return WorkerJoined(worker=worker, incarnation=run(incarnation), **({"continues": before} | values | fields))


def lost(worker: str = "w1", incarnation: int = 1) -> WorkerLost:
    """The worker is lost."""
    return WorkerLost(worker=worker, incarnation=run(incarnation))


def assigned(
    task: TaskId = A, attempt: int = 1, slot: int = 0, worker: str = "w1", incarnation: int = 1
) -> SlotAssigned:
    return SlotAssigned(task=task, attempt=attempt, worker=worker, incarnation=run(incarnation), slot=slot)


class Like:
    """Equal to any event of this type that has these fields."""

    def __init__(self, kind: type, /, **fields: Any) -> None:
        self._kind, self._fields = kind, fields

    def __eq__(self, other: object) -> bool:
        return type(other) is self._kind and all(getattr(other, name) == value for name, value in self._fields.items())

    __hash__ = None  # type: ignore[assignment] - as Python has it for what is equal to more than itself

    def __repr__(self) -> str:
        return f"{self._kind.__name__}({', '.join(f'{name}={value!r}' for name, value in self._fields.items())}, …)"


class Story:
    """One machine and the log that it folds. Each given event is a commit of its own; time passes only when told."""

    def __init__(self, machine: Any, *, leads: bool = True) -> None:
        self.machine: Machine[Any, Any] = machine
        self.now = START
        self.sequence = 0
        self.log: list[tuple[AnyEvent | UnknownEvent, Instant, Position]] = []
        self.chosen: list[Any] = []
        self.is_read = True
        machine.stand_by()
        if leads:
            machine.lead(START)

    # -- telling -------------------------------------------------------------------------------------------------------

    def given(self, *events: Any) -> Self:
        """The log has these events, whoever wrote them, and the machine has folded them."""
        for event in events:
            self._store([event])
        return self

    def after(self, duration_seconds: float) -> Self:
        """Time passes, and whoever measures silence has listened all the while."""
        end = self.now + seconds(duration_seconds)
        liveness = getattr(self.machine, "_liveness", None)
        while liveness is not None and self.now <= end:
            liveness.listened(Listened(at=self.now / SECOND))
            self.now = Instant(self.now + SECOND // 2)
        self.now = Instant(end)
        return self

    def when(self, *inputs: Any) -> Self:
        """The machine decides on these inputs and on whatever else there is, until it is quiet."""
        self.chosen = []
        waiting = list(inputs)
        for _ in range(DECISIONS_MAX):
            decision = self.decide(*waiting)
            waiting = waiting[decision.taken :]
            self._store(decision.events)
            self.chosen += decision.events
            if not decision.events and not decision.taken:
                if self.is_read and self.machine.deadlines.waits:
                    self.machine.deadlines.read(self.now)
                    continue
                break
        else:
            raise AssertionError("the machine is never quiet")
        assert not waiting, "an input was never taken"
        assert self.successor().machine.decide(self.now, ()).events == [], "a new leader decides otherwise"
        return self

    def then(self, *events: Any) -> Self:
        """Exactly these events were chosen, in this order."""
        assert self.chosen == list(events), f"chosen: {self.chosen}"
        return self

    def then_nothing(self) -> Self:
        return self.then()

    # -- asking --------------------------------------------------------------------------------------------------------

    def decide(self, *inputs: Any) -> Decision:
        """One decision, without storing it: what is folded stays as it was."""
        folded = self.machine.snapshot()
        decision = self.machine.decide(self.now, inputs)
        assert self.machine.snapshot() == folded, "deciding changes what is folded"
        return decision

    def effects(self) -> Sequence[Any]:
        """What is to be done in the world now."""
        return self.machine.effects(self.now)

    def record(self, task: TaskId = A) -> TaskRecord:
        state: Any = self.machine
        return state.state.tasks.live[task]

    def successor(self) -> "Story":
        """The story as a new leader goes on with it, which begins with a snapshot of now."""
        successor = Story(_again(self.machine), leads=False)
        successor.machine.restore(self.machine.snapshot())
        successor.machine.stand_by()
        successor.now, successor.sequence, successor.log = self.now, self.sequence, list(self.log)
        successor.machine.deadlines.steps = self.machine.deadlines.steps  # as the loop keeps them
        successor.machine.lead(self.now)
        return successor

    def refolded(self) -> "Story":
        """The story as a new leader goes on with it that folded the whole log."""
        successor = Story(_again(self.machine), leads=False)
        for event, at, position in self.log:
            successor.machine.apply(event, at, position)
        successor.now, successor.sequence, successor.log = self.now, self.sequence, list(self.log)
        successor.machine.lead(self.now)
        return successor

    def _store(self, events: Sequence[Any]) -> None:
        if not events:
            return
        self.sequence += 1
        for index, event in enumerate(events):
            # What is folded is what was stored: its JSON, read again.
            read, position = decode_event(Raw(msgspec.json.encode(event))), make_position(self.sequence, index)
            assert read == event
            self.log.append((read, self.now, position))
            self.machine.apply(read, self.now, position)


def _again(machine: Any) -> Any:
    """Another instance of the same machine."""
    match machine:
        case Scheduler():
            return Scheduler(machine._roles)
        case SlotAllocator():
            return SlotAllocator(*machine._limits)
        case Dispatcher():
            return Dispatcher()
        case _:
            raise AssertionError(machine)
