"""The spans of a task's life, told by the service whose event ends each of them while it leads.

    task (scheduler)            submitted → ended
    ├ task.queued (scheduler)       pending → scheduled
    ├ task.placed (slot_allocator)  scheduled → assigned
    ├ task.dispatched (dispatcher)  assigned → accepted by the worker, or known not to be delivered
    └ task.attempt (dispatcher)     started → ended or planned
      └ agent.run (agent)           the executor, by the clock of its host

Times are log times. What a leader folds while it takes over is not told: that time belongs to nobody's watch.
"""

from collections.abc import Callable
from typing import Any

from taskyard.contracts.events import (
    DISPATCHER,
    SCHEDULER,
    SLOT_ALLOCATOR,
    AttemptFailed,
    AttemptLost,
    AttemptSucceeded,
    NotDelivered,
    SlotAssigned,
    TaskDispatched,
    TaskPlanned,
    TaskScheduled,
)
from taskyard.contracts.lifecycle import ATTEMPT_OPEN, Phase, TaskRecord
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import Instant, Position, TaskId, format_position
from taskyard.machine.core import Apply
from taskyard.telemetry.context import ATTEMPT, DISPATCHED, PLACED, QUEUED, TASK, span_id_of, trace_of
from taskyard.telemetry.observing import records_of
from taskyard.telemetry.spans import Spans, SpanTold

_WAITS = {SCHEDULER: Phase.PENDING, SLOT_ALLOCATOR: Phase.SCHEDULED, DISPATCHER: Phase.ASSIGNED}
"""The phase whose beginning each service remembers."""
_KEEPS = {
    SCHEDULER: frozenset((Phase.PENDING,)),
    SLOT_ALLOCATOR: frozenset((Phase.SCHEDULED,)),
    DISPATCHER: ATTEMPT_OPEN,
}
"""The phases of a task in which it is remembered."""


class TaskSpans:
    """Watches the fold of the machine of `writer`, whose live tasks `tasks` gives."""

    def __init__(self, spans: Spans, writer: str, tasks: Callable[[], TaskTable]) -> None:
        self._spans = spans
        self._tasks = tasks
        self._waits, self._keeps = _WAITS[writer], _KEEPS[writer]
        self._tells_lives = writer == SCHEDULER
        self._since: dict[TaskId, Instant] = {}

    def lead(self) -> None:
        """Remember nothing of an earlier leadership."""
        self._since.clear()

    def applying(self, apply: Apply, *, is_own: bool) -> Apply:
        """Fold with `apply`, and tell the spans that end with what is folded."""

        def watched(event: Any, at: Instant, position: Position) -> None:
            concerned = [(record, record.phase) for record in records_of(event, self._tasks())]
            if is_own and concerned:
                self._tell(event, concerned[0][0], at, position)
            apply(event, at, position)
            for record, before in concerned:
                if record.phase is not before:
                    self._changed(record, at, position)

        return watched

    def _changed(self, record: TaskRecord, at: Instant, position: Position) -> None:
        if record.phase is self._waits:
            self._since[record.id] = at
        elif record.phase not in self._keeps:
            self._since.pop(record.id, None)
        if self._tells_lives and record.has_ended:
            self._tell_life(record, at, position)

    def _tell(self, event: Any, record: TaskRecord, at: Instant, position: Position) -> None:
        """Tell what the event ends; nothing where it will have no effect."""
        match event:
            case TaskScheduled() if record.phase is Phase.PENDING:
                began = self._since.get(record.id, record.submitted_at if record.scheduled_at is None else at)
                self._span(QUEUED, record, began, at, position, attempt=record.attempt + 1)
            case SlotAssigned() if record.phase is Phase.SCHEDULED:
                began = self._since.get(record.id, at if record.confirmed else record.scheduled_at or at)
                placed = {"taskyard.worker": event.worker, "taskyard.slot": event.slot}
                self._span(PLACED, record, began, at, position, attempt=event.attempt, more=placed)
            case TaskDispatched() if record.phase is Phase.ASSIGNED and event.attempt == record.attempt:
                began = self._since.get(record.id, at)
                self._span(DISPATCHED, record, began, at, position, attempt=event.attempt, more=_place(record))
            case NotDelivered() if record.phase in ATTEMPT_OPEN and event.attempt == record.attempt:
                began = self._since.get(record.id, at)
                self._span(
                    DISPATCHED,
                    record,
                    began,
                    at,
                    position,
                    attempt=event.attempt,
                    more=_place(record),
                    error="not_delivered",
                )
            case AttemptSucceeded() | AttemptFailed() | AttemptLost() | TaskPlanned() if (
                record.phase in ATTEMPT_OPEN and event.attempt == record.attempt
            ):
                began = record.started_at or self._since.get(record.id, at)
                more = {**_place(record), "taskyard.outcome": _OUTCOMES[type(event)]}
                self._span(
                    ATTEMPT, record, began, at, position, attempt=event.attempt, more=more, error=_error_code(event)
                )
            case _:
                pass

    def _tell_life(self, record: TaskRecord, at: Instant, position: Position) -> None:
        more = {"taskyard.status": record.status.value, **_place(record)}
        error = None if record.phase is Phase.COMPLETED else record.error.code if record.error else record.phase.value
        self._span(TASK, record, record.submitted_at, at, position, attempt=record.attempt, more=more, error=error)

    def _span(
        self,
        name: str,
        record: TaskRecord,
        began: Instant,
        ended: Instant,
        position: Position,
        *,
        attempt: int,
        more: dict[str, str | int] | None = None,
        error: str | None = None,
    ) -> None:
        is_life = name == TASK
        self._spans.tell(
            SpanTold(
                name=name,
                id=span_id_of(name, record.id, 0 if is_life else attempt),
                trace=trace_of(record.id, record.traceparent),
                parent=None if is_life else span_id_of(TASK, record.id),
                began=began,
                ended=ended,
                attributes={
                    "taskyard.task": record.id,
                    "taskyard.kind": record.kind,
                    "taskyard.pool": record.pool,
                    "taskyard.queue": record.queue,
                    "taskyard.attempt": attempt,
                    "taskyard.position.submitted": format_position(record.submitted),
                    "taskyard.position": format_position(position),
                    **(more or {}),
                },
                error=error,
            )
        )


_OUTCOMES: dict[type[Any], str] = {
    AttemptSucceeded: "succeeded",
    AttemptFailed: "failed",
    AttemptLost: "lost",
    TaskPlanned: "planned",
}


def _error_code(event: Any) -> str | None:
    match event:
        case AttemptFailed():
            return event.error.code
        case AttemptLost():
            return "worker_lost"
        case _:
            return None


def _place(record: TaskRecord) -> dict[str, str | int]:
    if record.worker is None or record.slot is None:
        return {}
    return {
        "taskyard.worker": record.worker,
        "taskyard.slot": record.slot,
        "taskyard.position.assigned": format_position(record.assigned),
    }
