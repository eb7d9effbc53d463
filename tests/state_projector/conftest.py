"""A log in memory and a real PostgreSQL: one server for all tests here, one database for each."""

import asyncio
import importlib.util
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from real_servers import give_cluster, nats_running, postgres_running, service_settings

from taskyard.contracts.values import Instant
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.postgres import Postgres
from taskyard.embedded.processes import free_port
from taskyard.eventlog.leases import MemoryLease, MemoryLeases
from taskyard.settings import Principal, Role, Settings
from taskyard.state_projector.projector import Projector

sys.path.insert(0, str(Path(__file__).parent))

WAIT_SECONDS_MAX = 20.0
LEASE_SECONDS = 0.3
TOKEN = "admin-token"


def _load_story() -> Any:
    spec = importlib.util.spec_from_file_location("taskyard_test_story", Path(__file__).with_name("story.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tales = _load_story()


@pytest.fixture
def story() -> Any:
    return tales.Story()


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    # Not in pytest's own folder: each pytest that starts closes that to other users, and as root PostgreSQL is one.
    with tempfile.TemporaryDirectory(prefix="taskyard-test-") as directory:
        give_cluster(Path(directory))
        with postgres_running(Path(directory)) as server:
            yield server


@pytest.fixture
def dsn(server: Postgres) -> Iterator[str]:
    """An empty database."""
    name = f"test_{uuid4().hex}"
    asyncio.run(_administer(server, f'CREATE DATABASE "{name}"'))
    yield server.dsn.replace("@/postgres?", f"@/{name}?")
    asyncio.run(_administer(server, f'DROP DATABASE "{name}" WITH (FORCE)'))


async def _administer(server: Postgres, statement: str) -> None:
    connection = await asyncpg.connect(server.dsn)
    await connection.execute(statement)
    await connection.close()


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a test's coroutine with a limit of time."""

    async def limited(coroutine: Awaitable[Any]) -> Any:
        async with asyncio.timeout(60):
            return await coroutine

    return lambda coroutine: asyncio.run(limited(coroutine))


async def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not is_so():
            await asyncio.sleep(0.005)


def make_projector(log: Any, dsn: str, leases: MemoryLeases | None = None, instance: str = "one") -> Projector:
    """A projector that leads, or one of several that share leases."""
    lease = MemoryLease(leases or MemoryLeases(lambda: Instant(0)), "state_projector")
    return Projector(log, dsn, lease=lease, lease_seconds=LEASE_SECONDS, instance=instance)


@asynccontextmanager
async def projecting(log: Any, dsn: str) -> AsyncIterator[Projector]:
    """A projector that runs."""
    projector, stop = make_projector(log, dsn), asyncio.Event()
    running = asyncio.create_task(projector.run(stop))
    try:
        yield projector
    finally:
        stop.set()
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            await running


@pytest.fixture
def project(dsn: str) -> Callable[[Any], Awaitable[None]]:
    """Brings the read model to the end of a story's log."""

    async def run_to_head(story: Any) -> None:
        async with projecting(story.log, dsn) as projector:
            await wait_until(lambda: projector.folded == story.head)

    return run_to_head


@pytest.fixture
def start_projector(dsn: str) -> Callable[[Any], Any]:
    return lambda story: projecting(story.log, dsn)


@pytest.fixture
def projector_of() -> Callable[..., Projector]:
    return make_projector


@pytest.fixture
def wait() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    return wait_until


@pytest.fixture
def unused_port() -> int:
    return free_port()


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_running(tmp_path / "nats", clients=["admin"]) as server:
        yield server


@pytest.fixture
def settings(nats_server: NatsServer, dsn: str, unused_port: int) -> Settings:
    """Of services on servers of their own. The API and the projector each serve at `http_port`: run one there."""
    return service_settings(
        nats_server,
        postgres_dsn=dsn,
        http_port=unused_port,
        principals=[Principal(name="admin", role=Role.ADMIN, token_sha256=sha256(TOKEN.encode()).hexdigest())],
        health_port=unused_port,
    )
