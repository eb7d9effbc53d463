"""`noop`: done as soon as it is accepted. No process, no output; it measures the way there and back."""

from taskyard.contracts.agent_protocol import AnyReport, Assignment, Started, Succeeded
from taskyard.contracts.values import Instant

KIND = "noop"


def complete(assignment: Assignment, *, now: Instant) -> tuple[AnyReport, AnyReport]:
    """Start and end of an attempt, both at once."""
    task, attempt = assignment.task, assignment.attempt
    return Started(task=task, attempt=attempt, at=now), Succeeded(task=task, attempt=attempt, at=now)
