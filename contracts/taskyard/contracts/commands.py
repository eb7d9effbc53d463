"""Commands: the forms of what people and programs ask for, whose tasks they may command, and the answers.

A command is JSON that a person can type. Its author, pool and verb come from the subject
`taskyard.command.<principal>.<pool>.<verb>`; a `pool` in the body must equal the subject's.
"""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Raw, Struct

from taskyard.contracts.events import FieldError
from taskyard.contracts.values import (
    PRIORITY_DEFAULT,
    CommandId,
    Labels,
    Name,
    Position,
    Priority,
    QueueName,
    Reason,
    Role,
    Status,
    TaskId,
    Uuid7,
)

COMMAND_BYTES_MAX = 128 * 1024
TASKS_PER_COMMAND_MAX = 500
ID_AGE_SECONDS_MAX = 24 * 3600
ID_AHEAD_SECONDS_MAX = 5 * 60
SETTING_MAX = 1_000_000_000
SETTING_SECONDS_MAX = 10 * 366 * 86_400
"""What a setting may be at most: a time that no `Instant` can bear would stop the fold of every service."""

_Timestamp = Annotated[datetime, Meta(tz=True)]
_Why = Annotated[Reason, Meta(description="The reason; others can see it.")]
_Comment = Annotated[Reason, Meta(description="A comment; others can see it.")]
_Create = Annotated[bool, Meta(description="Create the queue if it does not exist.")]


class Command(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The root of command bodies. `id` makes a command be decided once, however often it is sent."""

    id: Uuid7 | None = None
    pool: Name | None = None


class TaskSpec(Command):
    """One task to run; only `kind` and `input` are always needed. `timeout_seconds` 0 means the kind's default."""

    kind: str
    input: Raw
    queue: QueueName | None = None
    priority: Priority = PRIORITY_DEFAULT
    timeout_seconds: Annotated[float, Meta(ge=0, le=30 * 86_400)] = 0
    schedule_to_start_timeout_seconds: Annotated[float, Meta(gt=0, le=30 * 86_400)] | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=100)] | None = None
    labels: Annotated[Labels, Meta(max_length=64)] = {}
    not_before: _Timestamp | None = None


class TaskBatch(Command):
    """Many tasks in one command: each is accepted or refused by itself, so each is decoded by itself."""

    tasks: Annotated[list[Raw], Meta(min_length=1, max_length=TASKS_PER_COMMAND_MAX)]


class TaskCommand(Command):
    """`cancel`, `force-stop`, `release`, `retry`: about one task, with a reason."""

    task: Uuid7
    reason: _Why = ""


class ApprovalCommand(Command):
    """`confirm`, `discard`: the answer to a plan; `attempt` names the plan that was seen."""

    task: Uuid7
    attempt: Annotated[Annotated[int, Meta(ge=1)] | None, Meta(description="The attempt whose plan you saw.")] = None
    comment: _Comment = ""


class ReprioritiseCommand(Command):
    """`reprioritise`: another priority for a waiting task."""

    task: Uuid7
    priority: Annotated[Priority, Meta(description="1 is first, 10 last.")]


class ConfigurePoolCommand(Command):
    """`configure-pool`: the settings to change."""

    max_waiting: Annotated[
        Annotated[int, Meta(ge=0, le=SETTING_MAX)] | None, Meta(description="How many tasks may wait.")
    ] = None
    approval_timeout_seconds: Annotated[
        Annotated[float, Meta(gt=0, le=SETTING_SECONDS_MAX)] | None,
        Meta(description="How long a plan waits for its answer."),
    ] = None
    placement: Annotated[
        Annotated[str, Meta(pattern=r"^(first-fit|keep-slot-0)$(?!\n)")] | None,
        Meta(description="first-fit or keep-slot-0."),
    ] = None


class ConfigureQueueCommand(Command):
    """`configure-queue`: the settings to change; `max_running` 0 lifts the limit. `create` makes a queue that is unknown."""

    queue: QueueName
    create: _Create = False
    max_running: Annotated[
        Annotated[int, Meta(ge=0, le=SETTING_MAX)] | None,
        Meta(description="How many tasks may run at a time; 0 lifts the limit."),
    ] = None


class QueueCommand(Command):
    """`pause`, `resume` (the whole pool when `queue` is left out). `create` makes a queue that is unknown."""

    queue: QueueName | None = None
    create: _Create = False
    reason: _Why = ""


class LockCommand(Command):
    """`lock`, `unlock`: by a person, with a reason. `create` makes a queue that is unknown."""

    queue: QueueName
    create: _Create = False
    reason: _Why = ""


class DrainCommand(Command):
    """`drain`: the worker finishes what it has and gets nothing new."""

    worker: Name
    reason: _Why = ""


def may_touch(role: Role, principal: str, submitted_by: str) -> bool:
    """Whether the principal may command a task of `submitted_by`: an admin all, others their own."""
    return role is Role.ADMIN or principal == submitted_by


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The outcome of a command, or of one task of a submission.

    `code` is the HTTP status. `id` is the task that it made (submit, retry). Above 299, `error` is a short code,
    `message` says what is wrong, `errors` name fields and `status` is the task's that forbids it.
    """

    code: int
    id: TaskId | None = None
    position: Position | None = None
    error: str | None = None
    message: str | None = None
    errors: tuple[FieldError, ...] = ()
    status: Status | None = None


class CommandAnswers(Struct, frozen=True, kw_only=True, gc=False):
    """The outcome of one stored command: one answer, or one per task in the order of a batch.

    `sequence` is where the command is stored: several may bear one id with different content, and not all are accepted.
    A scheduler of a version that does not say it leaves it 0.
    """

    command: CommandId
    sequence: int = 0
    answers: tuple[Answer, ...]


class AnswerBatch(Struct, frozen=True, kw_only=True, gc=False):
    """What the scheduler sends to a door: outcomes that were folded, several in one message."""

    outcomes: tuple[CommandAnswers, ...]
