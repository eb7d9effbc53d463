"""A real nats-server, and a dispatcher that speaks the protocol of agents to the agent under test, for several folders."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest
from nats.aio.client import Client

from taskyard.agent.app import run
from taskyard.agent.supervised import Supervised
from taskyard.contracts.agent_protocol import (
    AnyReport,
    AssignAnswer,
    Assignment,
    AssignReply,
    AssignRequest,
    Cancel,
    CancelRequest,
    Heartbeat,
    ReportBatch,
)
from taskyard.contracts.values import Instant, Position, TaskId, make_uuid7
from taskyard.settings import AgentSettings

ROOT = Path(__file__).parents[2]
AGENT = "w1"
DEADLINE_SECONDS = 20.0
NATS_SERVER = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or "nats-server"

CONFIG = """
host: 127.0.0.1
port: {port}
jetstream: {{ store_dir: "{store}", sync_interval: always }}
authorization {{ users: [
  {{ user: control, password: control }}
  {{ user: w1, password: secret, permissions: {{
      publish: ["taskyard.report.w1", "taskyard.heartbeat.w1", "taskyard.output.w1.>"]
      subscribe: ["taskyard.agent.w1.>", "_INBOX_w1.>"]
      allow_responses: {{ max: 1, expires: "1m" }} }} }}
] }}
"""


class Server:
    """One nats-server on one port for all of a test, with stops and starts in between."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self.config = folder / "nats.conf"
        self.config.write_text(CONFIG.format(port=self.port, store=folder / "nats"))
        self.log = folder / "nats.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([NATS_SERVER, "-c", str(self.config)], stdout=log, stderr=log)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    one = Server(tmp_path)
    one.start()
    yield one
    one.stop()
    assert "Violation" not in one.log.read_text(), "an agent does only what its permissions allow"


