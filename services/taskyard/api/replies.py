"""The bodies that the doors answer with: what was accepted, and problems (RFC 9457)."""

from http import HTTPStatus

import msgspec
from msgspec import UNSET, Struct, UnsetType

from taskyard.api.errors import RETRY_AFTER_SECONDS, Refusal
from taskyard.api.views import Rejection
from taskyard.contracts.commands import Answer
from taskyard.contracts.events import FieldError
from taskyard.contracts.validation import told_faults
from taskyard.contracts.values import Position, format_position


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem document. `error` is a short code for programs; `task_status` the task's status that forbids it.

    Of a task that is not there since it was refused (`error` is `task_refused`), `refusals` tell when, by which command and why.
    """

    type: str | UnsetType = UNSET
    title: str
    status: int
    detail: str = ""
    error: str = ""
    errors: tuple[FieldError, ...] = ()
    task_status: str | None = None
    refusals: tuple[Rejection, ...] = ()


class Accepted(Struct, frozen=True, kw_only=True):
    """The command was accepted. `id` is the task that it made; `position` is null when no verdict came in time."""

    id: str | UnsetType | None = UNSET
    position: str | None


class BatchEntry(Struct, frozen=True, kw_only=True):
    """One task of a batch: accepted with a position, or refused with an error."""

    id: str | None
    position: str | UnsetType | None = UNSET
    error: Problem | UnsetType = UNSET


class AcceptedBatch(Struct, frozen=True, kw_only=True):
    """What became of each task of a batch, in its order."""

    tasks: tuple[BatchEntry, ...]


class RefusedBatch(Problem, frozen=True, kw_only=True, omit_defaults=True):
    """Every task of a batch was refused: a problem, in which `tasks` tell of each in its order."""

    tasks: tuple[BatchEntry, ...] = ()


class Reply(Struct, frozen=True, kw_only=True):
    """An answer of a door: HTTP status, body, the log position that it reflects, and headers for HTTP."""

    code: int
    body: Accepted | AcceptedBatch | Problem
    position: Position | None = None
    headers: dict[str, str] = {}


ACCEPTED = 202
INVALID = 422


def problem(refusal: Refusal) -> Problem:
    """The document of a refusal."""
    return Problem(
        type="about:blank",
        title=_title(refusal.status),
        status=refusal.status,
        detail=refusal.detail,
        error=refusal.error,
        errors=refusal.errors,
        task_status=refusal.task_status,
        refusals=refusal.refusals,
    )


def refused(refusal: Refusal) -> Reply:
    """The reply of a door that refused."""
    return Reply(code=refusal.status, body=problem(refusal), headers=refusal.headers)


def of_submission(id: str, answer: Answer | None) -> Reply:
    """The reply to one submitted task; `None` when the scheduler has not answered in time."""
    if answer is not None and answer.code >= 300:
        return _of_error(answer)
    return _accepted(answer, id=id)


def of_command(answer: Answer | None, *, makes_task: bool) -> Reply:
    """The reply to any other command; `makes_task` says that it shows the id of a new task."""
    if answer is not None and answer.code >= 300:
        return _of_error(answer)
    new = (answer.id if answer else None) if makes_task else UNSET
    return _accepted(answer, id=new)


def batch_entry(id: str | None, outcome: Refusal | Answer | None) -> BatchEntry:
    """One entry of a batch's answer."""
    if isinstance(outcome, Refusal):
        return BatchEntry(id=id, error=problem(outcome))
    if outcome is None:
        return BatchEntry(id=id, position=None)
    if outcome.code >= 300:
        return BatchEntry(id=id, error=problem(_as_refusal(outcome)))
    return BatchEntry(id=id, position=_text(outcome.position))


def of_batch(entries: tuple[BatchEntry, ...], position: Position | None) -> Reply:
    """The reply to a batch. One of which nothing was accepted is refused as a task is: who looks at the status alone knows."""
    problems = [entry.error for entry in entries if isinstance(entry.error, Problem)]
    if not problems or len(problems) < len(entries):
        return Reply(code=ACCEPTED, body=AcceptedBatch(tasks=entries), position=position)
    first = problems[0]
    are_alike = all((each.status, each.error) == (first.status, first.error) for each in problems)
    status, error = (first.status, first.error) if are_alike else (INVALID, "invalid")
    faults = told_faults([fault for index, each in enumerate(problems) for fault in _within(f"tasks[{index}]", each)])
    body = RefusedBatch(
        type="about:blank",
        title=_title(status),
        status=status,
        detail=f"every task was refused: {faults[0].path}: {faults[0].message}",
        error=error,
        errors=faults,
        tasks=entries,
    )
    return Reply(code=status, body=body, position=position, headers=_come_again(status))


def _within(path: str, problem: Problem) -> list[FieldError]:
    """The faults of a task as they are told of its batch."""
    faults = problem.errors or (FieldError(path="", message=problem.detail),)
    return [FieldError(path=f"{path}.{each.path}" if each.path else path, message=each.message) for each in faults]


def with_code(reply: Reply) -> bytes:
    """The reply as JSON with `code`, as it goes over NATS."""
    return msgspec.json.encode({**msgspec.to_builtins(reply.body), "code": reply.code})


def _accepted(answer: Answer | None, *, id: str | UnsetType | None) -> Reply:
    position = answer.position if answer else None
    return Reply(code=ACCEPTED, body=Accepted(id=id, position=_text(position)), position=position)


def _of_error(answer: Answer) -> Reply:
    refusal = _as_refusal(answer)
    return Reply(code=refusal.status, body=problem(refusal), position=answer.position, headers=refusal.headers)


def _as_refusal(answer: Answer) -> Refusal:
    return Refusal(
        answer.code,
        answer.error or "refused",
        answer.message or _title(answer.code),
        errors=answer.errors,
        task_status=answer.status,
        headers=_come_again(answer.code),
    )


def _come_again(status: int) -> dict[str, str]:
    return {"Retry-After": str(RETRY_AFTER_SECONDS)} if status in (429, 503) else {}


def _text(position: Position | None) -> str | None:
    return None if position is None else format_position(position)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
