"""The life of a task, told once more from the events alone: where each event is legal, and what it makes of the task.

Written apart from the fold of the contracts, which it must agree with and never calls.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from taskyard.contracts.events import (
    AnyEvent,
    ApplyConfirmed,
    ApplyDiscarded,
    ApprovalExpired,
    AttemptFailed,
    AttemptLost,
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
from taskyard.contracts.kinds import OnLost
from taskyard.contracts.values import Instant, Position, seconds

NEVER = Instant(0)
WAITS_AFTER_NO_DELIVERY_SECONDS = (5, 10, 20, 40, 60)


class Stage(StrEnum):
    """Where a task stands; the value is the status that people see, but for the two that they do not."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    ASSIGNED = "assigned"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    PLANNED = "apply_pending"
    HELD = "held"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


OVER = frozenset((Stage.COMPLETED, Stage.FAILED, Stage.TIMEOUT, Stage.CANCELLED))
OPEN = frozenset((Stage.ASSIGNED, Stage.DISPATCHED, Stage.RUNNING, Stage.HELD, Stage.STOPPING))
"""An attempt has a slot and no end."""
_ALIVE = frozenset(Stage) - OVER
_WAITING = frozenset((Stage.PENDING, Stage.SCHEDULED, Stage.PLANNED))
_SHOWN = {Stage.HELD: "running", Stage.STOPPING: "cancelling"}

