"""Names of traces and spans, in the form of the W3C trace context.

Every span of a task has an id that follows from the task, the attempt and the span's name. So services that never speak
to each other agree on who is whose parent, and what is told twice is one span. A task that nobody traced before has a
trace of its own, whose id is the task's without dashes.
"""

import re
from hashlib import blake2b

from msgspec import Struct

from taskyard.contracts.values import is_uuid7

TASK = "task"
QUEUED = "task.queued"
PLACED = "task.placed"
DISPATCHED = "task.dispatched"
ATTEMPT = "task.attempt"
AGENT_RUN = "agent.run"
COMMAND = "command"
"""`command.<verb>`: what a door did for one command."""

_traceparent = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED = 1


class TraceContext(Struct, frozen=True):
    """A place in a trace: what begins here has the span `span_id` as its parent; None: it is the trace's first."""

    trace_id: int
    span_id: int | None
    is_sampled: bool = True

    def traceparent(self, span_id: int) -> str:
        """The header that makes the span `span_id` the parent of what the receiver does."""
        return f"00-{self.trace_id:032x}-{span_id:016x}-{_SAMPLED if self.is_sampled else 0:02x}"


def parse_traceparent(text: str | None) -> TraceContext | None:
    """The place that a header names; None if there is none, or what stands there is no trace context."""
    match = _traceparent.fullmatch(text or "")
    if match is None:
        return None
    trace_id, span_id = int(match[1], 16), int(match[2], 16)
    if not trace_id or not span_id:
        return None
    return TraceContext(trace_id, span_id, bool(int(match[3], 16) & _SAMPLED))


def valid_traceparent(text: str | None) -> str | None:
    """The header, if it is one: whatever else a stranger wrote there is not kept."""
    return text if parse_traceparent(text) is not None else None


def trace_of(id: str, traceparent: str | None) -> TraceContext:
    """Where the spans of a task or command belong: where its submitter says, or in a trace of its own."""
    given = parse_traceparent(traceparent)
    return given if given is not None else TraceContext(_trace_id(id), None)


def span_id_of(name: str, id: str, attempt: int = 0) -> int:
    """The id of a span of a task or command."""
    return int.from_bytes(blake2b(f"{id}/{attempt}/{name}".encode(), digest_size=8).digest()) or 1


def _trace_id(id: str) -> int:
    if is_uuid7(id):
        return int(id.replace("-", ""), 16)
    return int.from_bytes(blake2b(id.encode(), digest_size=16).digest()) or 1
