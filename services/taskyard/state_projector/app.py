"""Wires the projector: the log in, PostgreSQL out, health and metrics beside."""

import asyncio
import time
from collections.abc import Mapping

from taskyard.contracts.subjects import LEASES_BUCKET
from taskyard.contracts.values import SECOND, Instant
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.leases import JetStreamLease
from taskyard.service import Links, linked, make_instance_name, serving
from taskyard.settings import Settings
from taskyard.state_projector.projector import Projector


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run one instance of the state projector until `stop` is set.

    Raises:
        SchemaTooNew: a newer version has migrated the tables.
    """
    async with linked("state_projector", settings) as links:
        shown = _Shown()
        projector = Projector(
            links.log,
            settings.postgres_dsn,
            lease=JetStreamLease(links.control_client, LEASES_BUCKET, links.name),
            lease_seconds=settings.lease_seconds,
            instance=make_instance_name(),
            count_events=shown.count,
        )
        shown.show(links, projector)
        async with serving(links, settings, lambda: projector.is_ready and not stop.is_set()):
            await projector.run(stop)


class _Shown:
    """What the projector shows of itself."""

    def __init__(self) -> None:
        self._events = 0
        self._head: int | None = None

    def count(self, events: int) -> None:
        """The rows of so many more events were written."""
        self._events += events

    def show(self, links: Links, projector: Projector) -> None:
        """Show what was written, and what is still to be."""

        async def ask_head() -> None:
            try:
                self._head = await links.log.head()
            except EventLogError:
                self._head = None  # how far the log goes is not known, and so is not shown

        metrics = links.metrics
        metrics.refresh(ask_head)
        metrics.counter("taskyard_projected_events", "Events whose rows were written.", lambda: self._events)
        metrics.counter(
            "taskyard_unreadable_events",
            "Events that could not be folded or shown whole, and rows that could not be made, written or read back.",
            lambda: projector.unreadable,
        )
        metrics.gauge(
            "taskyard_projected_commit",
            "Sequence of the last commit whose rows were written.",
            lambda: projector.folded,
        )
        metrics.gauge(
            "taskyard_projector_lag_commits",
            "Commits whose rows are not written yet; of the instance that writes.",
            lambda: _if_writing(projector, self._head and max(self._head - projector.folded, 0)),
        )
        metrics.gauge(
            "taskyard_projector_lag_seconds",
            "Age of the first commit that was read and whose rows are not written yet.",
            lambda: _if_writing(projector, _age(projector.waiting_since)),
        )


def _if_writing(projector: Projector, value: float | None) -> tuple[tuple[Mapping[str, str], float], ...]:
    return (({}, float(value)),) if projector.is_writing and value is not None else ()


def _age(at: Instant | None) -> float:
    return 0.0 if at is None else max(time.time_ns() // 1_000 - at, 0) / SECOND
