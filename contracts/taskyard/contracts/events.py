"""Every event of the log. One Struct per event, past tense; the tag `type` is its stored name.

Wire format: stored for ever. Fields may be added with a default, never renamed, removed or given another meaning.
An event belongs to one writer (`OWNERS`), which alone appends it.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from taskyard.contracts.kinds import RETRY_DELAYS_SECONDS_DEFAULT, OnLost
from taskyard.contracts.values import CommandId, Instant, TaskId

SCHEDULER = "scheduler"
SLOT_ALLOCATOR = "slot_allocator"
DISPATCHER = "dispatcher"
LOG_KEEPER = "log_keeper"
"""The writer of what concerns the log itself. It is no service: an operator's command appends for it, fenced as all are."""

DECIDERS = (SCHEDULER, SLOT_ALLOCATOR, DISPATCHER)
"""The writers that are services: each has a leader."""

LOG_VERSION = 1
"""The newest version of the log's meaning that this program knows: which events there are, and what they do.

A version that gives an event another effect, or adds one that this version may not pass over, raises it; its new
effects begin behind the `LogVersionActivated` that names it, so that every reader folds the same at every position.
"""

NO_RESPONDERS = "no responders"
"""The reason of a `NotDelivered` that says that nobody listened on the worker's subject."""


class Event(Struct, frozen=True, kw_only=True, tag=True, tag_field="type", omit_defaults=True, gc=False):
    """The root of all events."""


class FieldError(Struct, frozen=True, kw_only=True, gc=False):
    """A fault of one field of a command: where, and what is wrong."""

    path: str
    message: str


class TaskError(Struct, frozen=True, kw_only=True, omit_defaults=False, gc=False):
    """Why an attempt or a task did not complete. `retryable` says whether another try could help."""

    code: str
    message: str
    retryable: bool = False


class Changes(Struct, frozen=True, kw_only=True, gc=False):
    """What a Terraform plan would do: numbers of resources."""

    add: int = 0
    change: int = 0
    destroy: int = 0


# -- scheduler ---------------------------------------------------------------------------------------------------------


class TaskSubmitted(Event):
    """A task was accepted, with the policy that holds for it for ever.

    `digest` is of its content (an id that comes again must bring the same); `command` is the id of the command when it
    is not the task's own; `traceparent` carries the W3C trace context of the submitter.
    """

    task: TaskId
    kind: str
    pool: str
    queue: str
    by: str
    input: Raw
    digest: str
    timeout_seconds: float
    priority: int = 5
    max_attempts: int = 1
    retry_delays_seconds: tuple[float, ...] = RETRY_DELAYS_SECONDS_DEFAULT
    exclusive: bool = False
    on_lost: OnLost = OnLost.RETRY
    auto_confirm: bool = False
    labels: dict[str, str] = {}
    not_before: Instant | None = None
    schedule_to_start_timeout_seconds: float | None = None
    retry_of: TaskId | None = None
    command: CommandId | None = None
    traceparent: str | None = None


class CommandRejected(Event):
    """A stored command was refused; nothing else came of it. `status` is the HTTP status that tells it."""

    command: CommandId
    verb: str
    by: str
    pool: str
    status: int
    code: str
    message: str
    errors: tuple[FieldError, ...] = ()
    task: TaskId | None = None


class TaskScheduled(Event):
    """The task may run now; it waits for a slot."""

    task: TaskId


class TaskStopRequested(Event):
    """A task is to stop: `cause` is `cancel` (a person), `timeout` (of `attempt`), or `schedule_to_start`."""

    task: TaskId
    cause: str
    by: str
    reason: str = ""
    attempt: int | None = None
    command: CommandId | None = None


class ApplyConfirmed(Event):
    """The plan of `attempt` may be applied. `by` is `auto` where the task asked for no question."""

    task: TaskId
    attempt: int
    by: str
    comment: str = ""
    command: CommandId | None = None