_LEGAL: dict[type, frozenset[Stage]] = {
    TaskScheduled: frozenset((Stage.PENDING,)),
    SlotAssigned: frozenset((Stage.SCHEDULED,)),
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
    TaskReprioritised: frozenset((Stage.PENDING,)),
}
_OF_ATTEMPT = (
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

_Slot = tuple[str, int]


@dataclass(slots=True, kw_only=True)
class Life:
    """One task. `policy` is the event that made it; `plan` the attempt whose plan is shown; `due` when it may go on."""

    policy: TaskSubmitted
    submitted: Position
    submitted_at: Instant
    stage: Stage = Stage.PENDING
    due: Instant = NEVER
    priority: int = 0
    attempt: int = 0
    tries: int = 0
    undelivered: int = 0
    worker: str | None = None
    slot: int | None = None
    incarnation: int = 0
    plan: int | None = None
    is_confirmed: bool = False
    stops_as: Stage = Stage.CANCELLED
    progress: int = 0
    scheduled_at: Instant | None = None
    assigned_at: Instant | None = None
    started_at: Instant | None = None
    planned_at: Instant | None = None
    ended_at: Instant | None = None

    @property
    def id(self) -> str:
        """The id of the task."""
        return self.policy.task

    @property
    def kind(self) -> str:
        """The kind of the task."""
        return self.policy.kind

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.stage in OVER

    @property
    def status(self) -> str:
        """The status as people see it."""
        return _SHOWN.get(self.stage, self.stage.value)

    @property
    def is_reserved(self) -> bool:
        """Whether it keeps a slot while nothing of it runs."""
        return self.stage is Stage.PLANNED or (self.stage is Stage.SCHEDULED and self.is_confirmed)

    @property
    def held(self) -> _Slot | None:
        """The slot that it has."""
        if self.worker is None or self.slot is None or not (self.stage in OPEN or self.is_reserved):
            return None
        return self.worker, self.slot


class Step(NamedTuple):
    """What one event did to one task: `before` and `held` are its stage and slot before; `counts` whether it did anything."""

    life: Life
    before: Stage
    held: _Slot | None
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
                counts = self._is_legal(life, event) and _happen(life, event, at)
                yield self._step(life, before, held, counts=counts)
        elif isinstance(event, WorkerLost | WorkerJoined):
            for life in list(self._on_worker.get(event.worker, {}).values()):
                before, held = life.stage, life.held
                counts = _lose(life, event, at) if isinstance(event, WorkerLost) else _join(life, event)
                yield self._step(life, before, held, counts=counts)

    def _step(self, life: Life, before: Stage, held: _Slot | None, *, counts: bool) -> Step:
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


def _happen(life: Life, event: object, at: Instant) -> bool:
    """What a legal event makes of a task; whether it made anything."""
    match event:
        case TaskScheduled():
            life.stage, life.scheduled_at = Stage.SCHEDULED, at
        case SlotAssigned():
            return _assign(life, event, at)
        case TaskDispatched():
            life.stage = Stage.DISPATCHED if life.started_at is None else Stage.RUNNING
            life.undelivered = 0
        case TaskStarted():
            life.stage, life.started_at, life.undelivered = Stage.RUNNING, at, 0
        case TaskProgressed():
            life.progress = max(life.progress, min(event.progress, 100))
        case TaskPlanned():
            return _plan(life, event, at)
        case ApplyConfirmed():
            life.stage, life.is_confirmed, life.due = Stage.SCHEDULED, True, NEVER
        case ApplyDiscarded() | ApprovalExpired() | ForceStopped():
            _end(life, Stage.CANCELLED, at)
        case TaskStopRequested():
            return _stop(life, event, at)
        case AttemptSucceeded():
            life.progress = 100
            _end(life, Stage.COMPLETED, at)
        case AttemptFailed():
            _fail(life, at, code=event.error.code, is_retryable=event.error.retryable)
        case AttemptLost():
            _fail(life, at, code="worker_lost", is_retryable=True)
        case NotDelivered():
            _not_delivered(life, at)
        case TaskReprioritised():
            changes = life.priority != event.priority
            life.priority = event.priority
            return changes
        case _:
            raise AssertionError(event)
    return True


def _assign(life: Life, event: SlotAssigned, at: Instant) -> bool:
    if event.attempt <= life.attempt:
        return False
    life.stage, life.attempt = Stage.ASSIGNED, event.attempt
    life.worker, life.slot, life.incarnation = event.worker, event.slot, event.incarnation
    life.assigned_at, life.started_at, life.progress = at, None, 0
    life.tries += not life.is_confirmed
    return True


def _plan(life: Life, event: TaskPlanned, at: Instant) -> bool:
    if not life.policy.exclusive or life.is_confirmed:
        return False
    if life.stage is Stage.STOPPING:
        _end(life, life.stops_as, at)
    elif life.stage is Stage.HELD:
        _plan_again(life)
    else:
        life.stage, life.plan, life.planned_at = Stage.PLANNED, event.attempt, at
    return True


def _stop(life: Life, event: TaskStopRequested, at: Instant) -> bool:
    if event.attempt is not None and event.attempt != life.attempt:
        return False
    is_waiting = life.stage in _WAITING
    legal = {
        "cancel": True,
        "timeout": not is_waiting,
        "schedule_to_start": is_waiting and not life.is_reserved,
    }
    if not legal.get(event.cause, False):
        return False
    stops_as = Stage.CANCELLED if event.cause == "cancel" else Stage.TIMEOUT
    if is_waiting:
        _end(life, stops_as, at)
    else:
        life.stage, life.stops_as = Stage.STOPPING, stops_as
    return True


def _fail(life: Life, at: Instant, *, code: str, is_retryable: bool) -> None:
    if life.stage is Stage.STOPPING:
        _end(life, life.stops_as, at)
    elif code == "timeout":
        _end(life, Stage.TIMEOUT, at)
    elif code == "plan_missing" and life.is_confirmed:
        _plan_again(life)
    else:
        delays = life.policy.retry_delays_seconds
        delay = delays[min(life.tries, len(delays)) - 1] if delays else 0.0
        _try_again(life, at, is_retryable=is_retryable, delay_seconds=delay)


def _try_again(life: Life, at: Instant, *, is_retryable: bool, delay_seconds: float) -> None:
    if life.is_confirmed or not is_retryable or life.tries >= life.policy.max_attempts:
        _end(life, Stage.FAILED, at)
    else:
        _wait(life, Instant(at + seconds(delay_seconds)))


def _not_delivered(life: Life, at: Instant) -> None:
    if life.stage is Stage.STOPPING:
        _end(life, life.stops_as, at)
        return
    if life.stage is Stage.HELD:
        _plan_again(life)
        return
    waits = WAITS_AFTER_NO_DELIVERY_SECONDS
    life.undelivered += 1
    if life.undelivered > len(waits) and not life.is_confirmed:
        _end(life, Stage.FAILED, at)
        return
    due = Instant(at + seconds(waits[min(life.undelivered, len(waits)) - 1]))
    if life.is_confirmed:
        life.stage, life.due = Stage.SCHEDULED, due
    else:
        life.tries -= 1
        _wait(life, due)


def _lose(life: Life, event: WorkerLost, at: Instant) -> bool:
    if life.incarnation > event.incarnation or life.stage is Stage.HELD:
        return False
    is_kept = life.policy.on_lost is OnLost.HOLD
    if life.is_reserved:
        _plan_again(life)
    elif life.stage is Stage.STOPPING:
        if is_kept:
            return False
        _end(life, life.stops_as, at)
    elif is_kept:
        life.stage = Stage.HELD
    else:
        _try_again(life, at, is_retryable=life.policy.on_lost is OnLost.RETRY, delay_seconds=0.0)
    return True


def _join(life: Life, event: WorkerJoined) -> bool:
    was_held = life.stage is Stage.HELD
    if event.incarnation < life.incarnation or (event.incarnation == life.incarnation and not was_held):
        return False
    life.incarnation = event.incarnation
    has_slot = life.slot is not None and life.slot < len(event.slots) and life.kind in event.kinds
    if life.is_reserved and not has_slot:
        _plan_again(life)
    elif was_held:
        life.stage = Stage.ASSIGNED
    return True


def _plan_again(life: Life) -> None:
    life.tries, life.is_confirmed, life.plan, life.planned_at = 0, False, None, None
    _wait(life, NEVER)


def _wait(life: Life, due: Instant) -> None:
    life.stage, life.due, life.progress = Stage.PENDING, due, 0


def _end(life: Life, stage: Stage, at: Instant) -> None:
    life.stage, life.ended_at = stage, at
