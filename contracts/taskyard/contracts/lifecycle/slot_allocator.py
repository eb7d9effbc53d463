"""What the slot allocator's events do to a task."""

from taskyard.contracts.events import SlotAssigned, TaskError, WorkerJoined, WorkerLost
from taskyard.contracts.incarnations import continues, is_later_number
from taskyard.contracts.kind import OnLost
from taskyard.contracts.lifecycle.endings import plan_again, stopped, try_again_or_fail
from taskyard.contracts.lifecycle.phases import Phase, Verdict
from taskyard.contracts.lifecycle.record import TaskRecord
from taskyard.contracts.values import Instant, Position


def assigned(record: TaskRecord, event: SlotAssigned, position: Position) -> Verdict:
    """A scheduled task takes a slot, with an attempt of a higher number than any before.

    The first logs have no `TaskScheduled` between a confirmation and its apply: such a task may take its slot as well.
    """
    is_scheduled = record.phase is Phase.SCHEDULED or record.is_apply_waiting
    if not is_scheduled or event.attempt <= record.attempt:
        return Verdict.VOID
    record.phase = Phase.ASSIGNED
    record.attempt = event.attempt
    record.worker, record.incarnation, record.slot = event.worker, event.incarnation, event.slot
    record.assigned, record.assigned_incarnation = position, event.incarnation
    record.started_at = None
    record.accepted = False
    record.progress = 0
    if not record.confirmed:  # an apply spends no try: it is never repeated
        record.tries += 1
    return Verdict.EFFECTIVE


def worker_lost(record: TaskRecord, event: WorkerLost, at: Instant) -> Verdict:
    """What the worker had goes the way of its kind: tried again, failed, or held. What was reserved plans again."""
    is_its = event.incarnation == record.incarnation or is_later_number(event.incarnation, record.incarnation)
    if not record.holds_slot or record.worker != event.worker or not is_its:
        return Verdict.VOID
    return _lost(record, at, event.worker)


def _lost(record: TaskRecord, at: Instant, worker: str) -> Verdict:
    if record.is_reserved:  # the plan file is lost with its worker
        return plan_again(record)
    if record.phase is Phase.STOPPING:
        return Verdict.VOID if record.on_lost is OnLost.HOLD else stopped(record, at)
    if record.phase is Phase.HELD:
        return Verdict.VOID
    if record.on_lost is OnLost.HOLD:
        record.phase = Phase.HELD
        return Verdict.EFFECTIVE
    error = TaskError(
        code="worker_lost",
        message=f"worker {worker} was lost",
        retryable=record.on_lost is OnLost.RETRY,
    )
    return try_again_or_fail(record, at, error, delay_seconds=0.0)


def worker_joined(record: TaskRecord, event: WorkerJoined, at: Instant) -> Verdict:
    """The worker is back: what it may still have is sent again, and its memory answers. A held task's worker may come
    back as it was, when only the network had been away; otherwise only a new incarnation means anything.

    One that does not answer for what the worker had is another host of that name: what may be tried again is lost, and
    what must not overlap stays held until the one that has it tells its end, or a person does.
    """
    if record.worker != event.worker or not record.holds_slot:
        return Verdict.VOID
    was_held = record.phase is Phase.HELD
    if event.incarnation == record.incarnation and not was_held:
        return Verdict.VOID
    if not continues(event, record.incarnation):
        return (
            Verdict.VOID if is_later_number(record.incarnation, event.incarnation) else _lost(record, at, event.worker)
        )
    record.incarnation = event.incarnation
    if record.is_reserved and not _has_slot(record, event):  # nobody would ever take the apply
        return plan_again(record)
    if was_held:
        record.phase = Phase.ASSIGNED
    return Verdict.EFFECTIVE


def _has_slot(record: TaskRecord, event: WorkerJoined) -> bool:
    """Whether the worker, which may have come back with other settings, still has the reserved slot and runs the kind."""
    return record.slot is not None and record.slot < len(event.slots) and record.kind in event.kinds
