"""The forms of answers as they are promised: which fields there are, what each may hold, and what holds between them."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx

Check = Callable[[Any], bool]

WAITING = {"pending"}
LIVE = {"pending", "scheduled", "assigned", "dispatched", "running", "apply_pending", "cancelling"}
ENDED = {"completed", "failed", "timeout", "cancelled"}
KINDS = {"plan", "plan_and_apply", "command", "noop"}

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_QUEUE = re.compile(r"[a-z0-9][a-z0-9_./-]{0,127}")


def is_id(value: Any) -> bool:
    """A UUIDv7 as text."""
    return isinstance(value, str) and bool(_UUID7.fullmatch(value))


def is_time(value: Any) -> bool:
    """RFC 3339 with a zone."""
    return isinstance(value, str) and "T" in value and datetime.fromisoformat(value).tzinfo is not None


def is_position(value: Any) -> bool:
    """Opaque text."""
    return isinstance(value, str) and bool(value)


def is_name(value: Any) -> bool:
    """A pool, worker or principal."""
    return isinstance(value, str) and bool(_NAME.fullmatch(value))


def is_queue(value: Any) -> bool:
    """A queue."""
    return isinstance(value, str) and bool(_QUEUE.fullmatch(value))


def is_text(value: Any) -> bool:
    """Text that says something."""
    return isinstance(value, str) and bool(value)


def is_bool(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


def is_labels(value: Any) -> bool:
    """Text by text."""
    return isinstance(value, dict) and all(isinstance(text, str) for pair in value.items() for text in pair)


def number(low: float, high: float = float("inf")) -> Check:
    """A number in this range."""
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def one_of(values: set[str]) -> Check:
    """One of these words."""
    return lambda value: value in values


def or_null(check: Check) -> Check:
    """Null where it does not apply."""
    return lambda value: value is None or check(value)


ERROR = {"code": is_text, "message": is_text, "retryable": is_bool}
REASON = {"code": is_text, "message": is_text, "blocker": or_null(is_id), "queue_position": or_null(number(1))}
TASK: dict[str, Check] = {
    "id": is_id,
    "kind": one_of(KINDS),
    "pool": is_name,
    "queue": is_queue,
    "priority": number(1, 10),
    "status": one_of(LIVE | ENDED),
    "attempt": number(0),
    "worker": or_null(is_name),
    "slot": or_null(number(0)),
    "progress": number(0, 100),
    "error": or_null(lambda value: fits(value, ERROR)),
    "pending_reason": or_null(lambda value: fits(value, REASON)),
    "submitted_by": is_name,
    "submitted_at": is_time,
    "scheduled_at": or_null(is_time),
    "started_at": or_null(is_time),
    "finished_at": or_null(is_time),
    "result": or_null(lambda value: isinstance(value, dict)),
    "labels": is_labels,
    "retry_of": or_null(is_id),
    "parent": or_null(is_id),
    "position": is_position,
}
EVENT: dict[str, Check] = {
    "position": is_position,
    "at": is_time,
    "type": is_text,
    "by": is_text,
    "void": is_bool,
    "data": lambda value: isinstance(value, dict),
}
SLOT: dict[str, Check] = {
    "id": number(0),
    "status": one_of({"idle", "running", "reserved"}),
    "accepts": lambda value: isinstance(value, list) and all(map(is_text, value)),
    "task": or_null(is_id),
}


def fits(value: Any, form: dict[str, Check]) -> bool:
    """Whether an object has all fields of a form, and each holds what it may. A later version may add fields."""
    assert isinstance(value, dict), value
    for name, check in form.items():
        assert name in value, f"{name} is missing in {value}"
        assert check(value[name]), f"{name} is {value[name]!r} in {value}"
    return True


def is_task(task: dict[str, Any]) -> None:
    """A task, and what holds between its fields."""
    fits(task, TASK)
    status = task["status"]
    assert (task["finished_at"] is not None) == (status in ENDED), task
    assert (task["worker"] is None) == (task["slot"] is None), task
    if task["started_at"] is not None:
        assert task["worker"] is not None, task
        assert task["attempt"] >= 1, task
    if status == "completed":
        assert task["error"] is None, task
        assert task["progress"] == 100, task
    if status in {"failed", "timeout", "cancelled"}:
        assert task["error"] is not None, task
    if status in WAITING:
        assert task["pending_reason"] is not None, task
    elif status in ENDED:
        assert task["pending_reason"] is None, task
    moments = [task[name] for name in ("submitted_at", "scheduled_at", "started_at", "finished_at") if task[name]]
    assert moments == sorted(moments), task


def is_history(items: list[dict[str, Any]]) -> None:
    """Events in the order of the log."""
    for item in items:
        fits(item, EVENT)
    assert items[0]["type"] == "TaskSubmitted", items
    times = [datetime.fromisoformat(item["at"]) for item in items]
    assert times == sorted(times), items
    assert len({item["position"] for item in items}) == len(items)


def is_problem(answer: httpx.Response, status: int, *paths: str) -> dict[str, Any]:
    """A problem document with this status; `paths` name the fields at fault."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/problem+json"
    assert is_position(answer.headers["taskyard-position"])
    problem = answer.json()
    assert problem["status"] == status
    assert is_text(problem["title"]), problem
    for error in problem.get("errors", []):
        assert isinstance(error["path"], str), problem
        assert is_text(error["message"]), problem
    assert [error["path"] for error in problem.get("errors", [])] == list(paths), problem
    return problem
