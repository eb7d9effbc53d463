"""A service that reaches no server says so in one line of its log, and ends with 1."""

import json
import subprocess
import sys
from pathlib import Path

SECONDS_MAX = 60
PROGRAM = """
import asyncio
from taskyard import service

async def run(settings, stop):
    async with service.linked("scheduler", settings):
        pass

service.CONNECT_SECONDS_MAX = 0.5
service.main(run)
"""


def test_a_service_without_nats_names_the_server(tmp_path: Path) -> None:
    names = ("control_user", "control_password", "fleet_user", "fleet_password", "postgres_dsn")
    file = tmp_path / "services.json"
    file.write_text(json.dumps({"nats_urls": ["nats://127.0.0.1:9"], **dict.fromkeys(names, "x")}))
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--config", str(file)],
        capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
    )  # fmt: skip
    *_, last = map(json.loads, ran.stderr.splitlines())
    assert ran.returncode == 1
    assert last["level"] == "critical" and "NATS at nats://127.0.0.1:9 is not reachable" in last["reason"]
    assert "Traceback" not in ran.stderr
