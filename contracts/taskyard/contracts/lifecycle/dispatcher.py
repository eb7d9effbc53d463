"""What the dispatcher's events do to a task."""

from taskyard.contracts.events import (
    AttemptFailed,
    AttemptLost,
    AttemptSucceeded,
    NotDelivered,
    TaskDispatched,
    TaskError,
    TaskPlanned,
    TaskProgressed,
    TaskStarted,
)
from taskyard.contracts.lifecycle.endings import end, leave_worker, plan_again, stopped, try_again_or_fail
from taskyard.contracts.lifecycle.phases import ATTEMPT_OPEN, NOT_STARTED, Phase, Verdict
from taskyard.contracts.lifecycle.record import NO_INSTANT, TaskRecord
from taskyard.contracts.values import Instant, seconds

DELIVERY_DELAYS_SECONDS = (5.0, 10.0, 20.0, 40.0, 60.0)
"""Waits after a delivery that failed; after as many failures in a row as there are waits, the next one ends the task. What
workers decline that are there waits as long each time, and ends nothing: it may be taken tomorrow."""
DECLINES_REMEMBERED_MAX = 16

PLAN_MISSING = "plan_missing"
"""The error code of an apply that did not begin, since its worker no longer has the plan."""


def dispatched(record: TaskRecord, event: TaskDispatched, at: Instant) -> Verdict:
    """The worker has the attempt."""
    if record.phase is not Phase.ASSIGNED or event.attempt != record.attempt:
        return Verdict.VOID
    # An attempt that was held and is found again had started before.
    record.phase = Phase.DISPATCHED if record.started_at is None else Phase.RUNNING
    record.dispatched_at = at
    _taken(record)
    return Verdict.EFFECTIVE


def started(record: TaskRecord, event: TaskStarted, at: Instant) -> Verdict:
    """The attempt runs. A message before it may be missing after a crash, so an assigned one is legal too."""
    if event.attempt != record.attempt or record.phase not in NOT_STARTED:
        return Verdict.VOID
    record.phase = Phase.RUNNING
    _taken(record)
    record.started_at = at
    return Verdict.EFFECTIVE


def progressed(record: TaskRecord, event: TaskProgressed) -> Verdict:
    """Progress only rises."""
    if event.attempt != record.attempt or record.phase not in ATTEMPT_OPEN:
        return Verdict.VOID
    record.progress = max(record.progress, min(event.progress, 100))
    return Verdict.EFFECTIVE


def planned(record: TaskRecord, event: TaskPlanned, at: Instant) -> Verdict:
    """The task waits for an answer, and its slot is reserved."""
    # Only what asks for approval has a plan to show: a worker that says so of another would leave it waiting for nothing.
    is_asked_for = record.asks_approval and not record.confirmed
    if event.attempt != record.attempt or record.phase not in ATTEMPT_OPEN or not is_asked_for:
        return Verdict.VOID
    if record.phase is Phase.STOPPING:
        return stopped(record, at)
    if record.phase is Phase.HELD:  # its worker is lost, and the plan with it
        return plan_again(record)
    record.phase = Phase.APPLY_PENDING
    record.plan_attempt = event.attempt
    record.planned_at = at
    record.commands_before = event.commands_before
    record.changes = event.changes
    return Verdict.EFFECTIVE


def succeeded(record: TaskRecord, event: AttemptSucceeded, at: Instant) -> Verdict:
    """The task is completed, also one that was to stop: it was faster."""
    if event.attempt != record.attempt or record.phase not in ATTEMPT_OPEN:
        return Verdict.VOID
    record.result = event.result.copy()
    record.progress = 100
    return end(record, Phase.COMPLETED, at, None)


def failed(record: TaskRecord, event: AttemptFailed | AttemptLost, at: Instant) -> Verdict:
    """The task is tried again or has failed; a stopping one ends as what stopped it."""
    if event.attempt != record.attempt or record.phase not in ATTEMPT_OPEN:
        return Verdict.VOID
    if isinstance(event, AttemptLost):
        error = TaskError(code="worker_lost", message=event.message or "the worker lost the attempt", retryable=True)
    else:
        error = event.error
        record.result = event.result.copy()
    if record.phase is Phase.STOPPING:
        return stopped(record, at)
    if error.code == "timeout":
        return end(record, Phase.TIMEOUT, at, error)
    if error.code == PLAN_MISSING and record.confirmed:  # nothing was applied
        return plan_again(record)
    return try_again_or_fail(record, at, error, delay_seconds=_retry_delay_seconds(record))


def not_delivered(record: TaskRecord, event: NotDelivered, at: Instant) -> Verdict:
    """The attempt did not begin, so it spends no try: it is sent again after a while, so many times in a row."""
    if event.attempt != record.attempt:
        return Verdict.VOID
    if record.phase is Phase.STOPPING:
        return stopped(record, at)
    if record.phase is Phase.HELD:
        return _begin_again(record)
    if record.phase not in NOT_STARTED:
        return Verdict.VOID
    delays = DELIVERY_DELAYS_SECONDS
    if event.declined:
        record.declined_by = (*record.declined_by, record.worker or "")[-DECLINES_REMEMBERED_MAX:]
        times = len(record.declined_by)
    else:
        record.deliveries_failed += 1
        times = record.deliveries_failed
        if times > len(delays) and not record.confirmed:
            return end(record, Phase.FAILED, at, TaskError(code="dispatch_failed", message=event.reason))
    record.due = Instant(at + seconds(delays[min(times, len(delays)) - 1]))
    record.error = TaskError(code="dispatch_failed", message=event.reason, retryable=True)
    if record.confirmed:  # the apply waits on its reserved slot, and what holds applies back holds it back again
        record.phase = Phase.APPLY_PENDING
        return Verdict.EFFECTIVE
    record.tries -= 1
    leave_worker(record)
    return Verdict.EFFECTIVE


def _begin_again(record: TaskRecord) -> Verdict:
    """A held attempt did not begin after all. A plan is made anew; of others, the try was none."""
    if record.asks_approval:
        return plan_again(record)
    record.tries -= 1
    record.due = NO_INSTANT
    leave_worker(record)
    return Verdict.EFFECTIVE


def _taken(record: TaskRecord) -> None:
    record.accepted = True
    record.deliveries_failed = 0
    record.declined_by = ()


def _retry_delay_seconds(record: TaskRecord) -> float:
    delays = record.retry_delays_seconds
    return delays[min(record.tries, len(delays)) - 1] if delays else 0.0