class ApplyDiscarded(Event):
    """The plan of `attempt` will not be applied."""

    task: TaskId
    attempt: int
    by: str
    comment: str = ""
    command: CommandId | None = None


class ApprovalExpired(Event):
    """Nobody answered for the plan of `attempt` in time."""

    task: TaskId
    attempt: int


class ForceStopped(Event):
    """An admin ended the task at once, whatever its process does; slot and workspace are free on their word."""

    task: TaskId
    by: str
    reason: str
    command: CommandId | None = None


class TaskReprioritised(Event):
    """A waiting task got another priority."""

    task: TaskId
    priority: int
    by: str
    command: CommandId | None = None


class PoolConfigured(Event):
    """Settings of a pool changed; None leaves a setting as it was."""

    pool: str
    by: str
    max_waiting: int | None = None
    approval_timeout_seconds: float | None = None
    placement: str | None = None
    command: CommandId | None = None


class QueueConfigured(Event):
    """Settings of a queue changed. `max_running` 0 lifts the limit."""

    pool: str
    queue: str
    by: str
    max_running: int | None = None
    command: CommandId | None = None


class QueuePaused(Event):
    """Nothing of the queue (of the whole pool when `queue` is None) is scheduled until it is resumed."""

    pool: str
    by: str
    queue: str | None = None
    reason: str = ""
    command: CommandId | None = None


class QueueResumed(Event):
    """The pause of the queue (of the pool itself when `queue` is None) ended."""

    pool: str
    by: str
    queue: str | None = None
    reason: str = ""
    command: CommandId | None = None


class QueueLocked(Event):
    """A person locked the queue, with a reason."""

    pool: str
    queue: str
    by: str
    reason: str = ""
    command: CommandId | None = None


class QueueUnlocked(Event):
    """The person's lock of the queue ended."""

    pool: str
    queue: str
    by: str
    reason: str = ""
    command: CommandId | None = None


class WorkerDrainRequested(Event):
    """A worker is to finish what it has and get nothing new."""

    pool: str
    worker: str
    by: str
    reason: str = ""
    command: CommandId | None = None


# -- slot allocator ----------------------------------------------------------------------------------------------------


class WorkerJoined(Event):
    """An incarnation of a worker is there. `slots[i]` lists what slot i accepts (`any` or kinds); `kinds` what it runs."""

    worker: str
    incarnation: int
    pool: str
    slots: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...]
    labels: dict[str, str] = {}


class WorkerSuspected(Event):
    """The worker has been silent: no new slots of it are given."""

    worker: str
    incarnation: int
    reason: str = ""


class WorkerRecovered(Event):
    """A suspected worker spoke again."""

    worker: str
    incarnation: int


class WorkerLost(Event):
    """The worker is gone: what it had follows the rule of each kind."""

    worker: str
    incarnation: int
    reason: str = ""


class SlotAssigned(Event):
    """Attempt `attempt` of the task has this slot of this incarnation of the worker."""

    task: TaskId
    attempt: int
    worker: str
    incarnation: int
    slot: int


# -- dispatcher --------------------------------------------------------------------------------------------------------


class TaskDispatched(Event):
    """The worker accepted the attempt."""

    task: TaskId
    attempt: int


class TaskStarted(Event):
    """The worker started the attempt; `at` is its own clock, for information."""

    task: TaskId
    attempt: int
    at: Instant | None = None


class TaskProgressed(Event):
    """Progress of a running attempt, 0 to 100."""

    task: TaskId
    attempt: int
    progress: int
    message: str = ""


class TaskPlanned(Event):
    """The plan of a `plan_and_apply` is there and waits for an answer."""

    task: TaskId
    attempt: int
    changes: Changes


class AttemptSucceeded(Event):
    """The attempt did what it should."""

    task: TaskId
    attempt: int
    result: Raw = Raw(b"null")


