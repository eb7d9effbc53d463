"""`dev` and `bench` start other programs, which nothing else loads."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_server import Run

HEAVY = ("asyncpg", "faststream", "litestar", "nats", "uvicorn", "taskyard.dev.app", "taskyard.bench.app")


def test_dev_passes_its_options_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr("taskyard.dev.app.main", lambda **options: seen.append(options) or 1)
    assert (
        run("dev", "--data", "/x", "--http-port", "1", "--nats-port", "2", "--workers", "3", "--separate").status == 1
    )
    assert run("dev").status == 1
    assert seen == [
        {"data": Path("/x"), "http_port": 1, "nats_port": 2, "workers": 3, "separate": True},
        {"data": Path(".taskyard"), "http_port": 0, "nats_port": 0, "workers": 1, "separate": False},
    ]


def test_bench_gets_all_arguments_as_they_are(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr("taskyard.bench.app.main", lambda arguments: seen.append(arguments) or 0)
    assert run("bench", "--json", "--help", "-n", "5").status == 0
    assert seen == [["--json", "--help", "-n", "5"]]


def test_the_command_line_loads_nothing_that_most_commands_do_not_need() -> None:
    code = f"import sys, taskyard.cli.app; print([name for name in {HEAVY!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "[]\n"
