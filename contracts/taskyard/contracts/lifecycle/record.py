"""The record of a task, which `fold` alone changes, and how one begins."""

from msgspec import Raw, Struct

from taskyard.contracts.events import Changes, StreamMark, TaskError, TaskSubmitted
from taskyard.contracts.kind import OnLost
from taskyard.contracts.lifecycle.phases import ENDED, HOLDS_SLOT, STATUS_OF, Phase
from taskyard.contracts.values import Incarnation, Instant, Position, Status, TaskId

NO_INSTANT = Instant(0)


class TaskRecord(Struct, kw_only=True, gc=False, omit_defaults=True):
    """A task as the log tells it. Only `fold` changes it.

    It refers to nothing that could refer to it: with a million of them alive, the garbage collector need not look.

    `submitted` orders tasks; `attempt` numbers what was given a slot and only rises; `tries` counts those that
    spend one of `max_attempts`; `due` is when a pending (or reserved) task may go on; `assigned` is the position of
    the current `SlotAssigned` and `assigned_incarnation` the worker's then (`incarnation` is the one that answers for it now);
    `declined_by` are the workers that declined it since one took it last, one for each time;
    `accepted` tells that the worker has taken the current attempt;
    `plan_attempt` is the attempt whose plan is shown, `commands_before` marks the commands that came before it;
    `confirmed` says that plan is to be applied; `stop` is the phase that a stopping task ends in.
    `worker`, `slot`, `started_at` are the last attempt's.
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
    locks_queue: bool
    asks_approval: bool
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
    declined_by: tuple[str, ...] = ()
    worker: str | None = None
    incarnation: Incarnation = 0
    assigned_incarnation: Incarnation = 0
    slot: int | None = None
    assigned: Position = Position(0)
    accepted: bool = False
    plan_attempt: int | None = None
    planned_at: Instant | None = None
    commands_before: StreamMark | None = None
    changes: Changes | None = None
    confirmed: bool = False
    stop: Phase | None = None
    stop_error: TaskError | None = None
    progress: int = 0
    scheduled_at: Instant | None = None
    dispatched_at: Instant | None = None
    started_at: Instant | None = None
    finished_at: Instant | None = None
    error: TaskError | None = None
    result: Raw = Raw(b"null")

    @property
    def status(self) -> Status:
        """The status as people see it."""
        return STATUS_OF[self.phase]

    @property
    def has_ended(self) -> bool:
        """Whether the task is over for good."""
        return self.phase in ENDED

    @property
    def is_reserved(self) -> bool:
        """Whether its slot is kept for it while nothing of it runs."""
        return self.phase is Phase.APPLY_PENDING or (self.phase is Phase.SCHEDULED and self.confirmed)

    @property
    def is_apply_waiting(self) -> bool:
        """Whether its plan was confirmed and the apply is yet to be scheduled."""
        return self.confirmed and self.phase is Phase.APPLY_PENDING

    @property
    def holds_slot(self) -> bool:
        """Whether slot `slot` of `worker` is this task's, running or reserved."""
        return self.held_slot is not None

    @property
    def held_slot(self) -> tuple[str, int] | None:
        """The worker and slot that it holds, running or reserved, if it holds one."""
        holds = self.phase in HOLDS_SLOT or (self.confirmed and self.phase is Phase.SCHEDULED)
        if not holds or self.worker is None or self.slot is None:
            return None
        return self.worker, self.slot

    @property
    def holds_workspace(self) -> bool:
        """Whether a task that locks its queue has it: from its first scheduling to its end, retries included."""
        return self.locks_queue and self.scheduled_at is not None and self.phase not in ENDED


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
        locks_queue=event.locks_queue,
        asks_approval=event.asks_approval,
        on_lost=event.on_lost,
        auto_confirm=event.auto_confirm,
        schedule_to_start_timeout_seconds=event.schedule_to_start_timeout_seconds,
        labels=event.labels,
        retry_of=event.retry_of,
        traceparent=event.traceparent,
        due=event.not_before or NO_INSTANT,
    )
