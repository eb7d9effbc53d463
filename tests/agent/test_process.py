"""Processes: the gate, the group, and who a process is."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from taskyard.agent.errors import ProgramNotFoundError
from taskyard.agent.process import ENV_TASK, identify, spawn, stop_group, stop_orphan
from taskyard.agent.slots import ProcessIdentity

ENV = {"PATH": os.environ["PATH"], ENV_TASK: "the-task"}


def ignore(stream: str, data: bytes) -> None:
    pass


def test_nothing_runs_before_the_gate_is_open(tmp_path: Path) -> None:
    async def scenario() -> None:
        program = await spawn(["touch", "ran"], cwd=tmp_path, env=ENV, take_output=ignore)
        assert not (tmp_path / "ran").exists()
        program.open_gate()
        assert await program.exited() == 0
        assert (tmp_path / "ran").exists()
        await program.drain()

    asyncio.run(scenario())


def test_if_the_agent_goes_before_the_gate_is_open_nothing_ever_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        program = await spawn(["touch", "ran"], cwd=tmp_path, env=ENV, take_output=ignore)
        gate = program._pipe(0)
        assert gate is not None
        gate.close()  # what the kernel does to the pipes of a killed agent
        assert await program.exited() == 125
        assert not (tmp_path / "ran").exists()
        await program.drain()

    asyncio.run(scenario())


def test_the_program_gets_its_arguments_as_they_are_and_no_input(tmp_path: Path) -> None:
    async def scenario() -> None:
        said = bytearray()
        argv = ["sh", "-c", 'cat; printf "%s|" "$@"', "x", "a b", "*", "$HOME", ""]
        program = await spawn(argv, cwd=tmp_path, env=ENV, take_output=lambda _, data: said.extend(data))
        program.open_gate()
        assert await program.exited() == 0
        await program.drain()
        assert bytes(said) == b"a b|*|$HOME||"

    asyncio.run(scenario())


@pytest.mark.parametrize("program", ["no-such-program", "./main.tf", ""])
def test_what_cannot_be_run_is_not_found(tmp_path: Path, program: str) -> None:
    (tmp_path / "main.tf").touch()

    async def scenario() -> None:
        with pytest.raises(ProgramNotFoundError):
            await spawn([program], cwd=tmp_path, env=ENV, take_output=ignore)

    asyncio.run(scenario())


def test_only_the_very_process_is_an_orphan(tmp_path: Path) -> None:
    async def scenario() -> None:
        program = await spawn(["sleep", "300"], cwd=tmp_path, env=ENV, take_output=ignore)
        program.open_gate()
        real = program.identity
        for other in (
            ProcessIdentity(pid=real.pid, start_ticks=real.start_ticks + 1, boot=real.boot),
            ProcessIdentity(pid=real.pid, start_ticks=real.start_ticks, boot="another"),
        ):
            assert not await stop_orphan(other, task="the-task", first=signal.SIGTERM)
        assert identify(real.pid) == real
        assert await stop_orphan(real, task="the-task", first=signal.SIGTERM)
        assert await program.exited() == -signal.SIGTERM
        assert not await stop_orphan(real, task="the-task", first=signal.SIGTERM)
        await program.drain()

    asyncio.run(scenario())


def test_a_group_that_ignores_term_is_killed_after_the_grace(tmp_path: Path) -> None:
    async def scenario() -> None:
        ready = asyncio.Event()
        argv = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]
        program = await spawn(argv, cwd=tmp_path, env=ENV, take_output=lambda *_: ready.set())
        program.open_gate()
        await ready.wait()
        await stop_group(program.identity.pid, first=signal.SIGTERM, grace_seconds=0.3)
        assert await program.exited() == -signal.SIGKILL
        await program.drain()

    asyncio.run(scenario())
