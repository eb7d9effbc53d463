"""The whole system at work on this machine, in a temporary folder: `python -m taskyard.dev.demo`.

A command runs; a Terraform change is planned, waits for a person, survives that everything which decides is killed, is
confirmed and applied. Only the HTTP API is used, as by any program outside. Ends with 0 if all of it happened.
"""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

STEP_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
REQUEST_SECONDS_MAX = 10.0
POLL_SECONDS = 0.1
ENDED = frozenset({"completed", "failed", "timeout", "cancelled"})

TERRAFORM = """
variable "size" { type = number }

resource "terraform_data" "machine" { input = var.size }

output "size" { value = terraform_data.machine.output }
"""


class Unexpected(Exception):
    """A step did not end as it should; the message says what was seen."""


def main() -> int:
    """Run the demonstration and return its exit status."""
    with tempfile.TemporaryDirectory(prefix="taskyard-demo-") as folder:
        configuration = Path(folder) / "terraform"
        configuration.mkdir()
        (configuration / "main.tf").write_text(TERRAFORM, encoding="utf-8")
        data = Path(folder) / "data"
        _say("starting nats-server, PostgreSQL, five services and a worker")
        with _system(data), _api(data) as api:
            _show_command(api)
            _show_change(api, data, configuration)
    return 0


@contextmanager
def _system(data: Path) -> Iterator[None]:
    program = Path(sysconfig.get_path("scripts")) / "taskyard"
    arguments = ("dev", "--data", str(data), "--http-port", "0", "--nats-port", "0", "--separate")
    child = subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        if child.stdout.readline() != "ready\n":
            message = f"the system ended with {child.wait()} before it was ready"
            raise Unexpected(message)
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(STOP_SECONDS_MAX)


@contextmanager
def _api(data: Path) -> Iterator[httpx.Client]:
    connection = _connection(data)
    headers = {"Authorization": f"Bearer {connection['admin_token']}"}
    with httpx.Client(
        base_url=f"{connection['http_url']}/api/v1", headers=headers, timeout=REQUEST_SECONDS_MAX, trust_env=False
    ) as api:
        yield api


def _show_command(api: httpx.Client) -> None:
    task = _submit(api, {"kind": "command", "input": {"argv": ["uname", "-sr"]}})
    _expect(api, task, "completed")
    output = api.get(f"/tasks/{task}/output").raise_for_status().text
    _say(f"a command ran on the worker and said: {output.strip()}")


def _show_change(api: httpx.Client, data: Path, configuration: Path) -> None:
    change = {"directory": str(configuration), "variables": {"size": 3}}
    task = _submit(api, {"kind": "plan_and_apply", "queue": "demo", "input": change})
    shown = _expect(api, task, "apply_pending")
    _say(f"Terraform planned {shown['result']['changes']}; it waits for a person")

    pids = _connection(data)["processes"]
    deciding = ("scheduler", "slot_allocator", "dispatcher")
    for name in deciding:
        os.kill(pids[name], signal.SIGKILL)
    _say(f"killed {', '.join(deciding)} with the change half done; each comes back from the log")

    api.post(f"/tasks/{task}/confirm", json={"comment": "looks right"}).raise_for_status()
    shown = _expect(api, task, "completed")
    _say(f"confirmed and applied, outputs: {json.dumps(shown['result']['outputs'])}")
    history = api.get(f"/tasks/{task}/history").raise_for_status().json()["items"]
    _say(f"its history: {' → '.join(event['type'] for event in history)}")


def _submit(api: httpx.Client, task: dict[str, Any]) -> str:
    return api.post("/tasks", json=task).raise_for_status().json()["id"]


def _expect(api: httpx.Client, task: str, status: str) -> dict[str, Any]:
    """Wait until the task has the status, and return the task. Raises `Unexpected`."""
    deadline = time.monotonic() + STEP_SECONDS_MAX
    while True:
        answer = api.get(f"/tasks/{task}")
        # Right after its submission the read model may not know the task yet.
        shown = answer.raise_for_status().json() if answer.status_code != 404 else {"status": "unknown"}
        if shown["status"] == status:
            return shown
        if shown["status"] in ENDED or time.monotonic() > deadline:
            message = f"task {task} should be {status}, but is {json.dumps(shown)}"
            raise Unexpected(message)
        time.sleep(POLL_SECONDS)


def _connection(data: Path) -> dict[str, Any]:
    return json.loads((data / "connection.json").read_text(encoding="utf-8"))


def _say(text: str) -> None:
    print(f"· {text}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Unexpected, httpx.HTTPError) as error:
        sys.exit(f"demo: {error}")
