"""What the scheduler shows of itself: tasks that were submitted and ended while it led, and those that live."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from taskyard.contracts.events import (
    ApplyDiscarded,
    ApprovalExpired,
    AttemptFailed,
    AttemptLost,
    AttemptReleased,
    AttemptSucceeded,
    CommandRejected,
    ForceStopped,
    NotDelivered,
    RefusalsCounted,
    TaskPlanned,
    TaskScheduled,
    TaskStopRequested,
    TaskSubmitted,
    WorkerLost,
)
from taskyard.contracts.lifecycle import ENDED, Phase
from taskyard.contracts.values import SECOND, Instant, Position
from taskyard.machine.core import Apply
from taskyard.scheduler.state import SchedulerState
from taskyard.telemetry.event_lines import RejectionLines
from taskyard.telemetry.metrics import LATENCY_BUCKETS_SECONDS, Histogram, MetricsScope, Sample
from taskyard.telemetry.observing import records_of

_MAY_END = frozenset(
    (
        AttemptSucceeded,
        AttemptFailed,
        AttemptLost,
        NotDelivered,
        TaskPlanned,
        TaskStopRequested,
        ForceStopped,
        AttemptReleased,
        ApplyDiscarded,
        ApprovalExpired,
    )
)
"""Events that may end their task."""
_COUNTED = frozenset((TaskSubmitted, TaskScheduled, CommandRejected, RefusalsCounted, WorkerLost))
SEVERAL = "several"
"""Stands for the verb of refusals that are only counted."""
_NAMES = {
    Phase.COMPLETED: "taskyard_jobs_completed",
    Phase.FAILED: "taskyard_jobs_failed",
    Phase.TIMEOUT: "taskyard_jobs_timeout",
    Phase.CANCELLED: "taskyard_jobs_cancelled",
}


class TaskCounts:
    """Counts what the scheduler folds while it leads, so that the counts of all instances add up."""

    def __init__(self, state: Callable[[], SchedulerState], lines: RejectionLines) -> None:
        self.submitted = 0
        self.rejected: Counter[tuple[str, str]] = Counter()
        self.ended: dict[Phase, int] = dict.fromkeys(ENDED, 0)
        self.scheduling = Histogram(LATENCY_BUCKETS_SECONDS)
        self._state = state
        self._lines = lines

    def lead(self) -> None:
        """Counts go on over a leadership."""

    def applying(self, apply: Apply, *, is_own: bool) -> Apply:
        """Fold with `apply`, and count. It runs for every event, so what is frequent is looked at as little as can be."""
        live, ended = self._state().tasks.live, self.ended

        def counted(event: Any, at: Instant, position: Position) -> None:
            kind = type(event)
            if kind in _MAY_END:
                record = live.get(event.task)
                apply(event, at, position)
                if record is not None and record.finished_at is not None:
                    ended[record.phase] += 1
            elif kind in _COUNTED:
                self._count(event, at, position, apply)
            else:
                apply(event, at, position)

        return counted

    def _count(self, event: Any, at: Instant, position: Position, apply: Apply) -> None:
        tasks = self._state().tasks
        match event:
            case TaskScheduled():
                record = tasks.live.get(event.task)
                if record is not None and record.scheduled_at is None and record.phase is Phase.PENDING:
                    self.scheduling.observe((at - record.submitted_at) / SECOND)
                apply(event, at, position)
            case TaskSubmitted():
                self.submitted += event.task not in tasks.live
                apply(event, at, position)
            case CommandRejected():
                self.rejected[event.verb, event.code] += 1
                self._lines.rejected(event, at)
                apply(event, at, position)
            case RefusalsCounted():
                for code, number in event.codes.items():
                    self.rejected[SEVERAL, code] += number
                self._lines.counted(event, at)
                apply(event, at, position)
            case _:  # a worker was lost, and with it perhaps several tasks
                records = records_of(event, tasks)
                apply(event, at, position)
                for record in records:
                    if record.phase in ENDED:
                        self.ended[record.phase] += 1


def show_tasks(metrics: MetricsScope, counts: TaskCounts, state: Callable[[], SchedulerState]) -> None:
    """Show the counts, and the tasks that live."""
    metrics.counter("taskyard_jobs_submitted", "Tasks accepted.", lambda: counts.submitted)
    for phase, name in _NAMES.items():
        metrics.counter(name, f"Tasks that ended as {phase}.", lambda phase=phase: counts.ended[phase])
    metrics.counter(
        "taskyard_commands_rejected",
        "Stored commands refused; `verb` is `several` for those that the log only counts.",
        lambda: _rejected(counts),
    )
    metrics.histogram(
        "taskyard_scheduling_seconds", "Time from a task's submission to its first scheduling.", counts.scheduling
    )
    metrics.gauge("taskyard_queued_tasks", "Tasks that wait for their turn or for a slot.", lambda: _queued(state()))
    metrics.gauge("taskyard_tasks", "Live tasks by what they do: pending, scheduled, placed.", lambda: _live(state()))


def _rejected(counts: TaskCounts) -> Iterable[Sample]:
    return [({"verb": verb, "code": code}, float(count)) for (verb, code), count in counts.rejected.items()]


def _queued(state: SchedulerState) -> Iterable[Sample]:
    return [({"pool": pool.name}, float(pool.waiting)) for pool in state.pools.values()]


def _live(state: SchedulerState) -> Iterable[Sample]:
    waiting = sum(pool.waiting for pool in state.pools.values())
    scheduled = sum(sum(pool.scheduled.values()) for pool in state.pools.values())
    classes = {"pending": waiting - scheduled, "scheduled": scheduled, "placed": len(state.tasks.live) - waiting}
    return [({"status": name}, float(count)) for name, count in classes.items()]
