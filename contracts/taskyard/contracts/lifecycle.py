"""The life of a task: the one fold of a task's record, which settles every race by the order of the log.

All services fold with this function and so agree on every task at every position. It looks at the task's own record
and the event, never at slots, workers or settings. An event that is not legal where it stands is *void*: it is shown
in the history and changes nothing.

    pending → scheduled → assigned → dispatched → running → completed | failed | timeout | cancelled
                  ↑            plan_and_apply: running → apply_pending → scheduled (on its reserved slot) → …
                  └── a retry, a delivery that failed, a lost worker

A slot is taken by `SlotAssigned` and held while `holds_slot`; nothing else gives or releases one. `fold` never fails.
"""

from enum import StrEnum
from typing import assert_never

from msgspec import Raw, Struct

from taskyard.contracts.events import (
    ApplyConfirmed,
    ApplyDiscarded,
    ApprovalExpired,
    AttemptFailed,
    AttemptLost,
    AttemptSucceeded,
    Changes,
    ForceStopped,
    NotDelivered,
    SlotAssigned,
    TaskDispatched,
    TaskError,
    TaskPlanned,
    TaskProgressed,
    TaskReprioritised,
    TaskScheduled,
    TaskStarted,
    TaskStopRequested,
    TaskSubmitted,
    WorkerJoined,
    WorkerLost,
)
from taskyard.contracts.kinds import OnLost
from taskyard.contracts.values import Instant, Position, Status, TaskId, bind_members, seconds

DELIVERY_DELAYS_SECONDS = (5.0, 10.0, 20.0, 40.0, 60.0)
"""Waits after a delivery that failed; after as many failures in a row as there are waits, the next one ends the task."""

CAUSE_CANCEL = "cancel"
CAUSE_TIMEOUT = "timeout"
CAUSE_SCHEDULE_TO_START = "schedule_to_start"

PLAN_MISSING = "plan_missing"
"""The error code of an apply that did not begin, since its worker no longer has the plan."""

DISCARDED = "discarded"
"""The error code of a task whose plan was discarded."""

NO_INSTANT = Instant(0)


