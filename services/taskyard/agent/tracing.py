"""The agent's part of traces. OpenTelemetry is imported only where the settings ask for it: an agent does without."""

import importlib.util
import logging
from typing import Protocol

from taskyard.agent.logs import fields
from taskyard.contracts.agent_protocol import Assignment
from taskyard.contracts.values import Instant, format_position
from taskyard.settings import AgentSettings

_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http", "structlog")
_log = logging.getLogger(__name__)


class Tracing(Protocol):
    """Takes what the agent did for the traces of tasks."""

    def ran(self, assignment: Assignment, began: Instant, ended: Instant, error: str | None) -> None:
        """The executor of an attempt has ended; `error` is the code of its failure."""
        ...

    async def close(self) -> None:
        """Send what is left, for a while."""
        ...


def make_tracing(settings: AgentSettings) -> Tracing | None:
    """What the settings ask for; None where that is nothing, or what it takes is not installed."""
    if not settings.telemetry or settings.otlp_endpoint is None:
        return None
    missing = [name for name in _NEEDED if not _is_installed(name)]
    if missing:
        _log.warning("tells no traces: packages are missing", extra=fields(missing=missing))
        return None
    from taskyard.agent.run_spans import RunSpans
    from taskyard.telemetry.spans import exporting_spans

    return RunSpans(exporting_spans(settings.otlp_endpoint, "agent", settings.name), settings.name)


def describe(assignment: Assignment, agent: str) -> dict[str, str | int]:
    """The attributes of a span about an assignment."""
    return {
        "taskyard.task": assignment.task,
        "taskyard.kind": assignment.kind,
        "taskyard.attempt": assignment.attempt,
        "taskyard.worker": agent,
        "taskyard.slot": assignment.slot,
        "taskyard.apply": assignment.apply,
        "taskyard.position.assigned": format_position(assignment.position),
    }


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False
