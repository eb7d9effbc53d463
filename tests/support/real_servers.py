"""Real servers for the length of a block, and the settings of a service on them."""

import atexit
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from taskyard.embedded.nats_cluster import NatsCluster
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.nats_users import AGENTS_KEEPER, CONTROL_KEEPER, agents_user, control_user
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


def give_cluster(directory: Path) -> None:
    """Put into the folder of a PostgreSQL what its first start would make there: a copy costs a fifth of that.

    This one flushes nothing to disk: tests kill processes, and never the machine.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # Sparse: almost half of it is a log of zeros.
    subprocess.run(["cp", "--archive", "--sparse=always", _new_cluster(), directory], check=True)


@cache
def _new_cluster() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="taskyard-cluster-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    Postgres(directory).prepare()
    with (directory / "data" / "postgresql.conf").open("a") as settings:
        settings.write("fsync = off\n")
    return directory / "data"


def own_users(servers: NatsServer | NatsCluster, service: str) -> dict[str, str]:
    """The settings by which a service connects as itself, and may no more than it needs."""
    control, agents = control_user(service), agents_user(service)
    return {
        "control_user": control,
        "control_password": servers.password(control),
        "fleet_user": agents,
        "fleet_password": servers.password(agents),
    }


def service_settings(servers: NatsServer | NatsCluster, **more: Any) -> Settings:
    """The settings of who may do everything on this nats-server, or on these, and makes the streams."""
    clustered = isinstance(servers, NatsCluster)
    urls: dict[str, Any] = {
        "nats_urls": servers.urls if clustered else [servers.url],
        "nats_monitoring_urls": servers.monitor_urls if clustered else [servers.monitor_url],
    }
    return Settings(
        makes_streams=True,
        control_user=CONTROL_KEEPER,
        control_password=servers.password(CONTROL_KEEPER),
        fleet_user=AGENTS_KEEPER,
        fleet_password=servers.password(AGENTS_KEEPER),
        **(urls | more),
    )
