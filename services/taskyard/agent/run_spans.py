"""`agent.run`: the span of an executor, as the child of its attempt's span. Imported only where traces are told."""

from taskyard.agent.tracing import describe
from taskyard.contracts.agent_protocol import Assignment
from taskyard.contracts.values import Instant
from taskyard.telemetry.context import AGENT_RUN, ATTEMPT, span_id_of, trace_of
from taskyard.telemetry.spans import Spans, SpanTold


class RunSpans:
    """Tells what the executors of the agent `name` did, by the clock of its host."""

    def __init__(self, spans: Spans, name: str) -> None:
        self._spans = spans
        self._name = name

    def ran(self, assignment: Assignment, began: Instant, ended: Instant, error: str | None) -> None:
        """The executor of an attempt has ended."""
        task, attempt = assignment.task, assignment.attempt
        self._spans.tell(
            SpanTold(
                name=AGENT_RUN,
                id=span_id_of(AGENT_RUN, task, attempt),
                trace=trace_of(task, assignment.traceparent),
                parent=span_id_of(ATTEMPT, task, attempt),
                began=began,
                ended=ended,
                attributes=describe(assignment, self._name),
                error=error,
            )
        )

    async def close(self) -> None:
        """Send what is left, for a while."""
        await self._spans.close()
