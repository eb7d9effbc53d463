"""The first process of a container: it reaps, hands signals on, and starts a program again that was killed."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskyard.agent.errors import REPLACED_STATUS
from taskyard.agent.supervisor.keeper import descendants, read_stat
from taskyard.contracts.agent_protocol import Started, Succeeded

INIT = (sys.executable, "-m", "taskyard.agent.init")
CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
SECONDS_MAX = 20.0


def has_namespaces() -> bool:
    argv = [*CONTAINER, "true"]
    return shutil.which("unshare") is not None and not subprocess.run(argv, capture_output=True, check=False).returncode


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children(pid: int) -> list[tuple[int, str]]:
    """Children with their states."""
    stats = [(int(entry.name), read_stat(int(entry.name))) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [(one, stat[0]) for one, stat in stats if stat is not None and int(stat[1]) == pid]


@pytest.mark.parametrize("status", [0, 2, REPLACED_STATUS])
def test_it_ends_with_its_program_when_that_says_that_it_is_over(status: int) -> None:
    assert subprocess.run([*INIT, "sh", "-c", f"exit {status}"], timeout=SECONDS_MAX, check=False).returncode == status


@pytest.mark.parametrize("end", ["exit 1", "kill -9 $$"])
def test_it_starts_a_program_again_that_failed_or_was_killed(tmp_path: Path, end: str) -> None:
    script = f"echo x >> {tmp_path}/runs; [ $(wc -l < {tmp_path}/runs) = 2 ] && exit 0; {end}"
    assert subprocess.run([*INIT, "sh", "-c", script], timeout=SECONDS_MAX, check=False).returncode == 0
    assert (tmp_path / "runs").read_text() == "x\nx\n"


def test_it_hands_signals_on_and_then_starts_nothing_again(tmp_path: Path) -> None:
    script = f"trap 'echo x >> {tmp_path}/caught; exit 7' TERM; touch {tmp_path}/ready; while :; do sleep 0.02; done"
    with subprocess.Popen([*INIT, "sh", "-c", script]) as init:
        until((tmp_path / "ready").exists)
        init.terminate()
        assert init.wait(SECONDS_MAX) == 7
    assert (tmp_path / "caught").read_text() == "x\n"


def test_it_takes_the_status_of_what_has_lost_its_parent(tmp_path: Path) -> None:
    script = f"(sh -c 'sleep 0.2; touch {tmp_path}/orphan' &) ; touch {tmp_path}/ready; exec sleep 60"
    with subprocess.Popen([*INIT, "sh", "-c", script]) as init:
        until((tmp_path / "orphan").exists)
        until(lambda: [state in "RSD" for _, state in children(init.pid)] == [True])
        init.terminate()
        assert init.wait(SECONDS_MAX) == 128 + signal.SIGTERM


@pytest.mark.skipif(not has_namespaces(), reason="this machine lets us make no namespace of processes")
def test_in_a_container_what_a_killed_agent_ran_goes_on_and_a_stop_leaves_nothing(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        config = tmp_path / "agent.json"
        config.write_bytes(msgspec.json.encode(harness.settings()))
        argv = [*CONTAINER, *INIT, sys.executable, "-m", "taskyard.agent", "--config", str(config)]
        container = await asyncio.create_subprocess_exec(*argv, stderr=subprocess.DEVNULL)
        try:
            await harness.joined(d)
            script = f"echo run >> {tmp_path}/runs; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"
            one = d.assignment("command", {"script": script})
            await d.assign(one)
            await d.report(one.task, Started)
            ((first, _),) = children(container.pid)
            (agent,) = [pid for pid, _ in children(first) if str(config).encode() in command_line(pid)]
            os.kill(agent, signal.SIGKILL)
            await harness.joined(d)
            (tmp_path / "go").touch()
            await d.report(one.task, Succeeded)
            assert (tmp_path / "runs").read_text() == "run\n"
            os.kill(first, signal.SIGTERM)
            assert await asyncio.wait_for(container.wait(), SECONDS_MAX) == 0
            assert not descendants(container.pid)
        finally:
            if container.returncode is None:
                container.kill()
                await container.wait()

    harness.run(scenario)


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
