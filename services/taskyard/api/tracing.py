"""The doors' part of traces: one span for each command, from being stored to being answered.

A command with a trace context is traced where that says, and its tasks below it. One without is traced under its own id:
each of its tasks begins a trace of its own, so that tasks of many submitters may still be stored as one command.
"""

from collections.abc import Sequence

from taskyard.api.clock import now
from taskyard.api.outcomes import Outcome
from taskyard.contracts.commands import SUBMIT
from taskyard.contracts.values import Instant
from taskyard.telemetry.context import COMMAND, TASK, parse_traceparent, span_id_of, trace_of
from taskyard.telemetry.spans import Spans, SpanTold


class DoorSpans:
    """Tells the spans of commands."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def begin(
        self, *, verb: str, principal: str, pool: str, command: str, tasks: Sequence[str], traceparent: str | None
    ) -> tuple[list[SpanTold], str | None]:
        """The spans of a command that is about to be stored, and the header to store with it. Give them to `answered`."""
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
        return spans, given.traceparent(spans[0].id) if given is not None else None

    def answered(self, spans: Sequence[SpanTold], outcome: Outcome) -> None:
        """The command was answered, or nobody waits for its answer any more."""
        ended = now()
        answers = None if outcome.cancelled() or outcome.exception() is not None else outcome.result()
        for index, span in enumerate(spans):
            answer = answers[min(index, len(answers) - 1)] if answers else None
            self._spans.tell(_ended(span, ended, answer.code if answer else None, answer.error if answer else None))


def _ended(span: SpanTold, ended: Instant, code: int | None, error: str | None) -> SpanTold:
    attributes = span.attributes if code is None else {**span.attributes, "taskyard.code": code}
    return SpanTold(
        name=span.name,
        id=span.id,
        trace=span.trace,
        parent=span.parent,
        began=span.began,
        ended=ended,
        attributes=attributes,
        error=error,
    )
