"""How an attempt ends: the task is over, or goes on with another one."""

from taskyard.contracts.events import TaskError
from taskyard.contracts.lifecycle.phases import Phase, Verdict
from taskyard.contracts.lifecycle.record import NO_INSTANT, TaskRecord
from taskyard.contracts.values import Instant, seconds


def end(record: TaskRecord, phase: Phase, at: Instant, error: TaskError | None) -> Verdict:
    """The task is over for good."""
    record.phase = phase
    record.finished_at = at
    record.error = error
    return Verdict.EFFECTIVE


def stopped(record: TaskRecord, at: Instant) -> Verdict:
    """The attempt of a stopping task has ended: the task ends as what stopped it, whatever its process made of that."""
    return end(record, record.stop or Phase.CANCELLED, at, record.stop_error)


def try_again_or_fail(record: TaskRecord, at: Instant, error: TaskError, *, delay_seconds: float) -> Verdict:
    """The task is pending again after `delay_seconds`, if another try could help and one is left. An apply is never repeated."""
    if record.confirmed or not error.retryable or record.tries >= record.max_attempts:
        return end(record, Phase.FAILED, at, error)
    record.error = error
    record.due = Instant(at + seconds(delay_seconds))
    leave_worker(record)
    return Verdict.EFFECTIVE


def plan_again(record: TaskRecord) -> Verdict:
    """The plan is gone, or was never made: the task is pending as if it had not been tried, and asks again."""
    record.tries = 0
    record.due = NO_INSTANT
    record.confirmed = False
    record.plan_attempt = record.planned_at = record.changes = record.commands_before = None
    leave_worker(record)
    return Verdict.EFFECTIVE


def leave_worker(record: TaskRecord) -> None:
    """The task is pending; its slot is free."""
    record.phase = Phase.PENDING
    record.progress = 0
