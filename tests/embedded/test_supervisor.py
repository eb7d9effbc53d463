"""Programs that are kept running, whatever the disk or somebody else does to them."""

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from taskyard.dev import supervisor as supervisor_module
from taskyard.dev.supervisor import Supervisor
from taskyard.embedded.processes import ProcessIdentity, Program, is_alive

SECONDS_MAX = 20.0
ENDS_IN_ORDER = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("ended in order", flush=True)))
print("runs", flush=True)
while True: signal.pause()
"""


def a_program(folder: Path, code: str = ENDS_IN_ORDER) -> Program:
    return Program(name="one", argv=(sys.executable, "-c", code), log_file=folder / "one.log")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "RESTART_SECONDS_FIRST", 0.01)


def test_what_nobody_can_record_does_not_run_and_is_tried_again(tmp_path: Path) -> None:
    made: list[ProcessIdentity] = []
    said: list[str] = []

    def record(_: Program, identity: ProcessIdentity) -> None:
        made.append(identity)
        if len(made) <= 2:
            raise OSError(errno.ENOSPC, "No space left on device", "processes.json")

    async def scenario() -> None:
        async with Supervisor(record, said.append) as supervisor:
            supervisor.start(a_program(tmp_path))
            await until(lambda: (tmp_path / "one.log").exists() and "runs" in (tmp_path / "one.log").read_text())
            assert [is_alive(identity) for identity in made] == [False, False, True]
            await supervisor.stop(["one"], SECONDS_MAX)

    asyncio.run(scenario())
    told = "one was ended, since nobody could record that it runs: No space left on device: processes.json"
    assert [text.partition(";")[0] for text in said] == [told, told]


def test_a_program_that_cannot_be_made_is_tried_again(tmp_path: Path) -> None:
    said: list[str] = []
    missing = Program(name="one", argv=(str(tmp_path / "missing"),), log_file=tmp_path / "one.log")

    async def scenario() -> None:
        async with Supervisor(lambda *_: None, said.append) as supervisor:
            supervisor.start(missing)
            await until(lambda: supervisor.ends.get("one", 0) >= 2)
            assert supervisor.reasons["one"] == f"No such file or directory: {tmp_path / 'missing'}"
            await supervisor.stop(["one"], SECONDS_MAX)

    asyncio.run(scenario())
    assert said[0].startswith("one could not be started: No such file or directory")


def test_a_program_that_stands_still_ends_in_order(tmp_path: Path) -> None:
    made: list[ProcessIdentity] = []

    async def scenario() -> None:
        async with Supervisor(lambda _, identity: made.append(identity)) as supervisor:
            supervisor.start(a_program(tmp_path))
            await until(lambda: (tmp_path / "one.log").exists() and "runs" in (tmp_path / "one.log").read_text())
            os.kill(made[0].pid, signal.SIGSTOP)
            await supervisor.stop(["one"], SECONDS_MAX)

    asyncio.run(scenario())
    assert (tmp_path / "one.log").read_text().endswith("ended in order\n")
    assert not is_alive(made[0])


@pytest.mark.parametrize(("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGRTMIN + 5, "signal 39")])
def test_a_program_that_a_signal_ended_is_started_again(tmp_path: Path, number: int, name: str) -> None:
    made: list[ProcessIdentity] = []
    said: list[str] = []

    async def scenario() -> None:
        async with Supervisor(lambda _, identity: made.append(identity), said.append) as supervisor:
            supervisor.start(a_program(tmp_path))
            await until(lambda: len(made) == 1)
            os.kill(made[0].pid, number)
            await until(lambda: len(made) == 2)
            await supervisor.stop(["one"], SECONDS_MAX)

    asyncio.run(scenario())
    assert said[0].startswith(f"one was ended by {name};")
