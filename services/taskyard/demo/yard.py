"""A running system, talked to as any program from outside would."""

import asyncio
import json
import os
import signal
import sysconfig
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from taskyard.bench.command_line import uninterrupted
from taskyard.private_files import make_folder, write_private

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 40.0
STEP_SECONDS_MAX = 60.0
REQUEST_SECONDS_MAX = 10.0
POLL_SECONDS = 0.1
ENDED = frozenset({"completed", "failed", "timeout", "cancelled"})


class Unexpected(Exception):
    """A step did not come about; the message says what was seen."""


class Yard:
    """The system's doors. `tasks` are the tasks of the story by the name that the story gives them."""

    def __init__(self, folder: Path, http: httpx.AsyncClient) -> None:
        self.tasks: dict[str, str] = {}
        self._folder = folder
        self._http = http

    async def submit(self, name: str, kind: str, task_input: dict[str, Any], **fields: Any) -> None:
        """Submit a task under a name of the story."""
        answer = await self._http.post("/tasks", json={"kind": kind, "input": task_input, **fields})
        self.tasks[name] = answer.raise_for_status().json()["id"]

    async def act(self, name: str, verb: str, **body: str) -> None:
        """Command a task."""
        (await self._http.post(f"/tasks/{self.tasks[name]}/{verb}", json=body)).raise_for_status()

    async def see(self, name: str) -> dict[str, Any]:
        """The task as it is now; only its status `unknown` while nobody can tell."""
        try:
            answer = await self._http.get(f"/tasks/{self.tasks[name]}")
        except httpx.TransportError:
            return {"status": "unknown"}
        return answer.json() if answer.is_success else {"status": "unknown"}

    async def reach(self, name: str, status: str) -> dict[str, Any]:
        """Wait until the task has the status.

        Raises:
            Unexpected: it ended with another, or did not come about in time.
        """
        task: dict[str, Any] = {}
        try:
            async with asyncio.timeout(STEP_SECONDS_MAX):
                while (task := await self.see(name))["status"] != status:
                    if task["status"] in ENDED:
                        raise Unexpected(f"{name} should be {status}, but is {json.dumps(task)}")
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            message = f"{name} was not {status} within {STEP_SECONDS_MAX:.0f} s: {json.dumps(task)}"
            raise Unexpected(message) from error
        return task

    async def history(self, name: str) -> list[dict[str, Any]]:
        """The events of a task."""
        answer = await self._http.get(f"/tasks/{self.tasks[name]}/history")
        return answer.raise_for_status().json()["items"]

    async def output(self, name: str) -> str:
        """What the task has said until now."""
        return (await self._http.get(f"/tasks/{self.tasks[name]}/output")).text

    async def kill(self, process: str) -> None:
        """`kill -9` of one process; the supervisor starts it again."""
        os.kill(_connection(self._folder)["processes"][process], signal.SIGKILL)

    def configuration(self, name: str, text: str) -> str:
        """A Terraform configuration in a folder of its own."""
        folder = self._folder / "terraform" / name
        make_folder(folder)
        write_private(folder / "main.tf", text.encode())
        return str(folder)


@asynccontextmanager
async def yard(said: Callable[[str], None]) -> AsyncIterator[Yard]:
    """A system with one worker, each service a process of its own, in a temporary folder. `said` hears what it says.

    Raises:
        Unexpected: it did not start, or did not end cleanly.
    """
    with tempfile.TemporaryDirectory(prefix="taskyard-demo-") as name:
        folder = Path(name)
        program = Path(sysconfig.get_path("scripts")) / "taskyard"
        arguments = ("dev", "--data", name, "--http-port", "0", "--nats-port", "0", "--separate")
        child = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the demo alone, which then stops the system
        )
        hearing = asyncio.create_task(_hear(child.stderr, said))
        try:
            await _until_ready(child)
            connection = _connection(folder)
            async with httpx.AsyncClient(
                base_url=f"{connection['http_url']}/api/v1",
                headers={"Authorization": f"Bearer {connection['admin_token']}"},
                timeout=REQUEST_SECONDS_MAX,
                trust_env=False,
            ) as http:
                yield Yard(folder, http)
        finally:
            with uninterrupted():
                status = await _stop(child)
                await hearing
        if status:
            raise Unexpected(f"the system ended with {status}")


async def _until_ready(child: Process) -> None:
    assert child.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS_MAX):
            if await child.stdout.readline() != b"ready\n":
                raise Unexpected("the system ended before it was ready")
    except TimeoutError as error:
        raise Unexpected(f"the system was not ready within {START_SECONDS_MAX:.0f} s") from error


async def _stop(child: Process) -> int:
    """Ask the system to stop, and end it if it does not; its exit status."""
    if child.returncode is None:
        child.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_SECONDS_MAX):
            return await child.wait()
    except TimeoutError:
        child.kill()
        return await child.wait()


async def _hear(speech: asyncio.StreamReader | None, said: Callable[[str], None]) -> None:
    assert speech is not None
    async for line in speech:
        said(line.decode(errors="replace").rstrip())


def _connection(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "connection.json").read_text(encoding="utf-8"))