class Phase(StrEnum):
    """Where a task stands. People see `status`: `held` shows as running, `stopping` as cancelling."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    ASSIGNED = "assigned"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    APPLY_PENDING = "apply_pending"
    HELD = "held"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


bind_members(Phase)

ENDED = frozenset((Phase.COMPLETED, Phase.FAILED, Phase.TIMEOUT, Phase.CANCELLED))
ON_WORKER = frozenset((Phase.ASSIGNED, Phase.DISPATCHED, Phase.RUNNING))
"""The attempt is with a worker that is believed to live."""
ATTEMPT_OPEN = ON_WORKER | {Phase.HELD, Phase.STOPPING}
"""The current attempt has not ended yet."""
_HOLDS_SLOT = ATTEMPT_OPEN | {Phase.APPLY_PENDING}
_NOT_STARTED = frozenset((Phase.ASSIGNED, Phase.DISPATCHED))

_STATUS = {Phase.HELD: Status.RUNNING, Phase.STOPPING: Status.CANCELLING}
_STATUS_OF = {phase: _STATUS.get(phase) or Status(phase.value) for phase in Phase}


class Verdict(StrEnum):
    """What an event meant: it took effect, it asked for what already holds, or it came where it is not legal."""

    EFFECTIVE = "effective"
    ALREADY = "already"
    VOID = "void"


bind_members(Verdict)


class TaskRecord(Struct, kw_only=True, gc=False, omit_defaults=True):
    """A task as the log tells it. Only `fold` changes it.

    It refers to nothing that could refer to it: with a million of them alive, the garbage collector need not look.

    `submitted` orders tasks; `attempt` numbers what was given a slot and only rises; `tries` counts those that
    spend one of `max_attempts`; `due` is when a pending (or reserved) task may go on; `assigned` is the position of
    the current `SlotAssigned` and `assigned_incarnation` the worker's then (`incarnation` is its latest);
    `plan_attempt` is the attempt whose plan is shown; `confirmed` says that plan is to be applied; `stop` is the
    phase that a stopping task ends in. `worker`, `slot`, `started_at` are the last attempt's.
    """

    id: TaskId
    kind: str
    pool: str
    queue: str
    priority: int
    submitted: Position
    submitted_by: str
    submitted_at: Instant
    input: Raw
    timeout_seconds: float
    max_attempts: int
    retry_delays_seconds: tuple[float, ...]
    exclusive: bool
    on_lost: OnLost
    auto_confirm: bool
    schedule_to_start_timeout_seconds: float | None = None
    labels: dict[str, str] = {}
    retry_of: TaskId | None = None
    traceparent: str | None = None

    phase: Phase = Phase.PENDING
    due: Instant = NO_INSTANT
    attempt: int = 0
    tries: int = 0
    deliveries_failed: int = 0
    worker: str | None = None
    incarnation: int = 0
    assigned_incarnation: int = 0
    slot: int | None = None
    assigned: Position = Position(0)
    plan_attempt: int | None = None
    planned_at: Instant | None = None
    changes: Changes | None = None
    confirmed: bool = False
    stop: Phase | None = None
    stop_error: TaskError | None = None
    progress: int = 0
    scheduled_at: Instant | None = None
    started_at: Instant | None = None
    finished_at: Instant | None = None
    error: TaskError | None = None
    result: Raw = Raw(b"null")

    @property
    def status(self) -> Status:
        """The status as people see it."""
        return _STATUS_OF[self.phase]

    @property
    def has_ended(self) -> bool:
        """Whether the task is over for good."""
        return self.phase in ENDED

    @property
    def is_reserved(self) -> bool:
        """Whether its slot is kept for it while nothing of it runs."""
        return self.phase is Phase.APPLY_PENDING or (self.phase is Phase.SCHEDULED and self.confirmed)

    @property
    def holds_slot(self) -> bool:
        """Whether slot `slot` of `worker` is this task's, running or reserved."""
        return self.held_slot is not None

    @property
    def held_slot(self) -> tuple[str, int] | None:
        """The worker and slot that it holds, running or reserved, if it holds one."""
        holds = self.phase in _HOLDS_SLOT or (self.confirmed and self.phase is Phase.SCHEDULED)
        if not holds or self.worker is None or self.slot is None:
            return None
        return self.worker, self.slot

    @property
    def holds_workspace(self) -> bool:
        """Whether an exclusive task has its queue: from its first scheduling to its end, retries included."""
        return self.exclusive and self.scheduled_at is not None and self.phase not in ENDED


def new_record(event: TaskSubmitted, at: Instant, position: Position) -> TaskRecord:
    """The record of a task that was just accepted."""
    return TaskRecord(
        id=event.task,
        kind=event.kind,
        pool=event.pool,
        queue=event.queue,
        priority=event.priority,
        submitted=position,
        submitted_by=event.by,
        submitted_at=at,
        # A Raw refers to the whole message that it was decoded from: keep this task's bytes only.
        input=event.input.copy(),
        timeout_seconds=event.timeout_seconds,
        max_attempts=event.max_attempts,
        retry_delays_seconds=event.retry_delays_seconds,
        exclusive=event.exclusive,
        on_lost=event.on_lost,
        auto_confirm=event.auto_confirm,
        schedule_to_start_timeout_seconds=event.schedule_to_start_timeout_seconds,
        labels=event.labels,
        retry_of=event.retry_of,
        traceparent=event.traceparent,
        due=event.not_before or NO_INSTANT,
    )


TaskEvent = (
    TaskScheduled
    | SlotAssigned
    | TaskDispatched
    | TaskStarted
    | TaskProgressed
    | TaskPlanned
    | ApplyConfirmed
    | ApplyDiscarded
    | ApprovalExpired
    | TaskStopRequested
    | AttemptSucceeded
    | AttemptFailed
    | AttemptLost
    | NotDelivered
    | ForceStopped
    | TaskReprioritised
)
"""Events of one existing task."""


