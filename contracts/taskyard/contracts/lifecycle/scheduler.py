"""What the scheduler's events do to a task, `TaskStopRequested` of the dispatcher included."""

from taskyard.contracts.events import (
    ApplyConfirmed,
    ApplyDiscarded,
    ApprovalExpired,
    AttemptReleased,
    ForceStopped,
    TaskError,
    TaskReprioritised,
    TaskScheduled,
    TaskStopRequested,
)
from taskyard.contracts.lifecycle.endings import end
from taskyard.contracts.lifecycle.phases import Phase, Verdict
from taskyard.contracts.lifecycle.record import NO_INSTANT, TaskRecord
from taskyard.contracts.values import Instant

CAUSE_CANCEL = "cancel"
CAUSE_TIMEOUT = "timeout"
CAUSE_SCHEDULE_TO_START = "schedule_to_start"

RELEASED = "released"
"""The error code of a held task that an admin gave up."""

DISCARDED = "discarded"
"""The error code of a task whose plan was discarded."""

_NO_SLOT_YET = (Phase.PENDING, Phase.SCHEDULED)
_WAITING = (*_NO_SLOT_YET, Phase.APPLY_PENDING)


def scheduled(record: TaskRecord, event: TaskScheduled, at: Instant) -> Verdict:
    """A pending task may run, or the confirmed plan of `attempt` may be applied, on the slot reserved for it."""
    if record.is_apply_waiting and event.attempt in (None, record.plan_attempt):
        record.phase = Phase.SCHEDULED
        return Verdict.EFFECTIVE
    # What was chosen for an apply must not begin the task that plans again meanwhile.
    if record.phase is not Phase.PENDING or event.attempt is not None:
        return Verdict.VOID
    record.phase = Phase.SCHEDULED
    record.scheduled_at = at
    return Verdict.EFFECTIVE


def confirmed(record: TaskRecord, event: ApplyConfirmed) -> Verdict:
    """A plan that waits for an answer is to be applied, as soon as nothing holds it back: that is the scheduler's word."""
    if record.confirmed and event.attempt == record.plan_attempt:
        return Verdict.ALREADY
    if record.phase is not Phase.APPLY_PENDING or event.attempt != record.plan_attempt:
        return Verdict.VOID
    record.confirmed = True
    record.due = NO_INSTANT
    return Verdict.EFFECTIVE


def refused(record: TaskRecord, event: ApplyDiscarded | ApprovalExpired, at: Instant) -> Verdict:
    """A plan is not wanted, also one that was confirmed and is not begun, or nobody answered in time: the task is over."""
    if record.phase is not Phase.APPLY_PENDING or event.attempt != record.plan_attempt:
        return Verdict.VOID
    if record.confirmed and isinstance(event, ApprovalExpired):
        return Verdict.VOID
    if isinstance(event, ApplyDiscarded):
        reason = f": {event.comment}" if event.comment else ""
        error = TaskError(code=DISCARDED, message=f"the plan was discarded by {event.by}{reason}")
    else:
        error = TaskError(code="approval_expired", message="nobody confirmed the plan in time")
    return end(record, Phase.CANCELLED, at, error)


def stop_requested(record: TaskRecord, event: TaskStopRequested, at: Instant) -> Verdict:
    """What waits is over at once; what has an open attempt is stopping until its worker tells the end."""
    if record.phase is Phase.STOPPING:
        return Verdict.ALREADY
    if record.has_ended or (event.attempt is not None and event.attempt != record.attempt):
        return Verdict.VOID
    ends_as = _stopped_phase(record, event.cause)
    if ends_as is None:
        return Verdict.VOID
    if record.phase in _WAITING:
        return end(record, ends_as, at, _stop_error(record, event))
    record.stop, record.stop_error = ends_as, _stop_error(record, event)
    record.phase = Phase.STOPPING
    return Verdict.EFFECTIVE


def _stopped_phase(record: TaskRecord, cause: str) -> Phase | None:
    """As what a stop for this cause ends the task; None if there is no such cause for it."""
    if cause == CAUSE_CANCEL:
        return Phase.CANCELLED
    if cause == CAUSE_TIMEOUT and record.phase not in _WAITING:
        return Phase.TIMEOUT
    # An apply that waits for its slot has started before.
    if cause == CAUSE_SCHEDULE_TO_START and record.phase in _NO_SLOT_YET and not record.confirmed:
        return Phase.TIMEOUT
    return None


def _stop_error(record: TaskRecord, event: TaskStopRequested) -> TaskError:
    if event.cause == CAUSE_TIMEOUT:
        has_begun = record.phase is not Phase.DISPATCHED
        return TaskError(code="timeout", message="execution timeout" if has_begun else "its worker never started it")
    if event.cause == CAUSE_SCHEDULE_TO_START:
        return TaskError(code="schedule_to_start_timeout", message="did not start in time")
    reason = f": {event.reason}" if event.reason else ""
    return TaskError(code="cancelled", message=f"cancelled by {event.by}{reason}")


def force_stopped(record: TaskRecord, event: ForceStopped, at: Instant) -> Verdict:
    """Any live task is over at once, whatever its process does."""
    if record.has_ended:
        return Verdict.VOID
    return end(
        record, Phase.CANCELLED, at, TaskError(code="force_stopped", message=f"stopped by {event.by}: {event.reason}")
    )


def released(record: TaskRecord, event: AttemptReleased, at: Instant) -> Verdict:
    """A held task has failed: nobody will ever tell how its attempt ended."""
    if record.phase is not Phase.HELD or event.attempt != record.attempt:
        return Verdict.VOID
    message = f"given up by {event.by}, since worker {record.worker} is gone for good: {event.reason}"
    return end(record, Phase.FAILED, at, TaskError(code=RELEASED, message=message))


def reprioritised(record: TaskRecord, event: TaskReprioritised) -> Verdict:
    """A pending task gets another priority."""
    if record.phase is not Phase.PENDING:
        return Verdict.VOID
    if record.priority == event.priority:
        return Verdict.ALREADY
    record.priority = event.priority
    return Verdict.EFFECTIVE
