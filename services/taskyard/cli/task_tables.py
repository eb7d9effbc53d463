"""Tasks and their histories for people. Pure: what is shown follows from the arguments."""

from collections.abc import Iterable

from rich.text import Text

from taskyard.cli import texts
from taskyard.cli.tables import Column, layout, status_style
from taskyard.cli.views import AsOf, HistoryItem, Task

LABEL_WIDTH = 13

TASK_COLUMNS = (
    Column(title="ID"),
    Column(title="STATUS", styled=True),
    Column(title="KIND"),
    Column(title="QUEUE", narrow=5),
    Column(title="PRI", align_right=True, leaves=3),
    Column(title="WORKER", narrow=8, leaves=2),
    Column(title="AGE", align_right=True),
    Column(title="TOOK", align_right=True, leaves=1),
    Column(title="NOTE", narrow=12, leaves=4, style="bright_black"),
)
HISTORY_COLUMNS = (
    Column(title="POSITION", leaves=2),
    Column(title="AT"),
    Column(title="EVENT", narrow=12),
    Column(title="BY", narrow=6),
    Column(title="WHAT", narrow=10, style="bright_black"),
)
ACCEPTED_COLUMNS = (Column(title="ID"), Column(title="POSITION"), Column(title="REFUSED", narrow=20, style="red"))


def task_table(tasks: Iterable[Task], width: int | None, now: float) -> list[Text]:
    """A line for each task."""
    return layout(TASK_COLUMNS, [_row(task, now) for task in tasks], width)


def history_table(items: Iterable[HistoryItem], width: int | None) -> list[Text]:
    """A line for each event; those without effect are marked."""
    rows = [
        (
            item.position,
            texts.moment(item.at),
            texts.one_line(item.type) + (" (void)" if item.void else ""),
            texts.one_line(item.by or ""),
            texts.pairs(item.data),
        )
        for item in items
    ]
    return layout(HISTORY_COLUMNS, rows, width)


def task_card(task: Task, width: int | None, now: float) -> list[Text]:
    """Everything about one task, a line for each fact that applies."""
    place = f"{task.worker} slot {task.slot}" if task.worker is not None else ""
    error = f"{task.error.code}: {task.error.message}" if task.error else ""
    retryable = " (another try could help)" if task.error and task.error.retryable else ""
    facts: tuple[tuple[str, str], ...] = (
        ("id", task.id),
        ("status", task.status),
        ("kind", task.kind),
        ("queue", f"{task.queue} in pool {task.pool}"),
        ("priority", str(task.priority)),
        ("waits", task.pending_reason.message if task.pending_reason else ""),
        ("place", place_of(task)),
        ("attempt", str(task.attempt) if task.attempt else ""),
        ("worker", place),
        ("progress", f"{task.progress} %" if task.progress and not task.has_ended else ""),
        ("error", error + retryable),
        ("result", texts.plain(task.result) if task.result is not None else ""),
        ("labels", texts.pairs(task.labels or {})),
        ("submitted", _when(task.submitted_at, now, f" by {task.submitted_by}")),
        ("scheduled", _when(task.scheduled_at, now)),
        ("started", _when(task.started_at, now)),
        ("finished", _when(task.finished_at, now, f", took {took}" if (took := took_of(task, now)) else "")),
        ("retry of", task.retry_of or ""),
        ("parent", task.parent or ""),
        ("position", task.position or ""),
    )
    return [line for label, value in facts if value for line in fact(label, value, width, task.status)]


def as_of_line(as_of: AsOf) -> Text:
    """Which moment of the past is shown."""
    return Text(f"as of {texts.moment(as_of.at)} UTC (position {as_of.position})", style="bright_black")


def fact(label: str, value: str, width: int | None, status: str = "") -> list[Text]:
    """A labelled value, folded below itself where it is too long."""
    style = status_style(status) if label == "status" else ""
    room = None if width is None else width - LABEL_WIDTH
    folded = [line for part in texts.clean(value).split("\n") for line in texts.folded(part, room)]
    lines: list[Text] = []
    for number, part in enumerate(folded):
        line = Text(no_wrap=True)
        line.append((label if number == 0 else "").ljust(LABEL_WIDTH), style="bold")
        line.append(part, style=style)
        lines.append(line)
    return lines


def place_of(task: Task) -> str:
    """Its place among the waiting tasks of its queue, in words."""
    reason = task.pending_reason
    if reason is None or reason.queue_position is None:
        return ""
    return f"number {reason.queue_position} in queue {task.queue}"


def took_of(task: Task, now: float) -> str:
    """How long the last attempt has run, or ran."""
    started, finished = texts.seconds_of(task.started_at), texts.seconds_of(task.finished_at)
    if started is None or (finished is None and task.status != "running"):
        return ""
    return texts.duration((now if finished is None else finished) - started)


def note_of(task: Task) -> str:
    """What a list says about a task in one line: why it waits, how far it is, why it failed."""
    if task.error is not None and task.has_ended:
        return texts.one_line(f"{task.error.code}: {task.error.message}")
    if task.pending_reason is not None:
        return texts.one_line(task.pending_reason.message)
    return f"{task.progress} %" if task.progress and not task.has_ended else ""


def _row(task: Task, now: float) -> tuple[str, ...]:
    return (
        task.id,
        task.status,
        texts.one_line(task.kind),
        texts.one_line(task.queue),
        str(task.priority),
        texts.one_line(task.worker or ""),
        texts.age(task.submitted_at, now),
        took_of(task, now),
        note_of(task),
    )


def _when(text: str | None, now: float, more: str = "") -> str:
    return f"{texts.moment(text)} ({texts.age(text, now)} ago){more}" if text else ""