def fold(record: TaskRecord, event: TaskEvent | WorkerLost | WorkerJoined, at: Instant, position: Position) -> Verdict:
    """Change `record` by what `event`, stored at `at` and `position`, means for it."""
    match event:
        case TaskScheduled():
            return _scheduled(record, at)
        case SlotAssigned():
            return _assigned(record, event, position)
        case TaskDispatched():
            return _dispatched(record, event)
        case TaskStarted():
            return _started(record, event, at)
        case AttemptSucceeded():
            return _succeeded(record, event, at)
        case TaskProgressed():
            return _progressed(record, event)
        case TaskPlanned():
            return _planned(record, event, at)
        case AttemptFailed() | AttemptLost():
            return _failed(record, event, at)
        case NotDelivered():
            return _not_delivered(record, event, at)
        case ApplyConfirmed():
            return _confirmed(record, event)
        case ApplyDiscarded() | ApprovalExpired():
            return _refused(record, event, at)
        case TaskStopRequested():
            return _stop_requested(record, event, at)
        case ForceStopped():
            return _force_stopped(record, event, at)
        case TaskReprioritised():
            return _reprioritised(record, event)
        case WorkerLost():
            return _worker_lost(record, event, at)
        case WorkerJoined():
            return _worker_joined(record, event)
        case _:
            assert_never(event)


def _scheduled(record: TaskRecord, at: Instant) -> Verdict:
    if record.phase is not Phase.PENDING:
        return Verdict.VOID
    record.phase = Phase.SCHEDULED
    record.scheduled_at = at
    return Verdict.EFFECTIVE


def _assigned(record: TaskRecord, event: SlotAssigned, position: Position) -> Verdict:
    if record.phase is not Phase.SCHEDULED or event.attempt <= record.attempt:
        return Verdict.VOID
    record.phase = Phase.ASSIGNED
    record.attempt = event.attempt
    record.worker, record.incarnation, record.slot = event.worker, event.incarnation, event.slot
    record.assigned, record.assigned_incarnation = position, event.incarnation
    record.started_at = None
    record.progress = 0
    if not record.confirmed:  # an apply spends no try: it is never repeated
        record.tries += 1
    return Verdict.EFFECTIVE


def _dispatched(record: TaskRecord, event: TaskDispatched) -> Verdict:
    if record.phase is not Phase.ASSIGNED or event.attempt != record.attempt:
        return Verdict.VOID
    # An attempt that was held and is found again had started before.
    record.phase = Phase.DISPATCHED if record.started_at is None else Phase.RUNNING
    record.deliveries_failed = 0
    return Verdict.EFFECTIVE


def _started(record: TaskRecord, event: TaskStarted, at: Instant) -> Verdict:
    if event.attempt != record.attempt or record.phase not in _NOT_STARTED:
        return Verdict.VOID
    record.phase = Phase.RUNNING
    record.deliveries_failed = 0
    record.started_at = at
    return Verdict.EFFECTIVE


def _progressed(record: TaskRecord, event: TaskProgressed) -> Verdict:
    if event.attempt != record.attempt or record.phase not in ATTEMPT_OPEN:
        return Verdict.VOID
    record.progress = max(record.progress, min(event.progress, 100))
    return Verdict.EFFECTIVE


def _planned(record: TaskRecord, event: TaskPlanned, at: Instant) -> Verdict:
    # Only a kind that applies has a plan to show: a worker that says so of another would leave it waiting for nothing.
    is_asked_for = record.exclusive and not record.confirmed
    if event.attempt != record.attempt or record.phase not in ATTEMPT_OPEN or not is_asked_for:
        return Verdict.VOID
    if record.phase is Phase.STOPPING:
        return _stopped(record, at)
    if record.phase is Phase.HELD:  # its worker is lost, and the plan with it
        return _plan_again(record)
    record.phase = Phase.APPLY_PENDING
    record.plan_attempt = event.attempt
    record.planned_at = at
    record.changes = event.changes
    return Verdict.EFFECTIVE


def _confirmed(record: TaskRecord, event: ApplyConfirmed) -> Verdict:
    if record.confirmed and event.attempt == record.plan_attempt:
        return Verdict.ALREADY
    if record.phase is not Phase.APPLY_PENDING or event.attempt != record.plan_attempt:
        return Verdict.VOID
    record.phase = Phase.SCHEDULED
    record.confirmed = True
    record.due = NO_INSTANT
    return Verdict.EFFECTIVE


