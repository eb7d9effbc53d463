"""Why a task is where it is, as the server tells it from events: what it waits for, what to do, and its story. Pure."""

from collections.abc import Iterator, Sequence

from rich.text import Text

from taskyard.cli import texts
from taskyard.cli.task_tables import place_of, took_of
from taskyard.cli.views import Decision, Task, Why

FULL_TIMES_WIDTH = 100
"""A narrower terminal has no room for the day on each line."""
LABELS = frozenset(("place", "blocker", "remedy", "because"))

_HINTS = {
    "approval": "answer with `taskyard confirm {id}` or `taskyard discard {id}`",
    "internal_error": "an admin mends what the log tells of; a paused queue: `taskyard queue resume {queue} --pool {pool}`",
    "queue_paused": "an admin reopens it with `taskyard queue resume {queue} --pool {pool}`",
    "pool_paused": "an admin reopens it with `taskyard pool resume {pool}`",
    "queue_locked": "an admin reopens it with `taskyard queue unlock {queue} --pool {pool}`",
    "queue_limit": "an admin raises it with `taskyard queue configure {queue} --pool {pool} --max-running N`",
    "no_worker": "`taskyard workers` shows who is there and what each slot takes",
    "worker_lost": "it goes on when the worker is back; gone for good, an admin ends it with `taskyard release {id} --reason …`",
}


def headlines(why: Why, now: float, width: int | None) -> Iterator[Text]:
    """What `explain` tells, each line folded below itself where it is too long."""
    for each in explain(why, now):
        label, colon, _ = each.partition(": ")
        indent = len(label) + len(colon) if label in LABELS else 2
        yield from (Text(line, no_wrap=True) for line in texts.folded(texts.one_line(each), width, indent))


def explain(why: Why, now: float) -> list[str]:
    """Why the task waits, what it does, how it ended, or why it was refused; then what is behind a label."""
    task = why.task
    if task is None:
        return [why.summary]
    return _ended(task) if task.has_ended else _live(task, why.blocker, now)


def story(decisions: Sequence[Decision], width: int | None) -> Iterator[Text]:
    """A line for each decision and each wait: when, who, what; folded below itself where it is too long.

    On a narrow terminal the day stands above, if it is one day only.
    """
    times = [texts.moment(each.at) for each in decisions]
    days = {time.partition(" ")[0] for time in times}
    if width is not None and width < FULL_TIMES_WIDTH and len(days) == 1:
        yield Text(f"on {days.pop()}, UTC", style="bright_black")
        times = [time.partition(" ")[2] for time in times]
    by_width = max((len(texts.one_line(each.by)) for each in decisions), default=0)
    for time, each in zip(times, decisions, strict=True):
        head = f"{time}  {texts.one_line(each.by):<{by_width}}  "
        first, *more = texts.folded(head + texts.one_line(each.message), width, len(head))
        line = Text(head, style="bright_black", no_wrap=True)
        line.append(first[len(head) :], style="yellow" if each.type in ("waited", "waits") else "default")
        yield line
        yield from (Text(part, no_wrap=True) for part in more)


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
