"""What a legal event makes of a task: the effects of the table in `lives`."""

from taskyard.contracts.events import (
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
    WorkerJoined,
    WorkerLost,
)
from taskyard.contracts.kind import OnLost
from taskyard.contracts.values import Incarnation, Instant, seconds
from taskyard.judge.life import NEVER, Life, Stage

WAITS_AFTER_NO_DELIVERY_SECONDS = (5, 10, 20, 40, 60)

_WAITING = frozenset((Stage.PENDING, Stage.SCHEDULED, Stage.PLANNED))


def happen(life: Life, event: object, at: Instant) -> bool:
    """What a legal event of a task makes of it; whether it made anything."""
    match event:
        case TaskScheduled():
            return _schedule(life, event, at)
        case SlotAssigned():
            return _assign(life, event, at)
        case TaskDispatched():
            life.stage = Stage.DISPATCHED if life.started_at is None else Stage.RUNNING
            life.undelivered = life.declined = 0
        case TaskStarted():
            life.stage, life.started_at, life.undelivered, life.declined = Stage.RUNNING, at, 0, 0
        case TaskProgressed():
            life.progress = max(life.progress, min(event.progress, 100))
        case TaskPlanned():
            return _plan(life, event, at)
        case ApplyConfirmed():
            if life.is_confirmed:
                return False
            life.is_confirmed, life.due = True, NEVER
        case ApprovalExpired() if life.is_confirmed:
            return False
        case ApplyDiscarded() | ApprovalExpired() | ForceStopped():
            _end(life, Stage.CANCELLED, at)
        case AttemptReleased():
            _end(life, Stage.FAILED, at)
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
            _not_delivered(life, event, at)
        case TaskReprioritised():
            changes = life.priority != event.priority
            life.priority = event.priority
            return changes
        case _:
            raise AssertionError(event)
    return True


def _schedule(life: Life, event: TaskScheduled, at: Instant) -> bool:
    if life.stage is Stage.PENDING:
        if event.attempt is not None:
            return False
        life.scheduled_at = at
    elif not life.is_confirmed or event.attempt not in (None, life.plan):
        return False
    life.stage = Stage.SCHEDULED
    return True


def _assign(life: Life, event: SlotAssigned, at: Instant) -> bool:
    if event.attempt <= life.attempt or (life.stage is Stage.PLANNED and not life.is_confirmed):
        return False
    life.stage, life.attempt = Stage.ASSIGNED, event.attempt
    life.worker, life.slot, life.incarnation = event.worker, event.slot, event.incarnation
    life.assigned_at, life.started_at, life.progress = at, None, 0
    life.tries += not life.is_confirmed
    if life.policy.on_lost is OnLost.RETRY and life.tries < life.policy.max_attempts and not life.is_confirmed:
        life.repeatable.add(event.attempt)
    return True


def _plan(life: Life, event: TaskPlanned, at: Instant) -> bool:
    if not life.policy.asks_approval or life.is_confirmed:
        return False
    if life.stage is Stage.STOPPING:
        _end(life, life.stops_as, at)
    elif life.stage is Stage.HELD:
        _plan_again(life)
    else:
        life.stage, life.plan, life.planned_at = Stage.PLANNED, event.attempt, at
        life.commands_before = event.commands_before
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


def _not_delivered(life: Life, event: NotDelivered, at: Instant) -> None:
    if life.stage is Stage.STOPPING:
        _end(life, life.stops_as, at)
        return
    if life.stage is Stage.HELD and life.policy.asks_approval:
        _plan_again(life)
        return
    if life.stage is Stage.HELD:
        life.tries -= 1
        _wait(life, NEVER)
        return
    waits = WAITS_AFTER_NO_DELIVERY_SECONDS
    if event.declined:
        life.declined += 1
        times = life.declined
    else:
        life.undelivered += 1
        times = life.undelivered
        if times > len(waits) and not life.is_confirmed:
            _end(life, Stage.FAILED, at)
            return
    due = Instant(at + seconds(waits[min(times, len(waits)) - 1]))
    if life.is_confirmed:
        life.stage, life.due = Stage.PLANNED, due
    else:
        life.tries -= 1
        _wait(life, due)


def lose(life: Life, event: WorkerLost, at: Instant) -> bool:
    """Its worker is lost; whether that means the task."""
    if not (event.incarnation == life.incarnation or _rose(event.incarnation, life.incarnation)):
        return False
    return _lose(life, at)


def _lose(life: Life, at: Instant) -> bool:
    if life.stage is Stage.HELD:
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


def join(life: Life, event: WorkerJoined, at: Instant) -> bool:
    """Its worker is there, perhaps again; whether that means the task."""
    was_held = life.stage is Stage.HELD
    is_same = event.incarnation == life.incarnation
    if (is_same and not was_held) or _rose(life.incarnation, event.incarnation):
        return False
    answers = is_same or event.continues == life.incarnation
    answers = answers or (event.continues is None and _rose(event.incarnation, life.incarnation))
    if not answers:
        return _lose(life, at)
    life.incarnation = event.incarnation
    has_slot = life.slot is not None and life.slot < len(event.slots) and life.kind in event.kinds
    if life.is_reserved and not has_slot:
        _plan_again(life)
    elif was_held:
        life.stage = Stage.ASSIGNED
    return True


def _rose(later: Incarnation, earlier: Incarnation) -> bool:
    """Whether both are numbers, as the first logs have them, and the one is of a later run."""
    return isinstance(later, int) and isinstance(earlier, int) and later > earlier


def _plan_again(life: Life) -> None:
    life.tries, life.is_confirmed, life.plan, life.planned_at = 0, False, None, None
    _wait(life, NEVER)


def _wait(life: Life, due: Instant) -> None:
    life.stage, life.due, life.progress = Stage.PENDING, due, 0


def _end(life: Life, stage: Stage, at: Instant) -> None:
    life.stage, life.ended_at = stage, at
