"""Wires the projector: the log in, PostgreSQL out, health and metrics beside."""

import asyncio

from prometheus_client import Counter, Gauge

from taskyard.service import linked, serving
from taskyard.settings import Settings
from taskyard.state_projector.projector import Projector

EVENTS_PROJECTED = Counter("taskyard_projected_events", "Events whose rows were written.")
COMMIT_PROJECTED = Gauge("taskyard_projected_commit", "Sequence of the last commit whose rows were written.")


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run one instance of the state projector until `stop` is set.

    Raises:
        SchemaTooNew: a newer version has migrated the tables.
    """
    async with linked("state_projector", settings) as links:
        projector = Projector(links.log, settings.postgres_dsn, count_events=EVENTS_PROJECTED.inc)
        COMMIT_PROJECTED.set_function(lambda: projector.folded)
        async with serving(links, settings, lambda: projector.is_ready):
            await projector.run(stop)
