"""The life of every task, told once more from the events alone: where each event is legal, and whom it means.

Written apart from the fold of the contracts, which it must agree with and never calls.
"""

from collections.abc import Iterator
from typing import NamedTuple

from taskyard.contracts.events import (
    AnyEvent,
    ApplyConfirmed,
    ApplyDiscarded,
    ApprovalExpired,
    AttemptFailed,
    AttemptLost,
    AttemptReleased,
    AttemptSucceeded,
    ForceStopped,
    NotDelivered,
    SlotAssigned,
    TaskDispatched,
    TaskPlanned,
    TaskProgressed,
    TaskReprioritised,
    TaskScheduled,
    TaskStarted,
    TaskStopRequested,
    TaskSubmitted,
    UnknownEvent,
    WorkerJoined,
    WorkerLost,
)
from taskyard.contracts.values import Instant, Position
from taskyard.judge.life import NEVER, OPEN, OVER, Life, Slot, Stage
from taskyard.judge.transitions import happen, join, lose

_ALIVE = frozenset(Stage) - OVER

_LEGAL: dict[type, frozenset[Stage]] = {
    TaskScheduled: frozenset((Stage.PENDING, Stage.PLANNED)),
    SlotAssigned: frozenset((Stage.SCHEDULED, Stage.PLANNED)),
    TaskDispatched: frozenset((Stage.ASSIGNED,)),
    TaskStarted: frozenset((Stage.ASSIGNED, Stage.DISPATCHED)),
    TaskProgressed: OPEN,
    TaskPlanned: OPEN,
    ApplyConfirmed: frozenset((Stage.PLANNED,)),
    ApplyDiscarded: frozenset((Stage.PLANNED,)),
    ApprovalExpired: frozenset((Stage.PLANNED,)),
    TaskStopRequested: _ALIVE - {Stage.STOPPING},
    AttemptSucceeded: OPEN,
    AttemptFailed: OPEN,
    AttemptLost: OPEN,
    NotDelivered: frozenset((Stage.ASSIGNED, Stage.DISPATCHED, Stage.HELD, Stage.STOPPING)),
    ForceStopped: _ALIVE,
    AttemptReleased: frozenset((Stage.HELD,)),
    TaskReprioritised: frozenset((Stage.PENDING,)),
}
_OF_ATTEMPT = (
    AttemptReleased,
    TaskDispatched,
    TaskStarted,
    TaskProgressed,
    TaskPlanned,
    AttemptSucceeded,
    AttemptFailed,
    AttemptLost,
    NotDelivered,
)
_OF_PLAN = (ApplyConfirmed, ApplyDiscarded, ApprovalExpired)


class Step(NamedTuple):
    """What one event did to one task: `before` and `held` are its stage and slot before; `counts` whether it did anything."""

    life: Life
    before: Stage
    held: Slot | None
    counts: bool


class Lives:
    """All tasks of a log, those that have ended too."""

    def __init__(self) -> None:
        self.by_id: dict[str, Life] = {}
        self._on_worker: dict[str, dict[str, Life]] = {}

    def tell(self, event: AnyEvent | UnknownEvent, at: Instant, position: Position) -> Iterator[Step]:
        """The next event: what it does to the tasks that it means. Nothing for a task that nobody knows."""
        if isinstance(event, TaskSubmitted):
            if event.task not in self.by_id:
                life = Life(policy=event, submitted=position, submitted_at=at, priority=event.priority)
                life.due = event.not_before or NEVER
                self.by_id[event.task] = life
                yield Step(life, Stage.PENDING, None, counts=True)
        elif type(event) in _LEGAL:
            life = self.by_id.get(event.task)  # type: ignore[union-attr] (what is in `_LEGAL` is of one task)
            if life is not None:
                before, held = life.stage, life.held
                counts = self._is_legal(life, event) and happen(life, event, at)
                yield self._step(life, before, held, counts=counts)
        elif isinstance(event, WorkerLost | WorkerJoined):
            for life in list(self._on_worker.get(event.worker, {}).values()):
                before, held = life.stage, life.held
                counts = lose(life, event, at) if isinstance(event, WorkerLost) else join(life, event, at)
                yield self._step(life, before, held, counts=counts)

    def _step(self, life: Life, before: Stage, held: Slot | None, *, counts: bool) -> Step:
        if held is not None:
            self._on_worker[held[0]].pop(life.id, None)
        if life.held is not None:
            self._on_worker.setdefault(life.held[0], {})[life.id] = life
        return Step(life, before, held, counts)

    @staticmethod
    def _is_legal(life: Life, event: object) -> bool:
        if life.stage not in _LEGAL[type(event)]:
            return False
        if isinstance(event, _OF_ATTEMPT):
            return event.attempt == life.attempt
        if isinstance(event, _OF_PLAN):
            return event.attempt == life.plan
        return True
