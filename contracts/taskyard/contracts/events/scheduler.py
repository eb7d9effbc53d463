"""What the scheduler appends: tasks that come and may run, what people ask of them, settings of pools and queues.

`command` is the id of the command that an event comes of, and `asked` a digest of what that asked for: an id that comes
again must ask for the same. A submission has its own `digest` for that.
"""

from collections.abc import Iterator

from msgspec import Raw, Struct

from taskyard.contracts.events.event import Event, FieldError
from taskyard.contracts.kind import RETRY_DELAYS_SECONDS_DEFAULT, Lock, OnLost
from taskyard.contracts.values import CommandId, Instant, TaskId, derive_uuid7, is_uuid7

SCHEDULER = "scheduler"


class TaskSubmitted(Event):
    """A task was accepted, with the policy that holds for it for ever.

    `digest` is of its content (an id that comes again must bring the same); `command` is the id of the command when it
    is not the task's own; `traceparent` carries the W3C trace context of the submitter. `exclusive` stands in the first
    logs alone, for a lock of the queue and an approval in one: ask `locks_queue` and `asks_approval`.
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
    lock: Lock = Lock.NONE
    approval: bool = False
    exclusive: bool = False
    on_lost: OnLost = OnLost.RETRY
    auto_confirm: bool = False
    labels: dict[str, str] = {}  # noqa: RUF012 - a Struct gives each its own
    not_before: Instant | None = None
    schedule_to_start_timeout_seconds: float | None = None
    retry_of: TaskId | None = None
    command: CommandId | None = None
    asked: str | None = None
    traceparent: str | None = None

    @property
    def locks_queue(self) -> bool:
        """Whether the task has its queue to itself while it is under way."""
        return self.lock is Lock.QUEUE or self.exclusive

    @property
    def asks_approval(self) -> bool:
        """Whether the task plans, and waits for an answer to its plan before it goes on."""
        return self.approval or self.exclusive


class RefusedTasks(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Tasks of a batch that were refused alike. `tasks` are those that bear an id, `items` the places of the others.

    Who gave the batch an id knows the ids of those others all the same: `refused_ids` derives them.
    """

    status: int
    code: str
    message: str
    tasks: tuple[TaskId, ...] = ()
    items: tuple[int, ...] = ()


class CommandRejected(Event):
    """A stored command was refused, or tasks of its batch; nothing else came of them. `status` is the HTTP status that tells it.

    `refused` names the tasks of a batch that were refused; those that it does not name were accepted.
    """

    command: CommandId
    verb: str
    by: str
    pool: str
    status: int
    code: str
    message: str
    errors: tuple[FieldError, ...] = ()
    asked: str | None = None
    task: TaskId | None = None
    refused: tuple[RefusedTasks, ...] = ()


def refused_ids(event: CommandRejected) -> Iterator[tuple[TaskId, RefusedTasks]]:
    """The ids of the tasks that a refusal names, each with how it was refused."""
    for refused in event.refused:
        for task in refused.tasks:
            yield task, refused
        if is_uuid7(event.command):
            for item in refused.items:
                yield TaskId(derive_uuid7(event.command, str(item))), refused


class RefusalsCounted(Event):
    """So many commands of a principal were refused and only counted, beyond those that are written one by one.

    They are among those between `first` and `last` in the stream of commands, whose cursor has the name `stream`, and were
    stored between `since` and `until`. `codes` says how many were refused for what. Who waited for one was told all of it.
    """

    by: str
    stream: str
    count: int
    first: int
    last: int
    since: Instant
    until: Instant
    codes: dict[str, int]


class TaskScheduled(Event):
    """The task may run now: it waits for a slot, or for its reserved one where the plan of `attempt` is to be applied."""

    task: TaskId
    attempt: int | None = None


class TaskStopRequested(Event):
    """A task is to stop: `cause` is `cancel` (a person), `timeout` (of `attempt`), or `schedule_to_start`."""

    task: TaskId
    cause: str
    by: str
    reason: str = ""
    attempt: int | None = None
    command: CommandId | None = None
    asked: str | None = None


class ApplyConfirmed(Event):
    """The plan of `attempt` may be applied. `by` is `auto` where the task asked for no question."""

    task: TaskId
    attempt: int
    by: str
    comment: str = ""
    command: CommandId | None = None
    asked: str | None = None


class ApplyDiscarded(Event):
    """The plan of `attempt` will not be applied."""

    task: TaskId
    attempt: int
    by: str
    comment: str = ""
    command: CommandId | None = None
    asked: str | None = None


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
    asked: str | None = None


class AttemptReleased(Event):
    """An admin knows that the host of a held attempt is gone for good: the task has failed, slot and workspace are free."""

    task: TaskId
    attempt: int
    by: str
    reason: str
    command: CommandId | None = None
    asked: str | None = None


class TaskReprioritised(Event):
    """A waiting task got another priority."""

    task: TaskId
    priority: int
    by: str
    command: CommandId | None = None
    asked: str | None = None


class PoolConfigured(Event):
    """Settings of a pool changed; None leaves a setting as it was."""

    pool: str
    by: str
    max_waiting: int | None = None
    approval_timeout_seconds: float | None = None
    placement: str | None = None
    command: CommandId | None = None
    asked: str | None = None


class QueueConfigured(Event):
    """Settings of a queue changed. `max_running` 0 lifts the limit."""

    pool: str
    queue: str
    by: str
    max_running: int | None = None
    command: CommandId | None = None
    asked: str | None = None


class QueuePaused(Event):
    """Nothing of the queue (of the whole pool when `queue` is None) is scheduled until it is resumed."""

    pool: str
    by: str
    queue: str | None = None
    reason: str = ""
    command: CommandId | None = None
    asked: str | None = None


class QueueResumed(Event):
    """The pause of the queue (of the pool itself when `queue` is None) ended."""

    pool: str
    by: str
    queue: str | None = None
    reason: str = ""
    command: CommandId | None = None
    asked: str | None = None


class QueueLocked(Event):
    """A person locked the queue, with a reason."""

    pool: str
    queue: str
    by: str
    reason: str = ""
    command: CommandId | None = None
    asked: str | None = None


class QueueUnlocked(Event):
    """The person's lock of the queue ended."""

    pool: str
    queue: str
    by: str
    reason: str = ""
    command: CommandId | None = None
    asked: str | None = None


class WorkerDrainRequested(Event):
    """A worker is to finish what it has and get nothing new."""

    pool: str
    worker: str
    by: str
    reason: str = ""
    command: CommandId | None = None
    asked: str | None = None


SchedulerEvent = (
    TaskSubmitted
    | CommandRejected
    | RefusalsCounted
    | TaskScheduled
    | TaskStopRequested
    | ApplyConfirmed
    | ApplyDiscarded
    | ApprovalExpired
    | ForceStopped
    | AttemptReleased
    | TaskReprioritised
    | PoolConfigured
    | QueueConfigured
    | QueuePaused
    | QueueResumed
    | QueueLocked
    | QueueUnlocked
    | WorkerDrainRequested
)
