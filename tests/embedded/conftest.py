"""Real servers in temporary folders, stopped when the test ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_servers import nats_running, postgres_running

from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.postgres import Postgres


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    users = {"clients": ["admin", "bob"], "viewers": ["vera"], "agents": ["worker-1", "worker-2"]}
    with nats_running(tmp_path_factory.mktemp("nats"), **users) as server:
        yield server


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    with postgres_running(tmp_path / "postgres") as server:
        yield server