def _refused(record: TaskRecord, event: ApplyDiscarded | ApprovalExpired, at: Instant) -> Verdict:
    if record.phase is not Phase.APPLY_PENDING or event.attempt != record.plan_attempt:
        return Verdict.VOID
    if isinstance(event, ApplyDiscarded):
        reason = f": {event.comment}" if event.comment else ""
        error = TaskError(code=DISCARDED, message=f"the plan was discarded by {event.by}{reason}")
    else:
        error = TaskError(code="approval_expired", message="nobody confirmed the plan in time")
    return _end(record, Phase.CANCELLED, at, error)


def _stop_requested(record: TaskRecord, event: TaskStopRequested, at: Instant) -> Verdict:
    if record.phase is Phase.STOPPING:
        return Verdict.ALREADY
    if record.has_ended or (event.attempt is not None and event.attempt != record.attempt):
        return Verdict.VOID
    is_waiting = record.phase in (Phase.PENDING, Phase.SCHEDULED, Phase.APPLY_PENDING)
    match event.cause:
        case "cancel":
            ends_as = Phase.CANCELLED
        case "schedule_to_start" if is_waiting and record.phase is not Phase.APPLY_PENDING and not record.confirmed:
            ends_as = Phase.TIMEOUT
        case "timeout" if not is_waiting:
            ends_as = Phase.TIMEOUT
        case _:
            return Verdict.VOID
    error = _stop_error(event)
    if is_waiting:
        return _end(record, ends_as, at, error)
    record.phase = Phase.STOPPING
    record.stop, record.stop_error = ends_as, error
    return Verdict.EFFECTIVE


def _stop_error(event: TaskStopRequested) -> TaskError:
    match event.cause:
        case "timeout":
            return TaskError(code="timeout", message="execution timeout")
        case "schedule_to_start":
            return TaskError(code="schedule_to_start_timeout", message="did not start in time")
        case _:
            reason = f": {event.reason}" if event.reason else ""
            return TaskError(code="cancelled", message=f"cancelled by {event.by}{reason}")


def _succeeded(record: TaskRecord, event: AttemptSucceeded, at: Instant) -> Verdict:
    if event.attempt != record.attempt or record.phase not in ATTEMPT_OPEN:
        return Verdict.VOID
    record.result = event.result.copy()
    record.progress = 100
    return _end(record, Phase.COMPLETED, at, None)


def _failed(record: TaskRecord, event: AttemptFailed | AttemptLost, at: Instant) -> Verdict:
    if event.attempt != record.attempt or record.phase not in ATTEMPT_OPEN:
        return Verdict.VOID
    if isinstance(event, AttemptLost):
        error = TaskError(code="worker_lost", message=event.message or "the worker lost the attempt", retryable=True)
    else:
        error = event.error
        record.result = event.result.copy()
    if record.phase is Phase.STOPPING:
        return _stopped(record, at)
    if error.code == "timeout":
        return _end(record, Phase.TIMEOUT, at, error)
    if error.code == PLAN_MISSING and record.confirmed:  # nothing was applied
        return _plan_again(record)
    return _try_again_or_fail(record, at, error, delay_seconds=_retry_delay_seconds(record))


def _not_delivered(record: TaskRecord, event: NotDelivered, at: Instant) -> Verdict:
    if event.attempt != record.attempt:
        return Verdict.VOID
    if record.phase is Phase.STOPPING:
        return _stopped(record, at)
    if record.phase is Phase.HELD:
        return _plan_again(record)
    if record.phase not in _NOT_STARTED:
        return Verdict.VOID
    record.deliveries_failed += 1
    delays = DELIVERY_DELAYS_SECONDS
    if record.deliveries_failed > len(delays) and not record.confirmed:
        return _end(record, Phase.FAILED, at, TaskError(code="dispatch_failed", message=event.reason))
    record.due = Instant(at + seconds(delays[min(record.deliveries_failed, len(delays)) - 1]))
    record.error = TaskError(code="dispatch_failed", message=event.reason, retryable=True)
    if record.confirmed:  # the apply waits on its reserved slot
        record.phase = Phase.SCHEDULED
        return Verdict.EFFECTIVE
    record.tries -= 1
    _leave_worker(record)
    return Verdict.EFFECTIVE


