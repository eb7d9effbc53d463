"""What can go wrong at the doors and in reading, each a class that is answered in its own way."""

from collections.abc import Sequence
from math import ceil

from taskyard.api.views import Rejection
from taskyard.contracts.events import FieldError
from taskyard.contracts.validation import told_faults

RETRY_AFTER_SECONDS = 2


class Refusal(Exception):
    """A request is answered with a problem instead of what it asked for.

    `status` is the HTTP status, `error` a short code, `detail` one sentence for people, `errors` name fields,
    `task_status` is the task's status where that forbids it, `refusals` tell why a task is not there, `headers` go with the
    answer.
    """

    def __init__(
        self,
        status: int,
        error: str,
        detail: str,
        *,
        errors: tuple[FieldError, ...] = (),
        task_status: str | None = None,
        refusals: tuple[Rejection, ...] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.error = error
        self.detail = detail
        self.errors = errors
        self.task_status = task_status
        self.refusals = refusals
        self.headers = headers or {}


class BeyondShare(Refusal):
    """Who asks has more of something, or asks for it more often, than one principal may. HTTP tells it late: see `slowly`."""

    def __init__(self, status: int, error: str, detail: str, *, seconds: float = 0.0) -> None:
        headers = {"Retry-After": str(max(RETRY_AFTER_SECONDS, ceil(seconds)))}
        super().__init__(status, error, detail, headers=headers)


class ClientGone(Exception):
    """The client hung up before its request was whole. Nothing was done, and nobody waits for an answer."""


class StoreUnavailable(Exception):
    """A command was not acknowledged as stored in time; it may or may not be. Remedy: send it again with its id."""


class StoreFull(StoreUnavailable):
    """The stream of commands has no room: nothing was stored. Remedy: give it more (`commands_bytes_max`)."""


class ReadModelUnavailable(Exception):
    """PostgreSQL gives no answer. Remedy: wait; commands are still taken."""


class ReadModelBehind(ReadModelUnavailable):
    """PostgreSQL answers, and lacks what the log has. Remedy: wait until the projector has written it."""


def unauthorized(detail: str) -> Refusal:
    """No valid credentials."""
    return Refusal(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="taskyard"'})


def forbidden(detail: str) -> Refusal:
    """The role does not allow it."""
    return Refusal(403, "forbidden", detail)


def not_found(detail: str) -> Refusal:
    """There is no such thing, or none that the caller may know of."""
    return Refusal(404, "not_found", detail)


def no_such_task(refusals: Sequence[Rejection]) -> Refusal:
    """There is no such task, which may be so since its submission was refused."""
    if not refusals:
        return not_found("there is no such task")
    last = refusals[-1]
    detail = f"the task was refused at {last.at} ({last.status} {last.code}): {last.message}; command {last.command}"
    return Refusal(404, "task_refused", detail, errors=tuple(last.errors), refusals=tuple(refusals))


def too_large(bytes_max: int) -> Refusal:
    """The body is longer than the door takes."""
    return Refusal(413, "too_large", f"the body is larger than {bytes_max} bytes")


def invalid(*errors: FieldError) -> Refusal:
    """Something that was sent cannot be read or is not allowed. Of many faults the first are told."""
    told = told_faults(errors)
    detail = "; ".join(f"{error.path}: {error.message}" if error.path else error.message for error in told[:3])
    return Refusal(422, "invalid", detail, errors=told)


def unavailable(detail: str) -> Refusal:
    """A part that this needs is away for now."""
    return Refusal(503, "unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
