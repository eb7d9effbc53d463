"""Why and how attempts are stopped: by whoever asked, their deadline, a worker that is cut off, or one that leaves. Pure."""

from dataclasses import dataclass

from taskyard.agent.slots import Stop
from taskyard.contracts.agent_protocol import Assignment

GRACE_SECONDS = 10.0
"""What a program has to save and to unlock, whoever stops it,"""
FENCE_GRACE_SECONDS = 3.0
"""but for what another may begin as soon as this worker counts as lost."""


@dataclass(frozen=True, kw_only=True)
class StopRequest:
    """Why and how an attempt is stopped: what its `Failed` report says, and how long after TERM until KILL."""

    code: str
    message: str
    retryable: bool
    grace_seconds: float


TIMED_OUT = StopRequest(code="timeout", message="execution timeout", retryable=False, grace_seconds=GRACE_SECONDS)


def requested(stop: Stop) -> StopRequest:
    """Somebody asked for it, or the dispatcher saw the deadline pass."""
    code = "timeout" if stop.cause == "timeout" else "cancelled"
    message = "execution timeout" if stop.cause == "timeout" else f"stopped: {stop.cause}"
    return StopRequest(code=code, message=message, retryable=False, grace_seconds=stop.grace_seconds)


def fenced(assignment: Assignment) -> StopRequest:
    """There was no contact for too long."""
    message = "the worker had no contact and stopped what another may run"
    return StopRequest(
        code="self_fenced", message=message, retryable=assignment.repeatable, grace_seconds=FENCE_GRACE_SECONDS
    )


def leaving(assignment: Assignment) -> StopRequest:
    """The worker leaves."""
    message = "the worker was stopped"
    return StopRequest(
        code="worker_stopped", message=message, retryable=assignment.repeatable, grace_seconds=GRACE_SECONDS
    )


def replaced(reason: str) -> StopRequest:
    """Another host has taken this agent's place."""
    message = f"another agent of this name took its place: {reason}"
    return StopRequest(code="worker_replaced", message=message, retryable=True, grace_seconds=GRACE_SECONDS)
