"""A command on its way to a decision: as it was read, and how it is refused."""

from typing import Any

import msgspec
from msgspec import Struct

from taskyard.contracts.commands import Answer
from taskyard.contracts.events import CommandRejected, FieldError, RefusedTasks, TaskSubmitted
from taskyard.contracts.queues import INTERNAL_ERROR
from taskyard.contracts.validation import TEXT_CHARACTERS_MAX, UNREADABLE, InvalidCommand, told_faults
from taskyard.contracts.values import CommandId, Instant, Status, TaskId, digest_bits, is_uuid7, make_uuid7

ID_CONFLICT = "id_conflict"
"""The code of what bears an id that something else has."""
UNAVAILABLE = "unavailable"
"""The code of what is refused for now, and may be sent again under its id."""


class CommandMessage(Struct, frozen=True, kw_only=True):
    """A stored command as it was read: who asks for what, when it was stored, and which door waits for the outcome.

    `stream` is the name of its stream's cursor, and `sequence` its place in it.

    `original` is the submission of the task that a `retry` names, where the log still has it; `original_is_away` says that
    it may be there and cannot be read now. `could_not_be_read` is what reading it raised: it is refused for that.
    """

    stream: str = ""
    sequence: int
    at: Instant
    principal: str
    pool: str
    verb: str
    data: bytes
    door: str | None = None
    traceparent: str | None = None
    original: TaskSubmitted | None = None
    original_is_away: bool = False
    could_not_be_read: Exception | None = None


class Refused(Exception):
    """The command is refused; raised inside a decision only, and told as a `CommandRejected`."""

    def __init__(
        self, status: int, code: str, message: str, *errors: FieldError, task_status: Status | None = None
    ) -> None:
        super().__init__(message)
        self.task_status = task_status
        self.status, self.code, self.message = status, code, message[:TEXT_CHARACTERS_MAX]
        self.errors = told_faults(errors)

    def answer(self) -> Answer:
        """What the door is told."""
        return Answer(
            code=self.status, error=self.code, message=self.message, errors=self.errors, status=self.task_status
        )

    def faults(self, path: str) -> list[FieldError]:
        """The faults as they are told below `path` of a batch."""
        errors = self.errors or (FieldError(path="", message=self.message),)
        return [FieldError(path=f"{path}.{e.path}" if e.path else path, message=e.message) for e in errors]


def failed(reference: str) -> Refused:
    """The refusal of a command on which deciding raised."""
    return Refused(500, INTERNAL_ERROR, f"an error of ours: the scheduler's log tells of it at {reference!r}")


def too_large() -> Refused:
    """The refusal of a command of which more would have to be stored than fits."""
    return Refused(413, "too_large", "as it is stored it is too large: send it in parts")


def id_conflict(owner: str) -> Refused:
    """The refusal of a command that bears the id of another `owner`."""
    return Refused(409, ID_CONFLICT, f"this id is another {owner}'s", FieldError(path="id", message="is taken"))


def reference_of(message: CommandMessage) -> str:
    """How a command is named in the log of the program."""
    return f"command {message.sequence}"


def as_refused(error: InvalidCommand | Refused) -> Refused:
    """A command that could not be read is refused as one that could."""
    return error if isinstance(error, Refused) else Refused(422, "invalid", str(error), *error.errors)


def lost_worker(worker: str) -> Refused:
    """What somebody is told who drains a worker that is lost, or was by the time that the drain stood in the log."""
    return Refused(409, "worker_lost", f"worker {worker} is lost; ask again when it is back")


def rejection(
    message: CommandMessage,
    command: CommandId,
    refused: Refused,
    tasks: tuple[RefusedTasks, ...],
    *,
    asked: str | None = None,
) -> CommandRejected:
    """The event that tells of a refusal; `tasks` are those of a batch that were refused, `asked` as in the event."""
    return CommandRejected(
        command=command,
        verb=message.verb[:64],
        by=message.principal,
        pool=message.pool[:64],
        status=refused.status,
        code=refused.code,
        message=refused.message,
        errors=refused.errors,
        task=_given_task(message),
        refused=tasks,
        asked=asked,
    )


class _Given(Struct):
    id: Any = None
    task: Any = None


def given_id(message: CommandMessage) -> CommandId:
    """The id that a refused command bears, as far as it can be read, so that who sent it finds the refusal."""
    given = _given(message).id
    return CommandId(given if isinstance(given, str) and len(given) <= 64 else derived_id(message, -1))


def _given_task(message: CommandMessage) -> TaskId | None:
    """The task that a refused command is about, so that who follows the task hears of it."""
    given = _given(message).task
    return TaskId(given) if isinstance(given, str) and is_uuid7(given) else None


def _given(message: CommandMessage) -> _Given:
    try:
        return msgspec.json.decode(message.data, type=_Given)
    except UNREADABLE:
        return _Given()


def derived_id(message: CommandMessage, index: int) -> str:
    """The id of what came without one: the same whenever the stored message is read again."""
    return make_uuid7(message.at, digest_bits(f"{message.sequence}/{index}/{message.at}"))
