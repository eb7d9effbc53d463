"""Real servers in temporary folders, stopped when the test ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.postgres import Postgres


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(
        tmp_path_factory.mktemp("nats"), clients=["admin", "bob"], viewers=["vera"], agents=["worker-1", "worker-2"]
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    server = Postgres(tmp_path / "postgres")
    server.start()
    yield server
    server.stop()
