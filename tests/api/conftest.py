"""One nats-server for all tests here, and a running service for each that asks for one."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from real_servers import nats_running
from running_api import USERS, World, running

from taskyard.embedded.nats_server import NatsServer


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_running(tmp_path_factory.mktemp("nats"), **USERS) as server:
        yield server


@pytest.fixture
async def world(nats_server: NatsServer) -> AsyncIterator[World]:
    async with running(nats_server) as world:
        yield world


@pytest.fixture
async def impatient(nats_server: NatsServer) -> AsyncIterator[World]:
    """A service whose doors wait for a verdict for a moment only."""
    async with running(nats_server, answer_seconds=0.1) as world:
        yield world
