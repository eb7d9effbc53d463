"""What the dispatcher shows of itself: attempts that are open, and what it decided about attempts while it led."""

from collections.abc import Callable, Iterable
from typing import Any

from taskyard.contracts.events import (
    AttemptFailed,
    AttemptLost,
    AttemptSucceeded,
    Event,
    NotDelivered,
    TaskDispatched,
    TaskPlanned,
    TaskStarted,
)
from taskyard.contracts.lifecycle import ATTEMPT_OPEN
from taskyard.contracts.values import SECOND, Instant, Position
from taskyard.dispatcher.state import DispatcherState
from taskyard.machine.core import Apply
from taskyard.telemetry.metrics import EXECUTION_BUCKETS_SECONDS, Histogram, MetricsScope, Sample

_ENDS = frozenset((AttemptSucceeded, AttemptFailed, AttemptLost, TaskPlanned))
_REPORTS = (AttemptSucceeded, AttemptFailed, AttemptLost, TaskPlanned, NotDelivered, TaskDispatched, TaskStarted)
"""Events that change the phase of their task, or are void."""


class AttemptCounts:
    """Counts the dispatcher's own events while it leads, so that the counts of all instances add up."""

    def __init__(self, state: Callable[[], DispatcherState]) -> None:
        self.effective: dict[type[Event], int] = dict.fromkeys(_REPORTS, 0)
        self.void = 0
        self.unreadable = 0
        """Reports, and results of them, that could not be read and were passed over."""
        self.execution = Histogram(EXECUTION_BUCKETS_SECONDS)
        self._state = state

    def lead(self) -> None:
        """Counts go on over a leadership."""

    def applying(self, apply: Apply, *, is_own: bool) -> Apply:
        """Fold with `apply`, and count what is own."""
        if not is_own:
            return apply
        live, effective = self._state().tasks.live, self.effective

        def counted(event: Any, at: Instant, position: Position) -> None:
            kind = type(event)
            if kind not in effective:
                apply(event, at, position)
                return
            record = live.get(event.task)
            before = None if record is None else record.phase
            apply(event, at, position)
            if record is None or record.phase is before:
                self.void += 1
                return
            effective[kind] += 1
            if kind in _ENDS and record.started_at is not None:
                self.execution.observe((at - record.started_at) / SECOND)

        return counted


def show_attempts(metrics: MetricsScope, counts: AttemptCounts, state: Callable[[], DispatcherState]) -> None:
    """Show the counts, and the attempts that are open."""
    metrics.gauge("taskyard_attempts_open", "Attempts that have a slot and have not ended.", lambda: _open(state()))
    metrics.counter("taskyard_attempt_events", "Effective events of attempts, by type.", lambda: _effective(counts))
    metrics.counter(
        "taskyard_not_delivered",
        "Assignments that certainly did not begin.",
        lambda: counts.effective[NotDelivered],
    )
    metrics.counter("taskyard_void_reports", "Reports that came too late to mean anything.", lambda: counts.void)
    metrics.counter(
        "taskyard_unreadable_reports",
        "Reports and results of attempts that could not be read and were passed over.",
        lambda: counts.unreadable,
    )
    metrics.histogram(
        "taskyard_execution_seconds", "Time from an attempt's start to its end or plan.", counts.execution
    )


def _open(state: DispatcherState) -> float:
    live = state.tasks.live
    return sum(live[id].phase in ATTEMPT_OPEN for ids in state.tasks.on_worker.values() for id in ids)


def _effective(counts: AttemptCounts) -> Iterable[Sample]:
    return [({"type": kind.__name__}, float(count)) for kind, count in counts.effective.items()]
