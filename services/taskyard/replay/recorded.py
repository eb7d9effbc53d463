"""What a stretch of a log told: tasks with their runs, workers, settings, times. Pure data, which `recording` reads off a log."""

from typing import Any

from msgspec import Struct

from taskyard.contracts.events import AttemptFailed, AttemptSucceeded, TaskPlanned, TaskSubmitted
from taskyard.contracts.lifecycle import TaskRecord
from taskyard.contracts.values import Instant, TaskId

Outcome = TaskPlanned | AttemptSucceeded | AttemptFailed


class Run(Struct, frozen=True, kw_only=True):
    """One attempt that ran: how long from its slot to its start, and from there to its end.

    `outcome` None: it was stopped and would have gone on. `is_cut`: it still ran when the stretch ended. One that never
    started failed at once, as where there is no such program.
    """

    start_seconds: float
    run_seconds: float
    outcome: Outcome | None
    is_cut: bool = False
    has_started: bool = True


class Asked(Struct, frozen=True, kw_only=True):
    """Somebody commanded a task: so many seconds after `since` (`start` or `plan` of it), or else at the time `at`."""

    verb: str
    by: str
    since: str
    seconds: float
    at: Instant
    priority: int = 0


class RecordedTask(Struct, kw_only=True):
    """A task: how it was submitted, and its runs in their order. `is_carried_over`: before the stretch began."""

    id: TaskId
    kind: str
    pool: str
    queue: str
    by: str
    priority: int
    timeout_seconds: float
    max_attempts: int
    auto_confirm: bool
    not_before: Instant | None
    schedule_to_start_timeout_seconds: float | None
    submitted_at: Instant
    is_carried_over: bool
    order: int
    runs: list[Run] = []
    asked: list[Asked] = []


class RecordedWorker(Struct, kw_only=True):
    """A worker that was there from `joined` to `left` (None: to the end); when it was away for a while counts as there."""

    name: str
    pool: str
    slots: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...]
    joined: Instant
    left: Instant | None = None


class Setting(Struct, frozen=True, kw_only=True):
    """A setting that was changed."""

    at: Instant
    event: Any


class Recording(Struct, kw_only=True):
    """Everything that a replay needs. `typical` is the median of the runs of each kind, in seconds.

    `hop_seconds` is how long a decision took to be in the log, as a rule.
    """

    began: Instant
    ended: Instant
    tasks: list[RecordedTask]
    settings: list[Setting]
    workers: list[RecordedWorker]
    typical: dict[str, float]
    hop_seconds: float = 0.0


def submitted(event: TaskSubmitted, at: Instant, order: int) -> RecordedTask:
    """A task that was submitted."""
    return RecordedTask(
        id=event.task,
        kind=event.kind,
        pool=event.pool,
        queue=event.queue,
        by=event.by,
        priority=event.priority,
        timeout_seconds=event.timeout_seconds,
        max_attempts=event.max_attempts,
        auto_confirm=event.auto_confirm,
        not_before=event.not_before,
        schedule_to_start_timeout_seconds=event.schedule_to_start_timeout_seconds,
        submitted_at=at,
        is_carried_over=False,
        order=order,
    )


def carried_over(record: TaskRecord, at: Instant, order: int) -> RecordedTask:
    """A task that was there when the stretch began, as if it were submitted then."""
    return RecordedTask(
        id=record.id,
        kind=record.kind,
        pool=record.pool,
        queue=record.queue,
        by=record.submitted_by,
        priority=record.priority,
        timeout_seconds=record.timeout_seconds,
        max_attempts=record.max_attempts,
        auto_confirm=record.auto_confirm,
        not_before=record.due if record.due > at else None,
        schedule_to_start_timeout_seconds=None,
        submitted_at=at,
        is_carried_over=True,
        order=order,
    )
