"""Real servers for the length of a block, and the settings of a service on them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taskyard.embedded.nats_server import FLEET_USER, SERVICE_USER, NatsServer
from taskyard.embedded.postgres import Postgres
from taskyard.settings import Settings


@contextmanager
def nats_running(directory: Path, **users: list[str]) -> Iterator[NatsServer]:
    """A nats-server with these `clients`, `viewers` and `agents`."""
    server = NatsServer(directory, **users)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def postgres_running(directory: Path) -> Iterator[Postgres]:
    """A PostgreSQL."""
    server = Postgres(directory)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def service_settings(server: NatsServer, **more: Any) -> Settings:
    """The settings of a service on this nats-server."""
    return Settings(
        nats_urls=[server.url],
        nats_monitoring_urls=[server.monitor_url],
        control_user=SERVICE_USER,
        control_password=server.password(SERVICE_USER),
        fleet_user=FLEET_USER,
        fleet_password=server.password(FLEET_USER),
        **more,
    )