class Dispatcher:
    """What the control plane is to an agent."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.jetstream = client.jetstream()
        self.heartbeats: list[Heartbeat] = []
        self.positions = 1000
        self.tasks = 0

    @property
    def incarnation(self) -> str:
        return self.heartbeats[-1].incarnation

    def task(self) -> TaskId:
        self.tasks += 1
        return TaskId(make_uuid7(Instant(time.time_ns() // 1000), self.tasks))

    def assignment(self, kind: str, what: Any = None, **changes: Any) -> Assignment:
        self.positions += 1
        values: dict[str, Any] = {
            "position": Position(self.positions),
            "task": self.task(),
            "attempt": 1,
            "slot": 0,
            "incarnation": self.heartbeats[-1].incarnation if self.heartbeats else "r0",
            "kind": kind,
            "input": msgspec.Raw(msgspec.json.encode(what)),
            "timeout_seconds": 60.0,
            "repeatable": kind != "plan_and_apply",
        }
        return Assignment(**(values | changes))

    async def assign(
        self, *assignments: Assignment, incarnation: str | None = None, timeout_seconds: float = 5.0
    ) -> tuple[AssignAnswer, ...]:
        request = msgspec.json.encode(
            AssignRequest(incarnation=incarnation or self.incarnation, assignments=assignments)
        )
        reply = await self.client.request(f"taskyard.agent.{AGENT}.assign", request, timeout=timeout_seconds)
        return msgspec.json.decode(reply.data, type=AssignReply).answers

    async def cancel(self, assignment: Assignment, cause: str = "cancel", grace_seconds: float = 1.0) -> str:
        cancel = Cancel(
            position=assignment.position,
            task=assignment.task,
            attempt=assignment.attempt,
            slot=assignment.slot,
            cause=cause,
            grace_seconds=grace_seconds,
        )
        request = msgspec.json.encode(CancelRequest(incarnation=self.incarnation, cancels=(cancel,)))
        reply = await self.client.request(f"taskyard.agent.{AGENT}.cancel", request, timeout=5)
        return msgspec.json.decode(reply.data, type=AssignReply).answers[0].outcome

    async def messages(self, stream: str) -> list[Any]:
        state = (await self.jetstream.stream_info(stream)).state
        return [await self.jetstream.get_msg(stream, number) for number in range(1, state.last_seq + 1)]

    async def batches(self) -> list[ReportBatch]:
        return [msgspec.json.decode(one.data, type=ReportBatch) for one in await self.messages("TASKYARD_REPORTS")]

    async def reports(self, task: str | None = None) -> list[AnyReport]:
        return [
            report for batch in await self.batches() for report in batch.reports if task is None or report.task == task
        ]

    async def report(self, task: str, *types: type[AnyReport], count: int = 1) -> Any:
        """The last report of these types of a task, once there are `count`."""
        found: list[AnyReport] = []

        async def there() -> bool:
            found[:] = [one for one in await self.reports(task) if isinstance(one, types)]
            return len(found) >= count

        await until(there)
        return found[-1]

    async def output(self, task: str, stream: str = "stdout") -> bytes:
        """What the last attempt of the task wrote."""
        texts: dict[int, bytes] = {}
        for one in await self.messages("TASKYARD_OUTPUT"):
            if one.subject == f"taskyard.output.{AGENT}.{task}" and one.headers["Taskyard-Stream"] == stream:
                text = texts.setdefault(int(one.headers["Taskyard-Attempt"]), b"")
                assert int(one.headers["Taskyard-Offset"]) == len(text), "the chunks of a stream join without a gap"
                texts[int(one.headers["Taskyard-Attempt"])] = text + one.data
        return texts[max(texts)] if texts else b""


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = DEADLINE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.03)


@contextlib.asynccontextmanager
async def dispatcher_of(server: Server) -> AsyncIterator[Dispatcher]:
    async def quiet(error: Exception) -> None:
        pass

    client = await nats.connect(
        server.url,
        user="control",
        password="control",
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,
        error_cb=quiet,
    )
    dispatcher = Dispatcher(client)
    for name, subject in (("TASKYARD_REPORTS", "taskyard.report.*"), ("TASKYARD_OUTPUT", "taskyard.output.*.*")):
        await dispatcher.jetstream.add_stream(name=name, subjects=[subject])

    async def heard(message: Any) -> None:
        dispatcher.heartbeats.append(msgspec.json.decode(message.data, type=Heartbeat))

    await client.subscribe(f"taskyard.heartbeat.{AGENT}", cb=heard)
    try:
        yield dispatcher
    finally:
        await client.close()


def settings_for(server: Server, folder: Path, **changes: Any) -> AgentSettings:
    values: dict[str, Any] = {
        "nats_urls": [server.url],
        "name": AGENT,
        "password": "secret",
        "directory": str(folder / "agent"),
        "slots": [["any"]] * 4,
        "drain_seconds": 0.5,
        "terraform_roots": ["/"],
        "allow_root": True,
    }
    return AgentSettings(**(values | changes))


class RunningAgent:
    """An agent in this process."""

    def __init__(self, settings: AgentSettings) -> None:
        self._stop = asyncio.Event()
        self.task = asyncio.create_task(run(settings, self._stop))

    async def stop(self) -> None:
        self._stop.set()
        await self.task


@contextlib.asynccontextmanager
async def agent_of(dispatcher: Dispatcher, settings: AgentSettings) -> AsyncIterator[RunningAgent]:
    heard = len(dispatcher.heartbeats)
    agent = RunningAgent(settings)

    async def joined() -> bool:
        if agent.task.done():
            agent.task.result()
        return len(dispatcher.heartbeats) > heard

    await until(joined)
    try:
        yield agent
    finally:
        if not agent.task.done():
            await agent.stop()


async def end_supervisor(directory: Path) -> None:
    """End the supervisor of the agent in this folder with all that it runs, if there is one."""
    if not (directory / "supervisor" / "socket").exists():
        return
    supervised = Supervised(directory)
    await supervised.connect()
    await supervised.close(leave_running=False)

    async def gone() -> bool:
        return not (directory / "supervisor" / "socket").exists()

    await until(gone)


class AgentProcess:
    """An agent as a process of its own, to be killed."""

    def __init__(self, settings: AgentSettings, folder: Path) -> None:
        config = folder / "agent.json"
        config.write_bytes(msgspec.json.encode(settings))
        self.log = folder / "agent.log"
        ours = (str(ROOT / one) for one in ("services", "libs", "contracts"))
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), *ours)))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "taskyard.agent", "--config", str(config)],
                env=os.environ | {"PYTHONPATH": path},
                stderr=log,
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_SECONDS)


class Harness:
    """What scenarios need, in one place."""

    until = staticmethod(until)

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self._processes: list[AgentProcess] = []

    @staticmethod
    async def joined(dispatcher: Dispatcher) -> None:
        """Wait for the next heartbeat."""
        heard = len(dispatcher.heartbeats)

        async def more() -> bool:
            return len(dispatcher.heartbeats) > heard

        await until(more)

    def settings(self, **changes: Any) -> AgentSettings:
        return settings_for(self.server, self.folder, **changes)

    def run(self, scenario: Callable[[Dispatcher], Awaitable[None]]) -> None:
        """A scenario with a dispatcher."""

        async def main() -> None:
            async with dispatcher_of(self.server) as dispatcher:
                await scenario(dispatcher)

        asyncio.run(main())

    def run_with_agent(self, scenario: Callable[[Dispatcher], Awaitable[None]], **changes: Any) -> None:
        """A scenario with a dispatcher and an agent in this process."""

        async def with_agent(dispatcher: Dispatcher) -> None:
            async with agent_of(dispatcher, self.settings(**changes)):
                await scenario(dispatcher)

        self.run(with_agent)

    def agent(self, dispatcher: Dispatcher, **changes: Any) -> Any:
        """An agent in this process, for an `async with`."""
        return agent_of(dispatcher, self.settings(**changes))

    def process(self, **changes: Any) -> AgentProcess:
        """An agent as a process of its own."""
        agent = AgentProcess(self.settings(**changes), self.folder)
        self._processes.append(agent)
        return agent

    def hand_over(self) -> "subprocess.CompletedProcess[str]":
        """Ask the agent that runs as a process to hand over."""
        ours = (str(ROOT / one) for one in ("services", "libs", "contracts"))
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), *ours)))
        return subprocess.run(
            [sys.executable, "-m", "taskyard.agent", "--hand-over", "--config", str(self.folder / "agent.json")],
            env=os.environ | {"PYTHONPATH": path},
            check=False,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
        )

    def close(self) -> None:
        """Kill what a test that failed has left."""
        for agent in self._processes:
            agent.kill()
        asyncio.run(end_supervisor(self.folder / "agent"))


@pytest.fixture
def harness(server: Server, tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(server, tmp_path)
    yield harness
    harness.close()
