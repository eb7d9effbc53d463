"""Why a task is where it is, in plain words. Pure."""

from collections.abc import Iterable, Sequence

from taskyard.cli import texts
from taskyard.cli.task_tables import place_of, took_of
from taskyard.cli.views import HistoryItem, Task

_HINTS = {
    "approval": "answer with `taskyard confirm {id}` or `taskyard discard {id}`",
    "queue_paused": "an admin reopens it with `taskyard queue resume {queue} --pool {pool}`",
    "pool_paused": "an admin reopens it with `taskyard pool resume {pool}`",
    "queue_locked": "an admin reopens it with `taskyard queue unlock {queue} --pool {pool}`",
    "queue_limit": "an admin raises it with `taskyard queue configure {queue} --pool {pool} --max-running N`",
    "no_worker": "`taskyard workers` shows who is there and what each slot takes",
    "worker_lost": "it goes on when the worker is back; an admin gives it up with `taskyard force-stop {id} --reason …`",
}
_STOPS = ("TaskStopRequested", "ApplyDiscarded", "ApprovalExpired", "ForceStopped")
_SETBACKS = ("AttemptFailed", "AttemptLost", "NotDelivered", "WorkerLost")


def explain(task: Task, history: Sequence[HistoryItem], blocker: Task | None, now: float) -> list[str]:
    """The lines that tell why the task waits, what it does, or how it ended."""
    effective = [item for item in history if not item.void]
    lines = _ended(task, effective) if task.has_ended else _live(task, blocker, now)
    setbacks = [text for item in effective if (text := _setback(item))]
    # How it ended is told already; more than one setback is a story.
    return [*lines, *(setbacks if len(setbacks) > 1 or not task.has_ended else [])]


def _live(task: Task, blocker: Task | None, now: float) -> list[str]:
    reason = task.pending_reason
    since = texts.age(task.submitted_at, now)
    if reason is None:
        where = f" on {task.worker}, slot {task.slot}" if task.worker is not None else ""
        took = f" for {text}" if (text := took_of(task, now)) else ""
        return [f"{task.status}{where}{took}, attempt {task.attempt}" if task.attempt else f"{task.status} for {since}"]
    lines = [f"{task.status}, submitted {since} ago: {reason.message} ({reason.code})"]
    if place := place_of(task):
        lines.append(f"place: {place}")
    if blocker is not None:
        lines.append(f"blocker: {_describe(blocker, now)}")
    hint = _HINTS.get(reason.code)
    if hint:
        lines.append("remedy: " + hint.format(id=task.id, queue=task.queue, pool=task.pool))
    elif blocker is not None and blocker.status == "apply_pending":
        lines.append("remedy: " + _HINTS["approval"].format(id=blocker.id))
    return lines


def _describe(task: Task, now: float) -> str:
    waits = f": {task.pending_reason.message}" if task.pending_reason else ""
    return (
        f"{task.id} ({task.kind} by {task.submitted_by}, {task.status}, {texts.age(task.submitted_at, now)} old){waits}"
    )


def _ended(task: Task, history: Sequence[HistoryItem]) -> list[str]:
    took = f" after {text}" if (text := texts.between(task.started_at, task.finished_at)) else ""
    where = f" on {task.worker}, slot {task.slot}" if task.worker is not None else ""
    attempt = f", attempt {task.attempt}" if task.attempt else ""
    lines = [f"{task.status} at {texts.moment(task.finished_at)}{took}{where}{attempt}"]
    if task.error is not None and task.status != "completed":
        retryable = "; another try could help" if task.error.retryable else ""
        lines.append(f"because: {task.error.message or task.error.code} ({task.error.code}{retryable})")
    if task.status in ("cancelled", "timeout") and (stop := _last(history, _STOPS)):
        lines.append(f"asked for by {_who(stop)}")
    if task.status in ("failed", "timeout", "cancelled"):
        lines.append(f"remedy: `taskyard retry {task.id}` makes a new task of it")
    return lines


def _last(history: Iterable[HistoryItem], types: Sequence[str]) -> HistoryItem | None:
    found = [item for item in history if item.type in types]
    return found[-1] if found else None


def _who(item: HistoryItem) -> str:
    reason = item.data.get("reason") or item.data.get("comment") or item.data.get("cause") or ""
    by = item.by or item.data.get("by") or "nobody"
    return f"{by} at {texts.moment(item.at)}" + (f": {reason}" if reason else "")


def _setback(item: HistoryItem) -> str:
    if item.type not in _SETBACKS:
        return ""
    error = item.data.get("error")
    told = f"{error.get('code')}: {error.get('message')}" if isinstance(error, dict) else ""
    told = told or str(item.data.get("message") or item.data.get("reason") or "")
    attempt = f"attempt {item.data['attempt']}" if "attempt" in item.data else f"worker {item.data.get('worker', '')}"
    words = {
        "AttemptFailed": "failed",
        "AttemptLost": "was lost",
        "NotDelivered": "was not delivered",
        "WorkerLost": "was lost",
    }
    return f"{texts.moment(item.at)} {attempt} {words[item.type]}" + (f": {told}" if told else "")
