"""The API while the projector or PostgreSQL is away, all of them real processes: what it answers, and how soon."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from taskyard.api.health import LAG_SECONDS_MAX
from taskyard.contracts.events import TaskScheduled
from taskyard.embedded.postgres import Postgres
from taskyard.eventlog.commit import Commit
from taskyard.service import linked
from taskyard.settings import Settings

SECONDS_MAX = 50.0
SOON_SECONDS = 6.0
"""Well below the 10 s that a query may take; the service itself takes 2.5 s to learn that PostgreSQL stands still."""
AT_ONCE_SECONDS = 3.0
TOKEN = "admin-token"
LEASE_SECONDS = 1.0


class Yard:
    """An API and a projector as processes, and the log that they read."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = msgspec.structs.replace(settings, health_port=None, lease_seconds=LEASE_SECONDS)
        self._file = folder / "settings.json"
        self._file.write_bytes(msgspec.json.encode(self.settings))
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, service: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", f"taskyard.{service}", "--config", str(self._file)]
        child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._children.append(child)
        return child

    def stop(self) -> None:
        for child in self._children:
            child.kill()
            child.wait()

    async def append(self, story: Any, *events: Any) -> int:
        """Append a commit to the real log; its sequence."""
        async with linked("test", self.settings) as links:
            last = await links.log.last("scheduler")
            commit: Commit[Any] = Commit(writer="scheduler", instance="test", epoch=1, at=story.now, events=events)
            expected = last.sequence if last else 0
            return await links.log.append(story.codec.encode(commit), writer="scheduler", expected=expected)


@pytest.fixture
def yard(settings: Settings, tmp_path: Path) -> Iterator[Yard]:
    yard = Yard(settings, tmp_path)
    yield yard
    yard.stop()


@asynccontextmanager
async def reading(yard: Yard) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{yard.settings.http_port}",
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=20,
        trust_env=False,
    ) as http:
        yield http


async def shown(http: httpx.AsyncClient) -> int:
    """Up to which commit an answer is; -1 while there is none."""
    with suppress(httpx.TransportError):
        answer = await http.get("/api/v1/tasks")
        if answer.status_code == 200:
            return int(answer.headers["Taskyard-Position"].partition(".")[0])
    return -1


async def until_shown(http: httpx.AsyncClient, sequence: int) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while await shown(http) < sequence:
            await asyncio.sleep(0.02)


async def until_ready_is(http: httpx.AsyncClient, status: int) -> dict[str, Any]:
    async with asyncio.timeout(SECONDS_MAX):
        while (answer := await http.get("/readyz")).status_code != status:
            await asyncio.sleep(0.1)
    return answer.json()


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *map(int, children)]


def test_without_the_projector_the_last_state_is_read_with_its_position(story: Any, yard: Yard, run: Any) -> None:
    task = story.submit()
    submitted = story.codec.decode(story.stream.after(0)[0].data).events

    async def scenario() -> None:
        projector = yard.start("state_projector")
        yard.start("api")
        first = await yard.append(story, *submitted)
        async with reading(yard) as http:
            await until_shown(http, first)
            assert (await until_ready_is(http, 200))["projection_lag_seconds"] == 0.0

            with frozen(projector.pid):
                second = await yard.append(story, TaskScheduled(task=task))
                answer = await http.get(f"/api/v1/tasks/{task}")
                assert (answer.status_code, answer.json()["status"]) == (200, "pending")
                assert answer.headers["Taskyard-Position"].startswith(f"{first}.")
                behind = await until_ready_is(http, 503)
                assert behind["projection_lag_commits"] == second - first
                assert behind["projection_lag_seconds"] > LAG_SECONDS_MAX
                assert behind["reasons"].keys() == {"projection"}
                metrics = (await http.get("/metrics")).text.splitlines()
                assert f"taskyard_projection_lag_commits {second - first:.1f}" in metrics
                lag = next(line for line in metrics if line.startswith("taskyard_projection_lag_seconds "))
                assert float(lag.partition(" ")[2]) > LAG_SECONDS_MAX
            await until_shown(http, second)
            await until_ready_is(http, 200)

            projector.kill()
            projector.wait()
            third = await yard.append(story)
            assert await shown(http) == second
            yard.start("state_projector")
            await until_shown(http, third)

    run(scenario())


def test_a_postgresql_that_stands_still_is_told_soon(story: Any, yard: Yard, run: Any, server: Postgres) -> None:
    async def scenario() -> None:
        yard.start("state_projector")
        yard.start("api")
        first = await yard.append(story)
        async with reading(yard) as http:
            await until_shown(http, first)
            assert server.pid is not None
            with frozen(*family(server.pid)):
                for path, seconds_max in (("/tasks", SOON_SECONDS), ("/workers", AT_ONCE_SECONDS)):
                    begun = time.monotonic()
                    answer = await http.get(f"/api/v1{path}")
                    assert time.monotonic() - begun < seconds_max, path
                    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
                    assert answer.json()["detail"] == "PostgreSQL is away; try again"
                    assert answer.headers["Taskyard-Position"].startswith(f"{first}.")
            second = await yard.append(story)
            await until_shown(http, second)

    run(scenario())