class AttemptFailed(Event):
    """The attempt ended without success. Error code `timeout` is the agent's own enforcement of the deadline."""

    task: TaskId
    attempt: int
    error: TaskError
    result: Raw = Raw(b"null")


class AttemptLost(Event):
    """The worker no longer has the attempt and cannot tell how it ended."""

    task: TaskId
    attempt: int
    message: str = ""


class NotDelivered(Event):
    """It is certain that the attempt did not begin: nobody listened, or the worker declined it."""

    task: TaskId
    attempt: int
    reason: str


# -- log keeper --------------------------------------------------------------------------------------------------------


class LogVersionActivated(Event):
    """From here on the log means what version `version` says; an instance that does not know it stops."""

    version: int
    by: str


class UnknownEvent(Struct, frozen=True, kw_only=True, gc=False):
    """An event that a newer writer appended: kept as it is, without effect here."""

    raw: Raw


OWNERS: dict[str, tuple[type[Event], ...]] = {
    SCHEDULER: (
        TaskSubmitted,
        CommandRejected,
        TaskScheduled,
        TaskStopRequested,
        ApplyConfirmed,
        ApplyDiscarded,
        ApprovalExpired,
        ForceStopped,
        TaskReprioritised,
        PoolConfigured,
        QueueConfigured,
        QueuePaused,
        QueueResumed,
        QueueLocked,
        QueueUnlocked,
        WorkerDrainRequested,
    ),
    SLOT_ALLOCATOR: (WorkerJoined, WorkerSuspected, WorkerRecovered, WorkerLost, SlotAssigned),
    DISPATCHER: (
        TaskDispatched,
        TaskStarted,
        TaskProgressed,
        TaskPlanned,
        TaskStopRequested,
        AttemptSucceeded,
        AttemptFailed,
        AttemptLost,
        NotDelivered,
    ),
    LOG_KEEPER: (LogVersionActivated,),
}
"""Which events each writer appends. `TaskStopRequested` is written by two: the dispatcher's has the cause `timeout`."""

AnyEvent = (
    TaskSubmitted
    | CommandRejected
    | TaskScheduled
    | TaskStopRequested
    | ApplyConfirmed
    | ApplyDiscarded
    | ApprovalExpired
    | ForceStopped
    | TaskReprioritised
    | PoolConfigured
    | QueueConfigured
    | QueuePaused
    | QueueResumed
    | QueueLocked
    | QueueUnlocked
    | WorkerDrainRequested
    | WorkerJoined
    | WorkerSuspected
    | WorkerRecovered
    | WorkerLost
    | SlotAssigned
    | TaskDispatched
    | TaskStarted
    | TaskProgressed
    | TaskPlanned
    | AttemptSucceeded
    | AttemptFailed
    | AttemptLost
    | NotDelivered
    | LogVersionActivated
)

_one = msgspec.json.Decoder(AnyEvent)


def decode_event(raw: Raw) -> AnyEvent | UnknownEvent:
    """One event from its JSON; what this version does not know becomes `UnknownEvent`."""
    try:
        return _one.decode(raw)
    except msgspec.ValidationError:
        return UnknownEvent(raw=raw.copy())


def event_name(event: Any) -> str:
    """The stored name of an event's type."""
    if isinstance(event, UnknownEvent):
        return _told(event).type
    return type(event).__name__


def named_task(event: Any) -> str:
    """The id of the task that an event names, also one of a newer version; empty if it names none."""
    if isinstance(event, UnknownEvent):
        return _told(event).task
    return str(getattr(event, "task", None) or "")


class _Told(Struct, frozen=True):
    """What every event tells alike."""

    type: str = "unknown"
    task: str = ""


_told_by = msgspec.json.Decoder(_Told)


def _told(event: UnknownEvent) -> _Told:
    try:
        return _told_by.decode(event.raw)
    except msgspec.ValidationError:
        return _Told()
