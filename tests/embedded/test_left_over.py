"""What a run of `taskyard dev` that was killed has left is found, also where it was killed before it recorded it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from host_processes import is_running

from taskyard.agent.process import ENV_DIRECTORY
from taskyard.agent.supervised import Supervised
from taskyard.agent.supervisor.protocol import Open, Room
from taskyard.contracts.values import Position
from taskyard.dev.layout import Layout
from taskyard.dev.left_over import end_absent_workers, stop_left_over
from taskyard.embedded import processes

SLEEPER = "import time\nprint('runs', flush=True)\ntime.sleep(600)\n"


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[processes.ProcessIdentity]:
    """A program that sleeps, `taskyard.left_over_sleeper`, started with these arguments."""
    module = folder / "modules" / "taskyard" / "left_over_sleeper.py"
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_text(SLEEPER)
    environment = {**os.environ, "PYTHONPATH": str(folder / "modules")}
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, env=environment) as child:
        try:
            assert child.stdout
            assert child.stdout.readline() == b"runs\n"
            identity = processes.identify(child.pid)
            assert identity
            yield identity
        finally:
            child.kill()


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(tmp_path / "data")
    with layout.locked():
        yield layout


def test_a_program_that_was_started_and_not_recorded_is_stopped(layout: Layout, tmp_path: Path) -> None:
    told: list[str] = []
    file = str(layout.configuration_file("services"))
    with running(tmp_path, "-m", "taskyard.left_over_sleeper", "--config", file) as left:
        stop_left_over(layout, told.append)
        assert not processes.is_alive(left)
        assert told == [f"stopped process {left.pid} of an earlier run, which had not recorded it yet"]


@pytest.mark.parametrize("is_supervisor_killed", [False, True])
def test_what_a_worker_runs_that_this_run_does_not_have_is_ended_and_nothing_of_those_it_has(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, is_supervisor_killed: bool
) -> None:
    monkeypatch.setattr("taskyard.agent.process.KEEPERS_SECONDS", 0.5)
    told: list[str] = []

    async def scenario() -> None:
        present, absent = [await running_worker(layout.worker_directory(f"worker-{number}")) for number in (1, 2)]
        if is_supervisor_killed:
            os.kill(absent.supervisor, signal.SIGSTOP)  # or one of the two would end what the other has
            os.kill(absent.keeper, signal.SIGKILL)
            os.kill(absent.supervisor, signal.SIGKILL)
        await end_absent_workers(layout, ["worker-1"], told.append)
        assert not is_running(absent.program)
        assert not is_running(absent.supervisor)
        assert is_running(present.program)
        await present.supervised.connect()
        await present.supervised.close(leave_running=False)

    asyncio.run(scenario())
    assert told == ["ends what worker-2 of an earlier run has left running"]


class Worker(NamedTuple):
    supervised: Supervised
    supervisor: int
    keeper: int
    program: int


async def running_worker(folder: Path) -> Worker:
    """A worker's supervisor with a program, whose agent is gone."""
    supervised, rooms = Supervised(folder), (Room(1024, 0), Room(1024, 0))
    await supervised.connect()
    hearing = asyncio.create_task(supervised.run())
    one = Position(1)
    await supervised.open(
        one, Open(attempt=one, note=b"", seconds_left=60.0, stop_signal=15, timeout_grace_seconds=1.0)
    )
    env = {"PATH": os.environ["PATH"], ENV_DIRECTORY: str(folder.resolve())}
    program = await supervised.start(one, "one", ["sleep", "600"], cwd=Path("/"), env=env, rooms=rooms)
    pid = (await program.made()).pid
    supervised.go(program)
    while b"sleep" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        await asyncio.sleep(0.01)
    await supervised.close(leave_running=True)
    await hearing
    keeper = parent_of(pid)
    return Worker(Supervised(folder), parent_of(keeper), keeper, pid)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("whose", ["of another folder", "of a person"])
def test_a_program_of_another_is_left_alone(whose: str, layout: Layout, tmp_path: Path) -> None:
    file = str(layout.configuration_file("services"))
    arguments = {
        "of another folder": ("-m", "taskyard.left_over_sleeper", "--config", file.replace("/data/", "/other/")),
        "of a person": ("-c", SLEEPER, "log", "verify", "--config", file),
    }[whose]
    told: list[str] = []
    with running(tmp_path, *arguments) as other:
        stop_left_over(layout, told.append)
        assert processes.is_alive(other)
    assert told == []
