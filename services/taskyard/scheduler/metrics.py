"""What the scheduler shows of itself: tasks that were submitted and ended while it led, and those that live."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from taskyard.contracts.events import (
    ApplyDiscarded,
    ApprovalExpired,
    AttemptFailed,
    AttemptLost,
    AttemptSucceeded,
    CommandRejected,
    ForceStopped,
    NotDelivered,
    TaskPlanned,
    TaskScheduled,
    TaskStopRequested,
    TaskSubmitted,
    WorkerLost,
)
from taskyard.contracts.lifecycle import Phase, TaskRecord
from taskyard.contracts.values import SECOND, Instant, Position, Status
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
        ApplyDiscarded,
        ApprovalExpired,
        WorkerLost,
    )
)
"""Events that may end a task. The others are folded without another look."""
_COUNTED = _MAY_END | {TaskSubmitted, TaskScheduled, CommandRejected}
_ENDED = {
    Status.COMPLETED: "taskyard_jobs_completed",
    Status.FAILED: "taskyard_jobs_failed",
    Status.TIMEOUT: "taskyard_jobs_timeout",
    Status.CANCELLED: "taskyard_jobs_cancelled",
}


class TaskCounts:
    """Counts what the scheduler folds while it leads, so that the counts of all instances add up."""

    def __init__(self, state: Callable[[], SchedulerState], lines: RejectionLines) -> None:
        self.submitted = 0
        self.rejected: Counter[tuple[str, str]] = Counter()
        self.ended: Counter[Status] = Counter()
        self.scheduling = Histogram(LATENCY_BUCKETS_SECONDS)
        self._state = state
        self._lines = lines

    def lead(self) -> None:
        """Counts go on over a leadership."""

    def applying(self, apply: Apply, *, is_own: bool) -> Apply:
        """Fold with `apply`, and count."""

        def counted(event: Any, at: Instant, position: Position) -> None:
            kind = type(event)
            if kind not in _COUNTED:
                apply(event, at, position)
            elif kind is CommandRejected:
                apply(event, at, position)
                self.rejected[event.verb, event.code] += 1
                self._lines.rejected(event, at)
            else:
                self._count(event, at, position, apply)

        return counted

    def _count(self, event: Any, at: Instant, position: Position, apply: Apply) -> None:
        records = records_of(event, self._state().tasks)
        if isinstance(event, TaskSubmitted):
            self.submitted += not records
        elif isinstance(event, TaskScheduled):
            for record in records:
                self._scheduled(record, at)
        apply(event, at, position)
        for record in records:
            if record.has_ended:
                self.ended[record.status] += 1

    def _scheduled(self, record: TaskRecord, at: Instant) -> None:
        if record.phase is Phase.PENDING and record.scheduled_at is None:
            self.scheduling.observe((at - record.submitted_at) / SECOND)


def show_tasks(metrics: MetricsScope, counts: TaskCounts, state: Callable[[], SchedulerState]) -> None:
    """Show the counts, and the tasks that live."""
    metrics.counter("taskyard_jobs_submitted", "Tasks accepted.", lambda: counts.submitted)
    for status, name in _ENDED.items():
        metrics.counter(name, f"Tasks that ended as {status}.", lambda status=status: counts.ended[status])
    metrics.counter("taskyard_commands_rejected", "Stored commands refused.", lambda: _rejected(counts))
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
