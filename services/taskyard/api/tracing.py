"""The doors' part of traces: one span for each command, from being stored to being answered.

A command with a trace context is traced where that says, and its tasks below it. One without is traced under its own id:
each of its tasks begins a trace of its own, so that tasks of many submitters may still be stored as one command.
"""

from collections.abc import Sequence

from taskyard.api.clock import now
from taskyard.api.outcomes import Outcome
from taskyard.contracts.commands import Answer
from taskyard.contracts.values import Instant
from taskyard.contracts.verbs import SUBMIT
from taskyard.telemetry.context import COMMAND, TASK, parse_traceparent, span_id_of, trace_of
from taskyard.telemetry.spans import Spans, SpanTold

UNANSWERED = "unanswered"
"""The error of a command whose outcome the door did not learn; it may be stored all the same."""


class DoorSpans:
    """Tells the spans of commands."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def begin(
        self,
        outcome: Outcome,
        *,
        verb: str,
        principal: str,
        pool: str,
        command: str,
        tasks: Sequence[str],
        traceparent: str | None,
    ) -> str | None:
        """A command about these tasks is about to be stored; the header to store with it. Its spans end with `outcome`."""
        name = f"{COMMAND}.{verb}"
        given = parse_traceparent(traceparent)
        alone = given is None and verb == SUBMIT
        began = now()
        spans = [
            SpanTold(
                name=name,
                id=span_id_of(name, id),
                trace=trace_of(id, traceparent),
                parent=span_id_of(TASK, id) if alone else None,
                began=began,
                ended=began,
                attributes={
                    "taskyard.command": command,
                    "taskyard.verb": verb,
                    "taskyard.by": principal,
                    "taskyard.pool": pool,
                    "taskyard.tasks": len(tasks),
                    **({"taskyard.task": id if alone else tasks[0]} if alone or len(tasks) == 1 else {}),
                },
            )
            for id in (tasks if alone else (command,))
        ]
        outcome.add_done_callback(lambda done: self._answered(spans, done))
        return given.traceparent(spans[0].id) if given is not None else None

    def _answered(self, spans: Sequence[SpanTold], outcome: Outcome) -> None:
        ended = now()
        answers = None if outcome.cancelled() else outcome.result()
        for index, span in enumerate(spans):
            answer = answers[min(index, len(answers) - 1)] if answers else None
            self._spans.tell(_ended(span, ended, answer))


def _ended(span: SpanTold, ended: Instant, answer: Answer | None) -> SpanTold:
    attributes = span.attributes if answer is None else {**span.attributes, "taskyard.code": answer.code}
    return SpanTold(
        name=span.name,
        id=span.id,
        trace=span.trace,
        parent=span.parent,
        began=span.began,
        ended=ended,
        attributes=attributes,
        error=UNANSWERED if answer is None else answer.error,
    )
