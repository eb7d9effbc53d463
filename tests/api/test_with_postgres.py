"""The program as it runs: real PostgreSQL, the real projector beside it, and a log that a test writes."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from real_servers import postgres_running
from running_api import World, settings_for, until_ready

from taskyard.api.app import run
from taskyard.api.clock import make_id
from taskyard.contracts.events import TaskScheduled, TaskSubmitted
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.postgres import Postgres
from taskyard.service import linked
from taskyard.settings import Settings
from taskyard.state_projector.app import run as run_projector
from taskyard.state_projector.rebuild import rebuild

pytestmark = pytest.mark.anyio

SECONDS_MAX = 30.0


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    # Not in pytest's own folder: each pytest that starts closes that to other users, and as root PostgreSQL is one.
    with tempfile.TemporaryDirectory(prefix="taskyard-test-") as directory, postgres_running(Path(directory)) as server:
        yield server


async def until(check, seconds_max: float = SECONDS_MAX) -> None:
    """Poll until the check holds."""
    async with asyncio.timeout(seconds_max):
        while not await check():
            await asyncio.sleep(0.05)


def submitted(task: str, **fields) -> TaskSubmitted:
    common = {"kind": "noop", "pool": "default", "queue": "q", "by": "admin", "digest": "d", "timeout_seconds": 1.0}
    return TaskSubmitted(task=task, input=msgspec.Raw(b"{}"), **{**common, **fields})


async def test_what_the_log_tells_is_read_over_http(tmp_path: Path, postgres: Postgres):
    server = NatsServer(tmp_path / "nats", clients=["admin", "oscar"], viewers=["vera"])
    server.start()
    settings = settings_for(server, postgres_dsn=postgres.dsn)
    stop = asyncio.Event()
    try:
        async with linked("test", settings) as links, asyncio.TaskGroup() as group:
            serving = group.create_task(run(settings, stop))
            world = World(server, links.control_client, links, f"http://127.0.0.1:{settings.http_port}")
            await until_ready(world, serving)
            async with world.http() as http, world.http("oscar") as oscar:
                # The tables are made by the projector: until then reading is 503 and says so.
                assert (await http.get("/api/v1/tasks")).status_code == 503
                group.create_task(run_projector(settings, stop))

                async def is_read() -> bool:
                    return (await http.get("/api/v1/tasks")).status_code == 200

                await until(is_read)
                await read_everything(world, http, oscar)
                postgres.stop()
                assert (await http.get("/api/v1/tasks")).status_code == 503
                assert (await http.get("/readyz")).status_code == 503
                assert (await http.get("/healthz")).status_code == 200
                postgres.start()
                await until(is_read)
            stop.set()
    finally:
        server.stop()


async def read_everything(world: World, http, oscar) -> None:
    own, other = make_id(), make_id()
    sequence = await world.append(submitted(other, labels={"team": "net"}), submitted(own, by="oscar", priority=2))
    sequence = await world.append(TaskScheduled(task=other))
    task = await http.get(f"/api/v1/tasks/{other}?after={sequence}.0")
    assert task.status_code == 200
    assert task.json()["status"] == "scheduled"
    assert int(task.headers["Taskyard-Position"].partition(".")[0]) >= sequence
    history = (await http.get(f"/api/v1/tasks/{other}/history")).json()["items"]
    assert [item["type"] for item in history] == ["TaskSubmitted", "TaskScheduled"]
    listed = (await http.get("/api/v1/tasks?label=team:net&status=scheduled")).json()["items"]
    assert [item["id"] for item in listed] == [other]
    first = (await http.get("/api/v1/tasks?limit=1&sort=priority")).json()
    assert first["items"][0]["id"] == own
    second = (await http.get(f"/api/v1/tasks?limit=1&sort=priority&cursor={first['next_cursor']}")).json()
    assert second["items"][0]["id"] == other
    assert [item["id"] for item in (await oscar.get("/api/v1/tasks")).json()["items"]] == [own]
    assert (await oscar.get(f"/api/v1/tasks/{other}")).status_code == 404
    for path in ("workers", "queues", "pools", "stats"):
        assert (await http.get(f"/api/v1/{path}")).status_code == 200
    assert (await http.get("/readyz")).json()["ready"] is True
    for query in ("sort=colour", "cursor=nonsense", "cursor=%F0%9F%98%80", "cursor=" + "A" * 500):
        assert (await http.get(f"/api/v1/tasks?{query}")).status_code == 422
    strange = await http.get("/api/v1/tasks?queue=%F0%9F%98%80%27;--&label=%22:%5C&submitted_by=%ff")
    assert (strange.status_code, strange.json()["items"]) == (200, [])


async def test_a_read_model_of_another_log_is_told_and_gone_on_with_once_it_was_rebuilt(
    tmp_path: Path, postgres: Postgres
):
    """The log is lost and made anew while the service runs: it is not restarted."""
    server = NatsServer(tmp_path / "nats", clients=["admin", "oscar"], viewers=["vera"])
    server.start()
    settings = settings_for(server, postgres_dsn=postgres.dsn)
    stop = asyncio.Event()
    moved, lost = make_id(), make_id()
    try:
        async with asyncio.TaskGroup() as group:
            async with linked("test", settings) as links:
                serving = group.create_task(run(settings, stop))
                world = World(server, links.control_client, links, f"http://127.0.0.1:{settings.http_port}")
                await until_ready(world, serving)
                await world.append(submitted(moved, queue="before"), submitted(lost))
                for _ in range(8):
                    last = await world.append()
                await _project(settings, world, last)
                async with world.http() as http:
                    assert (await http.get(f"/api/v1/tasks/{moved}?at={last}")).json()["queue"] == "before"
                    assert (await http.get("/readyz")).json()["ready"]
            server.stop()
            shutil.rmtree(tmp_path / "nats" / "store")
            server.start()
            async with linked("test", settings) as links, world.http() as http:
                world = World(server, links.control_client, links, world.url)
                await world.append(submitted(moved, queue="after"))

                async def is_told() -> bool:
                    return "of another log" in (await http.get("/readyz")).json()["reasons"].get("projection", "")

                await until(is_told)
                at_once = (await http.get(f"/api/v1/tasks/{moved}?at=1")).json()
                assert at_once["queue"] == "after", "the past is that of the log"
                await rebuild(links.log, settings.postgres_dsn, verify_only=False, other_log=True)

                async def is_ready() -> bool:
                    return (await http.get("/readyz")).json()["ready"]

                await until(is_ready)
                assert (await http.get(f"/api/v1/tasks/{moved}")).json()["queue"] == "after"
                assert (await http.get(f"/api/v1/tasks/{lost}")).status_code == 404
                listed = (await http.get("/api/v1/tasks?at=1")).json()
                assert [item["id"] for item in listed["items"]] == [moved]
                behind = asyncio.create_task(http.get(f"/api/v1/tasks?after={last}"))
                for _ in range(last - 1):
                    await world.append()
                await asyncio.wait((behind,), timeout=0.2)
                assert not behind.done(), "that the former rows had such a commit does not count"
                await _project(settings, world, last)
                assert (await behind).status_code == 200
            stop.set()
    finally:
        server.stop()


async def _project(settings: Settings, world: World, sequence: int) -> None:
    """Bring the read model to a commit."""
    stop = asyncio.Event()
    projecting = asyncio.create_task(run_projector(settings, stop))
    async with world.http() as http:

        async def is_there() -> bool:
            found = await http.get("/api/v1/tasks")
            return found.status_code == 200 and int(found.headers["Taskyard-Position"].partition(".")[0]) >= sequence

        await until(is_there)
    stop.set()
    await projecting
