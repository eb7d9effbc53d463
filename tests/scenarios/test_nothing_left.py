"""A stop leaves no process of what was run: neither servers, services and workers, nor their supervisors, nor programs."""

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from system import System, running

MARK = "LEFT_BY"
OBEDIENT = "(setsid sh -c 'echo $$; exec sleep 600' &) & echo $$; exec sleep 600"
STUBBORN = "trap '' TERM; (setsid sh -c 'echo $$; exec sleep 600' &) & echo $$; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def mark() -> str:
    return f"{MARK}={secrets.token_hex(8)}"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, mark: str) -> Iterator[System]:
    """A system of two workers that is stopped and started again."""
    name, value = mark.split("=")
    folder = tmp_path_factory.mktemp("left")
    with running(folder, workers=2, arguments=(), environment={name: value}) as system:
        yield system


def left(system: System, mark: str) -> dict[int, str]:
    """What lives of a system, with its command line: it bears our mark, or as a program of a task the folder of its agent."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                environment = (entry / "environ").read_bytes()
                if mark.encode() in environment.split(b"\0") or f"={system.data}/workers/".encode() in environment:
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def begin_work(system: System, script: str) -> None:
    for id in [system.command(script) for _ in range(2)]:
        system.written(id, lines=2)


def test_a_stop_with_running_work_leaves_no_process(own: System, mark: str) -> None:
    begin_work(own, STUBBORN)
    assert len(left(own, mark)) > 10
    assert own.stop() == 0
    assert left(own, mark) == {}
    own.start()


def is_dev(command_line: str) -> bool:
    return "taskyard.agent.supervisor" not in command_line and "taskyard" in command_line


def is_ours(command_line: str) -> bool:
    return "sleep" not in command_line and "setsid" not in command_line


@pytest.mark.parametrize("killed", [is_dev, is_ours], ids=["all but what runs tasks", "all but the programs of tasks"])
def test_after_kill_9_of_everything_a_new_start_and_stop_leave_no_process(
    own: System, mark: str, killed: Callable[[str], bool]
) -> None:
    begin_work(own, OBEDIENT)
    before = left(own, mark)
    own.kill_everything()
    pids = [pid for pid, command_line in before.items() if killed(command_line)]
    for number in (signal.SIGSTOP, signal.SIGKILL):  # all at once: nobody ends what another has run
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
    survivors = [command_line for command_line in left(own, mark).values() if "sleep" in command_line]
    assert survivors, "what a task has run outlives who started it"
    own.start()
    assert own.stop() == 0
    assert left(own, mark) == {}
    own.start()
