"""The service that people read from, on a real nats-server, with a scheduler and a read model of its own."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "api"))

from left_over import Held, held_by
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
async def before(world: World) -> Held:
    """What is held while nobody reads."""
    return await held_by(world)
