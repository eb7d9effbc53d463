"""Why a task is where it is, as the server tells it from events: what it waits for, what to do, and its story. Pure."""

import textwrap
from collections.abc import Iterator, Sequence

from rich.text import Text

from taskyard.cli import texts
from taskyard.cli.task_tables import FOLD_WIDTH_MIN, place_of, took_of
from taskyard.cli.views import Decision, Task, Why

_HINTS = {
    "approval": "answer with `taskyard confirm {id}` or `taskyard discard {id}`",
    "queue_paused": "an admin reopens it with `taskyard queue resume {queue} --pool {pool}`",
    "pool_paused": "an admin reopens it with `taskyard pool resume {pool}`",
    "queue_locked": "an admin reopens it with `taskyard queue unlock {queue} --pool {pool}`",
    "queue_limit": "an admin raises it with `taskyard queue configure {queue} --pool {pool} --max-running N`",
    "no_worker": "`taskyard workers` shows who is there and what each slot takes",
    "worker_lost": "it goes on when the worker is back; an admin gives it up with `taskyard force-stop {id} --reason …`",
}


def explain(why: Why, now: float) -> list[str]:
    """The lines that tell why the task waits, what it does, how it ended, or why it was refused."""
    task = why.task
    if task is None:
        return [why.summary]
    return _ended(task) if task.has_ended else _live(task, why.blocker, now)


def story(decisions: Sequence[Decision], width: int | None) -> Iterator[Text]:
    """A line for each decision and each wait: when, who, what; folded below itself where it is too long."""
    by_width = max((len(texts.one_line(each.by)) for each in decisions), default=0)
    for each in decisions:
        head = f"{texts.moment(each.at)}  {texts.one_line(each.by):<{by_width}}  "
        room = None if width is None else max(width - len(head), FOLD_WIDTH_MIN)
        message = texts.one_line(each.message)
        first, *more = textwrap.wrap(message, room, break_on_hyphens=False) if room else [message]
        line = Text(head, style="bright_black", no_wrap=True)
        line.append(first, style="yellow" if each.type in ("waited", "waits") else "default")
        yield line
        yield from (Text(" " * len(head) + part, no_wrap=True) for part in more)


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


def _ended(task: Task) -> list[str]:
    took = f" after {text}" if (text := texts.between(task.started_at, task.finished_at)) else ""
    where = f" on {task.worker}, slot {task.slot}" if task.worker is not None else ""
    attempt = f", attempt {task.attempt}" if task.attempt else ""
    lines = [f"{task.status} at {texts.moment(task.finished_at)}{took}{where}{attempt}"]
    if task.error is not None and task.status != "completed":
        retryable = "; another try could help" if task.error.retryable else ""
        lines.append(f"because: {task.error.message or task.error.code} ({task.error.code}{retryable})")
    if task.status in ("failed", "timeout", "cancelled"):
        lines.append(f"remedy: `taskyard retry {task.id}` makes a new task of it")
    return lines