def _worker_lost(record: TaskRecord, event: WorkerLost, at: Instant) -> Verdict:
    if not record.holds_slot or record.worker != event.worker or record.incarnation > event.incarnation:
        return Verdict.VOID
    if record.is_reserved:  # the plan file is lost with its worker
        return _plan_again(record)
    if record.phase is Phase.STOPPING:
        return Verdict.VOID if record.on_lost is OnLost.HOLD else _stopped(record, at)
    if record.phase is Phase.HELD:
        return Verdict.VOID
    if record.on_lost is OnLost.HOLD:
        record.phase = Phase.HELD
        return Verdict.EFFECTIVE
    error = TaskError(
        code="worker_lost",
        message=f"worker {event.worker} was lost",
        retryable=record.on_lost is OnLost.RETRY,
    )
    return _try_again_or_fail(record, at, error, delay_seconds=0.0)


def _worker_joined(record: TaskRecord, event: WorkerJoined) -> Verdict:
    """The worker is back: what it may still have is sent again, and its memory answers. A held task's worker may come
    back as it was, when only the network had been away; otherwise only a new incarnation means anything.
    """
    if record.worker != event.worker or not record.holds_slot or event.incarnation < record.incarnation:
        return Verdict.VOID
    was_held = record.phase is Phase.HELD
    if event.incarnation == record.incarnation and not was_held:
        return Verdict.VOID
    record.incarnation = event.incarnation
    if record.is_reserved and not _has_slot(record, event):  # nobody would ever take the apply
        return _plan_again(record)
    if was_held:
        record.phase = Phase.ASSIGNED
    return Verdict.EFFECTIVE


def _has_slot(record: TaskRecord, event: WorkerJoined) -> bool:
    """Whether the worker, which may have come back with other settings, still has the reserved slot and runs the kind."""
    return record.slot is not None and record.slot < len(event.slots) and record.kind in event.kinds


def _force_stopped(record: TaskRecord, event: ForceStopped, at: Instant) -> Verdict:
    if record.has_ended:
        return Verdict.VOID
    return _end(
        record, Phase.CANCELLED, at, TaskError(code="force_stopped", message=f"stopped by {event.by}: {event.reason}")
    )


def _reprioritised(record: TaskRecord, event: TaskReprioritised) -> Verdict:
    if record.phase is not Phase.PENDING:
        return Verdict.VOID
    if record.priority == event.priority:
        return Verdict.ALREADY
    record.priority = event.priority
    return Verdict.EFFECTIVE


def _retry_delay_seconds(record: TaskRecord) -> float:
    delays = record.retry_delays_seconds
    return delays[min(record.tries, len(delays)) - 1] if delays else 0.0


def _try_again_or_fail(record: TaskRecord, at: Instant, error: TaskError, *, delay_seconds: float) -> Verdict:
    if record.confirmed or not error.retryable or record.tries >= record.max_attempts:
        return _end(record, Phase.FAILED, at, error)
    record.error = error
    record.due = Instant(at + seconds(delay_seconds))
    _leave_worker(record)
    return Verdict.EFFECTIVE


def _plan_again(record: TaskRecord) -> Verdict:
    record.tries = 0
    record.due = NO_INSTANT
    record.confirmed = False
    record.plan_attempt = record.planned_at = record.changes = None
    _leave_worker(record)
    return Verdict.EFFECTIVE


def _leave_worker(record: TaskRecord) -> None:
    record.phase = Phase.PENDING
    record.progress = 0


def _stopped(record: TaskRecord, at: Instant) -> Verdict:
    return _end(record, record.stop or Phase.CANCELLED, at, record.stop_error)


def _end(record: TaskRecord, phase: Phase, at: Instant, error: TaskError | None) -> Verdict:
    record.phase = phase
    record.finished_at = at
    record.error = error
    return Verdict.EFFECTIVE
