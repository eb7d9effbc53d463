"""Two real nats-servers with nothing in them."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "golden_histories"))
sys.path.insert(0, str(Path(__file__).parent.parent / "scenarios"))

from log_servers import Server


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    """Starts a nats-server in a folder of its own, with nothing in it."""
    started: list[Server] = []

    def start(name: str) -> Server:
        server = Server(tmp_path / name)
        server.nats.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.nats.stop()


@pytest.fixture
def server(start_server: Callable[[str], Server]) -> Server:
    return start_server("first")


@pytest.fixture
def other(start_server: Callable[[str], Server]) -> Server:
    return start_server("other")
