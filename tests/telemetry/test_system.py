"""A real system tells traces to a real collector, metrics to whoever scrapes, and logs as JSON lines."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SECONDS_MAX = 40.0
GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NAMES = {"command.submit", "task", "task.queued", "task.placed", "task.dispatched", "task.attempt", "agent.run"}
SHOWN = Path(__file__).parents[2] / "docs" / "telemetry.md"


class Collector:
    """Takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """What a test provokes is no news."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, data: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(data)
        for resource in request.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            self.spans += [(service, s.name, s.trace_id.hex()) for scope in resource.scope_spans for s in scope.spans]

    def of(self, trace_id: str) -> dict[str, str]:
        """The service of each span of a trace, by the span's name."""
        return {name: service for service, name, trace in self.spans if trace == trace_id}


class System:
    """`taskyard dev` with every service in one process, traced."""

    def __init__(self, data: Path, collector: Collector) -> None:
        self.data, self.collector = data, collector
        connection: dict[str, Any] = json.loads((data / "connection.json").read_text())
        headers = {"Authorization": f"Bearer {connection['admin_token']}"}
        self.http = httpx.Client(base_url=connection["http_url"], headers=headers, timeout=10, trust_env=False)

    def run_task(self, **headers: str) -> str:
        body = {"kind": "command", "input": {"argv": ["true"]}}
        id = self.http.post("/api/v1/tasks", json=body, headers=headers).raise_for_status().json()["id"]
        until(lambda: self.http.get(f"/api/v1/tasks/{id}").json().get("status") == "completed")
        return id

    def log_lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.data / "logs" / f"{name}.log").read_text().splitlines()]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    collector = Collector()
    thread = Thread(target=collector.server.serve_forever)
    thread.start()
    data = tmp_path_factory.mktemp("telemetry") / "data"
    environment = {
        "TASKYARD_TELEMETRY": "true",
        "TASKYARD_OTLP_ENDPOINT": collector.url,
        "TASKYARD_LOG_LEVEL": "debug",
    }
    program = Path(sysconfig.get_path("scripts")) / "taskyard"
    child = subprocess.Popen(
        [program, "dev", "--data", str(data), "--workers", "1", "--http-port", "0", "--nats-port", "0"],
        stdout=subprocess.PIPE,
        stderr=sys.stderr,
        text=True,
        env={**os.environ, **environment},
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "ready\n"
        running = System(data, collector)
        yield running
        running.http.close()
    finally:
        child.send_signal(signal.SIGTERM)
        status = child.wait(SECONDS_MAX)
        child.stdout.close()
        collector.server.shutdown()
        thread.join()
        collector.server.server_close()
    assert status == 0


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_trace_of_an_http_request_goes_on_to_the_agent(system: System) -> None:
    system.run_task(traceparent=GIVEN)
    trace = GIVEN.split("-")[1]
    until(lambda: system.collector.of(trace).keys() == NAMES)
    services = {"api", "scheduler", "slot_allocator", "dispatcher", "agent"}
    assert set(system.collector.of(trace).values()) == {f"taskyard-{service}" for service in services}


def test_a_task_without_a_context_is_found_under_its_id(system: System) -> None:
    task = system.run_task()
    until(lambda: system.collector.of(task.replace("-", "")).keys() == NAMES)


def rows_of(text: str) -> list[str]:
    """The rows of the documented table that a scrape shows: name, type, labels, and what it is."""
    helps = dict(re.findall(r"^# HELP (taskyard_\w+) (.*)$", text, re.MULTILINE))
    types = dict(re.findall(r"^# TYPE (taskyard_\w+) (\w+)$", text, re.MULTILINE))
    labels: dict[str, list[str]] = {}
    for name, found in re.findall(r"^(taskyard_\w+?)(?:_bucket)?(?:{(.*)})? ", text, re.MULTILINE):
        labels.setdefault(name, [label for label in re.findall(r"(\w+)=", found) if label != "le"])
    return sorted(
        f"| `{name}` | {types[name]} | {', '.join(labels.get(name, [])) or '-'} | {helps[name]} |" for name in types
    )


def documented() -> list[str]:
    return sorted(line for line in SHOWN.read_text().splitlines() if line.startswith("| `taskyard_"))


def test_metrics_bear_every_documented_name(system: System) -> None:
    system.run_task()
    refused = system.http.post("/api/v1/tasks/0199f3c2-0000-7000-8000-000000000000/cancel", json={})
    assert refused.status_code == 404
    system.http.get("/readyz").raise_for_status()
    text = system.http.get("/metrics").raise_for_status().text
    assert documented() == rows_of(text)
    numbers = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(numbers["taskyard_jobs_submitted_total"]) >= 1
    assert numbers["taskyard_jobs_completed_total"] == numbers["taskyard_jobs_submitted_total"]
    assert numbers["taskyard_jobs_failed_total"] == "0.0"
    assert numbers['taskyard_max_workers{pool="default"}'] == "3.0"
    assert numbers['taskyard_active_workers{pool="default"}'] == "0.0"
    assert numbers['taskyard_queued_tasks{pool="default"}'] == "0.0"
    until(lambda: "\ntaskyard_projector_lag_commits 0.0\n" in system.http.get("/metrics").text)
    for service in ("scheduler", "slot_allocator", "dispatcher"):
        assert numbers[f'taskyard_leader{{service="{service}"}}'] == "1.0"
        assert float(numbers[f'taskyard_commits_appended_total{{service="{service}"}}']) > 0


def test_every_log_line_is_json_and_names_its_service_and_task(system: System) -> None:
    task = system.run_task()
    lines = system.log_lines("services")
    assert all({"at", "level", "service", "message"} <= line.keys() for line in lines)
    services = {"scheduler", "slot_allocator", "dispatcher", "state_projector", "api"}
    assert {line["service"] for line in lines if line["message"] == "started"} == services
    leading = [line["service"] for line in lines if line["message"] == "leads"]
    assert sorted(leading) == ["dispatcher", "scheduler", "slot_allocator"]
    decided = [line for line in lines if line.get("task") == task]
    assert {line["service"] for line in decided} == set(leading)
    assert {"TaskSubmitted", "SlotAssigned", "AttemptSucceeded"} <= {line["type"] for line in decided}
    assert {line["level"] for line in decided} == {"debug"}
    begun = [line for line in system.log_lines("worker-1") if line.get("task") == task]
    assert [line["message"] for line in begun] == ["an attempt began", "an attempt ended"]
