"""What a host does to an agent: a disk that is full or slow, a folder that cannot be used, memory that is short."""

import asyncio
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from taskyard.agent.executors.command import Command
from taskyard.contracts.agent_protocol import Failed, Started, Succeeded

FLOOD_BYTES = 300 << 20
MEMORY_MORE_BYTES_MAX = 24 << 20
"""The buffer of output and what the allocator keeps; far less than what was written."""


def memory_bytes(pid: int) -> int:
    """The most that the process ever held."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def test_a_folder_that_cannot_be_used_ends_the_agent_with_its_name(harness: Any) -> None:
    agent = harness.process(directory="/proc/nowhere")
    assert agent.process.wait(20) == 1
    told = agent.log.read_text()
    assert "/proc/nowhere cannot be used" in told
    assert "Traceback" not in told


def test_what_an_earlier_command_left_and_nobody_can_remove_does_not_stop_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work" / "mounted").mkdir(parents=True)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    Command(tmp_path / "work")


def test_removing_what_a_command_left_does_not_hold_up_the_agent(harness: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    is_removing, may_end = threading.Event(), threading.Event()

    async def scenario(d: Any) -> None:
        def slowly(*_: object, **__: object) -> None:
            is_removing.set()
            assert may_end.wait(20)

        monkeypatch.setattr(shutil, "rmtree", slowly)
        one, other = d.assignment("command", {"argv": ["true"]}), d.assignment("noop", slot=1)
        await d.assign(one)

        async def removes() -> bool:
            return is_removing.is_set()

        try:
            await harness.until(removes)
            await d.assign(other)
            await d.report(other.task, Succeeded)
        finally:
            may_end.set()
            monkeypatch.undo()
        await d.report(one.task, Succeeded)

    harness.run_with_agent(scenario)


def test_a_flood_of_output_without_a_server_takes_little_memory_and_ends(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        agent = harness.process()
        await harness.joined(d)
        gate = tmp_path / "gate"
        # Both streams by turns, in small pieces and in one long flood, and binary.
        script = (
            f"while ! test -e {gate}; do sleep 0.05; done; "
            "for i in $(seq 2000); do echo out; echo err >&2; done; "
            f"head -c {FLOOD_BYTES} /dev/urandom; echo flooded > {tmp_path}/flooded"
        )
        one = d.assignment("command", {"script": script}, timeout_seconds=60.0)
        await d.assign(one)
        await d.report(one.task, Started)
        before = memory_bytes(agent.process.pid)
        harness.server.stop()
        gate.touch()
        deadline = time.monotonic() + 40
        while not (tmp_path / "flooded").exists():
            assert time.monotonic() < deadline, "a program is not held up for ever"
            await asyncio.sleep(0.05)
        assert memory_bytes(agent.process.pid) - before < MEMORY_MORE_BYTES_MAX
        harness.server.start()
        await d.report(one.task, Succeeded, Failed)
        output = await d.output(one.task)
        assert b"bytes of output are missing here" in output
        assert agent.terminate() == 0

    harness.run(scenario)


def test_an_agent_whose_terraform_is_not_there_takes_no_plans_instead_of_failing_them(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        async with harness.agent(d, terraform=["/no/such/terraform"]):
            assert sorted(d.heartbeats[-1].kinds) == ["command", "noop"]

    harness.run(scenario)
