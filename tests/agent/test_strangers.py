"""What an agent's journal does not know to live is ended before anybody hears of the agent, whoever is killed meanwhile."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from host_processes import is_running

from taskyard.agent.supervisor.keeper import read_stat

ENDED_SECONDS = 40.0
"""Longer than keepers, and then the agent, may take to end what they find."""


def read_pid(path: Path) -> int:
    return int(path.read_text() or 0) if path.exists() else 0


def parent_of(pid: int) -> int:
    return int((read_stat(pid) or [])[1])


def lose_journal(directory: Path) -> None:
    for file in (directory / "agent").glob("journal*"):
        file.unlink()


async def begin(harness: Any, d: Any, directory: Path, script: str) -> tuple[Any, int]:
    """An agent that runs a script, which writes its pid first: the process of the agent, and that pid."""
    first = harness.process()
    await harness.joined(d)
    script = f"echo $$ > {directory}/pid.new; mv {directory}/pid.new {directory}/pid; {script}"
    await d.assign(d.assignment("command", {"script": script}, repeatable=False))

    async def runs() -> bool:
        return read_pid(directory / "pid") > 0

    await harness.until(runs)
    return first, read_pid(directory / "pid")


async def joins(harness: Any, d: Any, pid: int) -> None:
    """Wait until the agent is heard: by then the process is to be gone."""
    heard = len(d.heartbeats)

    async def is_heard() -> bool:
        return len(d.heartbeats) > heard

    await harness.until(is_heard, seconds=ENDED_SECONDS)
    assert not is_running(pid)


@pytest.mark.slow
def test_a_second_start_with_a_new_journal_ends_what_the_first_could_not(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        first, pid = await begin(harness, d, tmp_path, "exec sleep 300")
        keeper = parent_of(pid)
        supervisor = parent_of(keeper)
        first.kill()
        os.kill(supervisor, signal.SIGSTOP)
        for one in (keeper, supervisor):
            os.kill(one, signal.SIGKILL)
        lose_journal(tmp_path)
        second = harness.process()

        async def has_a_journal() -> bool:
            return (tmp_path / "agent" / "journal.mark").exists()

        await harness.until(has_a_journal)
        await asyncio.sleep(1.0)  # well into the wait for keepers that are no more
        second.kill()
        assert is_running(pid)
        harness.process()
        await joins(harness, d, pid)

    harness.run(scenario)


@pytest.mark.slow
def test_an_agent_whose_supervisor_dies_while_it_ends_strangers_joins_all_the_same(
    harness: Any, tmp_path: Path
) -> None:
    async def scenario(d: Any) -> None:
        first, pid = await begin(
            harness, d, tmp_path, f"trap 'touch {tmp_path}/stopped' TERM; while :; do sleep 0.1; done"
        )
        supervisor = parent_of(parent_of(pid))
        first.kill()
        lose_journal(tmp_path)
        harness.process()

        async def is_stopped() -> bool:
            return (tmp_path / "stopped").exists()

        await harness.until(is_stopped)
        os.kill(supervisor, signal.SIGKILL)
        await joins(harness, d, pid)

    harness.run(scenario)
