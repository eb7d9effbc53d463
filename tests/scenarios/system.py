"""The whole system in a temporary folder, driven only by what outside programs rely on: the command line, HTTP, NATS.

Used by the scenarios. Waiting is polling a condition with a deadline: nothing sleeps for luck.
"""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from gates import Gate
from real_servers import give_cluster

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 40.0
WAIT_SECONDS_MAX = 45.0
POLL_SECONDS = (0.01, 0.1)
"""How soon a condition is looked at again, at first and in the end: each look costs the system that is waited for some work."""
ENDED = frozenset({"completed", "failed", "timeout", "cancelled"})
LIVE = ("pending", "scheduled", "assigned", "dispatched", "running", "apply_pending", "cancelling")

PASSES = """
variable "n" { default = 1 }
resource "terraform_data" "it" { input = var.n }
output "n" { value = terraform_data.it.output }
"""
FAILS = """
variable "n" { default = 1 }
resource "terraform_data" "it" {
  input = 1
  lifecycle {
    precondition {
      condition     = var.n == 2
      error_message = "one is not two"
    }
  }
}
"""


class System:
    """One running system. `http` is authorised as `admin`."""

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 1,
        arguments: tuple[str, ...] = ("--separate",),
        environment: Mapping[str, str] | None = None,
        umask: int = -1,
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.gates: list[Gate] = []
        self.workers = workers
        self._umask = umask
        self._environment = {**os.environ, **(environment or {})}
        self._arguments = ("--data", str(self.data), "--workers", str(workers), *arguments)
        self._child: subprocess.Popen[str] | None = None
        self.http = httpx.Client(verify=False)

    # -- running -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, and wait for `ready`."""
        if not self.data.exists():
            give_cluster(self.data / "postgres")
        program = Path(sysconfig.get_path("scripts")) / "taskyard"
        self._child = subprocess.Popen(
            [program, "dev", "--http-port", "0", "--nats-port", "0", *self._arguments],
            stdout=subprocess.PIPE,
            stderr=sys.stderr,
            text=True,
            env=self._environment,
            umask=self._umask,
        )
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert line == "ready\n", f"{line!r}\n{self.logs()}"
        self.http.close()
        self.http = self._client(self.connection["admin_token"])

    def as_operator(self) -> httpx.Client:
        """A client of the principal `operator`."""
        return self.as_principal("operator")

    def as_principal(self, name: str) -> httpx.Client:
        """A client of a principal for whom `connection.json` has no token."""
        return self._client(json.loads((self.data / "credentials.json").read_text())["tokens"][name])

    def _client(self, token: str) -> httpx.Client:
        return httpx.Client(
            base_url=f"{self.connection['http_url']}/api/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=15,
            trust_env=False,
            verify=False,  # nothing is encrypted, and loading all certificates takes longer than most requests
        )

    def stop(self) -> int:
        """Stop cleanly; the exit status."""
        self.http.close()
        assert self._child is not None
        self._child.send_signal(signal.SIGTERM)
        status = self._child.wait(STOP_SECONDS_MAX)
        assert self._child.stdout is not None
        self._child.stdout.close()
        self._child = None
        return status

    def kill_everything(self) -> None:
        """`kill -9` of the supervisor and of everything that it started."""
        assert self._child is not None
        processes = set(self.connection["processes"].values())
        self._child.kill()
        self._child.wait(STOP_SECONDS_MAX)
        assert self._child.stdout is not None
        self._child.stdout.close()
        for pid in processes:
            _kill(pid, signal.SIGKILL)

    def kill(self, process: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to one process; its pid."""
        pid = self.connection["processes"][process]
        os.kill(pid, number)
        return pid

    @contextmanager
    def nobody_restarts(self) -> Iterator[None]:
        """The supervisor stands still: what is killed stays away until the end of the block."""
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._child.send_signal(signal.SIGCONT)

    @contextmanager
    def frozen(self, process: str) -> Iterator[None]:
        """A process stands still until the end of the block: to others it looks as if its host were gone.

        PostgreSQL's children stand still too. A worker's commands go on, as on a host whose agent alone is stuck.
        """
        pid = self.connection["processes"][process]
        pids = [pid, *_children(pid)] if process == "postgres" else [pid]
        for each in pids:
            os.kill(each, signal.SIGSTOP)
        try:
            yield
        finally:
            for each in pids:
                os.kill(each, signal.SIGCONT)

    def restarted(self, process: str, old_pid: int) -> None:
        """Wait until the supervisor has started a process anew."""
        self.until(lambda: self.connection["processes"][process] != old_pid, f"{process} is started again")

    @property
    def connection(self) -> dict[str, Any]:
        """What `connection.json` says now."""
        return json.loads((self.data / "connection.json").read_text())

    def logs(self) -> str:
        """The end of every log, for a failing test."""
        logs = sorted((self.data / "logs").glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-1500:]}" for log in logs)

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def submit(self, kind: str, **fields: Any) -> str:
        """Submit a task; its id, once it is accepted."""
        answer = self.http.post("/tasks", json={"kind": kind, **fields})
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def command(self, script: str, **fields: Any) -> str:
        """Submit a shell script."""
        return self.submit("command", input={"script": script}, **fields)

    def terraform(self, kind: str, directory: Path, queue: str, **fields: Any) -> str:
        """Submit a plan or a plan_and_apply."""
        auto_confirm = {"auto_confirm": True} if fields.pop("auto_confirm", False) else {}
        return self.submit(kind, queue=queue, input={"directory": str(directory), **auto_confirm}, **fields)

    def configuration(self, name: str, text: str = PASSES) -> Path:
        """A Terraform configuration in a folder of its own."""
        directory = self.folder / "terraform" / name
        directory.mkdir(parents=True)
        (directory / "main.tf").write_text(text)
        return directory

    def witnessed(self, name: str, before: str = "true") -> tuple[Path, Path]:
        """A configuration whose apply does `before` and then writes a line into a file, and that file."""
        witness = self.folder / f"{name}.applied"
        witness.touch()
        command = json.dumps(f"{before} && echo applied >> {witness}")
        text = f'resource "terraform_data" "it" {{\n  provisioner "local-exec" {{ command = {command} }}\n}}\n'
        return self.configuration(name, text), witness

    def slow_plan(self, name: str) -> tuple[Path, Gate]:
        """A configuration whose planning waits at a gate, and that gate."""
        gate = self.gate(name)
        text = f'resource "terraform_data" "it" {{ input = file("{gate.path}") }}\n'
        return self.configuration(name, text), gate

    def gate(self, name: str) -> Gate:
        """A closed gate; after the test it is opened at the latest."""
        gate = Gate(self.folder / f"{name}.gate")
        self.gates.append(gate)
        return gate

    def task(self, id: str) -> dict[str, Any]:
        """A task now; empty while the read model does not know it."""
        answer = self.http.get(f"/tasks/{id}")
        assert answer.status_code in {200, 404}, answer.text
        return answer.json() if answer.status_code == 200 else {}

    def wait(self, id: str, *statuses: str) -> dict[str, Any]:
        """The task once it has one of the statuses; fails when it ends with another."""
        seen: dict[str, Any] = {}

        def reached() -> bool:
            nonlocal seen
            seen = self.task(id)
            status = seen.get("status")
            assert status in statuses or status not in ENDED, f"{seen}\n{self.history(id)}"
            return status in statuses

        self.until(reached, lambda: f"{id} is {statuses}: {seen}")
        return seen

    def ended(self, id: str) -> dict[str, Any]:
        """The task once it has ended, however."""
        return self.wait(id, *ENDED)

    def waits(self, id: str, code: str) -> dict[str, Any]:
        """The task once it waits for the reason of that code."""
        seen: dict[str, Any] = {}

        def reached() -> bool:
            nonlocal seen
            seen = self.task(id)
            assert seen.get("status") not in ENDED, f"{seen}\n{self.history(id)}"
            return (seen.get("pending_reason") or {}).get("code") == code

        self.until(reached, lambda: f"{id} waits because of {code}: {seen}")
        return seen

    def act(self, id: str, verb: str, **body: Any) -> httpx.Response:
        """Command a task."""
        return self.http.post(f"/tasks/{id}/{verb}", json=body)

    def history(self, id: str) -> list[dict[str, Any]]:
        """The history of a task; empty while the read model does not know it."""
        answer = self.http.get(f"/tasks/{id}/history")
        assert answer.status_code in {200, 404}, answer.text
        return answer.json()["items"] if answer.status_code == 200 else []

    def types(self, id: str) -> list[str]:
        """The types of the events of a task that took effect."""
        return [item["type"] for item in self.history(id) if not item["void"]]

    def event(self, id: str, type: str) -> dict[str, Any]:
        """The last event of a type of a task that took effect."""
        return [item for item in self.history(id) if item["type"] == type and not item["void"]][-1]

    def output(self, id: str, **parameters: Any) -> str:
        """What a task has written so far."""
        answer = self.http.get(f"/tasks/{id}/output", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.text

    def written(self, id: str, lines: int = 1) -> list[str]:
        """The lines that a task has written, once there are as many."""
        # Its output may be asked for before the read model knows the task.
        self.until(lambda: bool(self.task(id)), f"{id} is known")
        self.until(lambda: self.output(id).count("\n") >= lines, f"{id} has written {lines} lines")
        return self.output(id).splitlines()

    def live(self) -> list[dict[str, Any]]:
        """Tasks of the workers' pool that have not ended."""
        answer = self.http.get("/tasks", params={"status": ",".join(LIVE), "pool": "default"})
        assert answer.status_code == 200, answer.text
        return answer.json()["items"]

    def slots(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Every slot of the workers that are there."""
        workers = self.http.get("/workers").json()["items"]
        return {(worker["id"], slot["id"]): slot for worker in workers for slot in worker["slots"]}

    def workers_active(self) -> int:
        """How many workers take tasks now."""
        return sum(worker["status"] == "active" for worker in self.http.get("/workers").json()["items"])

    def all_idle(self) -> None:
        """Wait until every slot is idle: nothing leaked."""
        self.until(lambda: all(slot["status"] == "idle" for slot in self.slots().values()), "every slot is idle")

    def at_rest(self) -> None:
        """Wait until every worker is active and every slot idle. Asked after each scenario, and so with one request."""

        def rests() -> bool:
            workers = self.http.get("/workers").json()["items"]
            active = [worker for worker in workers if worker["status"] == "active"]
            idle = all(slot["status"] == "idle" for worker in workers for slot in worker["slots"])
            return idle and len(active) == self.workers

        self.until(rests, "every worker is active and every slot idle")

    def until(self, condition: Callable[[], bool], what: str | Callable[[], str]) -> None:
        """Wait until a condition holds. The API may be away for a moment while something is killed."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        pause, longest = POLL_SECONDS
        while True:
            try:
                if condition():
                    return
            except (httpx.TransportError, KeyError):
                pass
            if time.monotonic() > deadline:
                text = what if isinstance(what, str) else what()
                raise AssertionError(f"it did not come about that {text}\n{self.logs()}")
            time.sleep(pause)
            pause = min(pause * 1.5, longest)


@contextmanager
def running(folder: Path, **options: Any) -> Iterator[System]:
    """A system that runs until the end of the block, and then stops with 0."""
    system = System(folder, **options)
    system.start()
    try:
        yield system
    finally:
        status = system.stop()
    assert status == 0


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
