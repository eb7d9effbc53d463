"""What survives a killed agent, a killed nats-server, and a frozen connection."""

import asyncio
import os
import shutil
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec
import nats.errors
import pytest
from host_processes import is_running

from taskyard.agent import clock
from taskyard.agent.contact import SELF_FENCE_SECONDS
from taskyard.agent.errors import REPLACED_STATUS, JournalError
from taskyard.agent.journal import Journal
from taskyard.contracts.agent_protocol import CancelRequest, Failed, Started, Succeeded


def read_pid(path: Path) -> int:
    return int(path.read_text()) if path.exists() and path.read_text().strip() else 0


def test_two_agents_do_not_share_a_directory(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        async with harness.agent(d):
            second = harness.process()
            assert await asyncio.to_thread(second.process.wait, 20) == 1
            assert "is used by another agent" in second.log.read_text()

    harness.run(scenario)


def test_reports_and_output_of_the_time_without_a_server_arrive_once(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        wait = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
        script = f"echo before; {wait}; echo after; touch {tmp_path}/end.$$; exit 4"
        tasks = [d.assignment("command", {"script": script}, slot=slot) for slot in range(4)]
        await d.assign(*tasks)
        for one in tasks:
            await d.report(one.task, Started)
        harness.server.stop()
        (tmp_path / "go").touch()

        async def all_ended() -> bool:
            return len(list(tmp_path.glob("end.*"))) == 4

        await harness.until(all_ended)
        harness.server.start()

        async def back() -> bool:
            return d.client.is_connected

        await harness.until(back)
        for one in tasks:
            end = await d.report(one.task, Failed)
            assert end.error.code == "exit_status"
            assert await d.output(one.task) == b"before\nafter\n"
        numbers = [batch.number for batch in await d.batches()]
        assert numbers == list(range(1, len(numbers) + 1)), "each batch is stored once, in order"

    harness.run_with_agent(scenario)


def test_unsent_reports_survive_the_agent(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        agent = harness.process()
        await harness.joined(d)
        script = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo done > {tmp_path}/end"
        one = d.assignment("command", {"script": script})
        await d.assign(one)
        await d.report(one.task, Started)
        harness.server.stop()
        (tmp_path / "go").touch()

        async def ended() -> bool:
            return '"message":"an attempt ended"' in agent.log.read_text()

        await harness.until(ended)
        agent.kill()
        harness.server.start()
        again = harness.process()
        try:
            await d.report(one.task, Succeeded)
            assert [type(report) for report in await d.reports(one.task)] == [Started, Succeeded]
        finally:
            assert again.terminate() == 0

    harness.run(scenario)


def test_without_contact_a_command_stops(harness: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr("taskyard.agent.contact.SELF_FENCE_SECONDS", 1.0)

    async def scenario(d: Any) -> None:
        one = d.assignment("command", {"script": f"echo $$ > {tmp_path}/pid; exec sleep 300"})
        await d.assign(one)

        async def runs() -> bool:
            return is_running(read_pid(tmp_path / "pid"))

        await harness.until(runs)
        harness.server.stop()

        async def stopped() -> bool:
            return not await runs()

        await harness.until(stopped)
        harness.server.start()

        async def back() -> bool:
            return d.client.is_connected

        await harness.until(back)
        end = await d.report(one.task, Failed)
        assert (end.error.code, end.error.retryable) == ("self_fenced", True)

    harness.run_with_agent(scenario)


def test_without_contact_what_nobody_else_may_run_goes_on(harness: Any, monkeypatch: Any, tmp_path: Path) -> None:
    """The server stood still for longer than a worker may be silent: a command with one try ends as it ends."""
    asleep_seconds = 0.0

    async def scenario(d: Any) -> None:
        nonlocal asleep_seconds
        wait = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
        once, again = (d.assignment("command", {"script": wait}, slot=slot, repeatable=slot == 1) for slot in (0, 1))
        await d.assign(once, again)
        await d.report(once.task, Started)
        await d.report(again.task, Started)
        asleep_seconds = SELF_FENCE_SECONDS + 6
        end = await d.report(again.task, Failed)
        assert end.error.code == "self_fenced"
        (tmp_path / "go").touch()
        await d.report(once.task, Succeeded)

    since_boot = clock.since_boot
    monkeypatch.setattr(clock, "since_boot", lambda: since_boot() + asleep_seconds)
    harness.run_with_agent(scenario)


def test_an_agent_whose_name_another_has_stops_its_work_tells_its_ends_and_goes_with_a_status_of_its_own(
    harness: Any, tmp_path: Path
) -> None:
    async def scenario(d: Any) -> None:
        agent = harness.process()
        await harness.joined(d)
        script = f"trap 'echo INT >> {tmp_path}/signals; exit 0' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done"
        one = d.assignment("command", {"script": script}, repeatable=False)
        await d.assign(one)
        await d.report(one.task, Started)

        async def runs() -> bool:
            return is_running(read_pid(tmp_path / "pid"))

        await harness.until(runs)
        request = CancelRequest(incarnation=d.incarnation, cancels=(), retire="another host has its name")
        await d.client.request("taskyard.agent.w1.cancel", msgspec.json.encode(request), timeout=5)

        end = await d.report(one.task, Failed)
        assert (end.error.code, await runs()) == ("worker_replaced", False)
        assert await asyncio.to_thread(agent.process.wait, 20) == REPLACED_STATUS
        assert "another host has its name" in agent.log.read_text()

    harness.run(scenario)


def test_what_is_told_to_go_under_another_incarnation_does_not_concern_an_agent(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        request = CancelRequest(incarnation="r0", cancels=(), retire="another host has its name")
        with pytest.raises(nats.errors.TimeoutError):
            await d.client.request("taskyard.agent.w1.cancel", msgspec.json.encode(request), timeout=1)
        (answer,) = await d.assign(d.assignment("noop"))
        assert answer.outcome == "accepted"

    harness.run_with_agent(scenario)


@pytest.mark.parametrize("how", ["put back", "cut in half"])
def test_what_runs_while_a_frozen_agents_journal_changes_under_it_runs_once(
    harness: Any, tmp_path: Path, how: str
) -> None:
    """Frozen, its journal put back to what it was before the attempt or cut in half with its WAL, killed, started again."""
    folder, copy = tmp_path / "agent", tmp_path / "copy"
    copy.mkdir()

    async def scenario(d: Any) -> None:
        agent = harness.process()
        await harness.joined(d)
        first = d.assignment("noop")
        await d.assign(first)
        await d.report(first.task, Succeeded)
        for file in folder.glob("journal.sqlite*"):
            shutil.copy2(file, copy)
        script = f"echo run >> {tmp_path}/runs; echo $$ > {tmp_path}/pid; sleep 300"
        one = d.assignment("command", {"script": script}, slot=1, repeatable=False)
        await d.assign(one)
        await d.report(one.task, Started)

        async def runs() -> bool:
            return is_running(read_pid(tmp_path / "pid"))

        await harness.until(runs)
        agent.process.send_signal(signal.SIGSTOP)
        if how == "put back":
            for file in folder.glob("journal.sqlite*"):
                file.unlink()
            for file in copy.iterdir():
                shutil.copy2(file, folder)
        else:
            for file in (folder / "journal.sqlite", folder / "journal.sqlite-wal"):
                os.truncate(file, file.stat().st_size // 2)
        agent.kill()
        before = d.incarnation

        again = harness.process()
        await harness.joined(d)
        beat = d.heartbeats[-1]
        assert (beat.incarnation != before, beat.follows, await runs()) == (True, (), False)
        (answer,) = await d.assign(msgspec.structs.replace(one, seen="started"))
        assert answer.outcome == "lost"
        assert (tmp_path / "runs").read_text() == "run\n"
        assert again.terminate() == 0

    harness.run(scenario)


def test_an_agent_that_stood_still_for_too_long_stops_what_another_may_run_and_goes_on(
    harness: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen, or its host asleep: it finds out when it wakes, and the server answers at once."""
    asleep_seconds = 0.0

    async def scenario(d: Any) -> None:
        nonlocal asleep_seconds
        running, late = (d.assignment("command", {"argv": ["sleep", "300"]}, slot=slot) for slot in (0, 1))
        await d.assign(running)
        await d.report(running.task, Started)
        asleep_seconds = SELF_FENCE_SECONDS + 1
        (answer,) = await d.assign(late)
        assert (answer.outcome, answer.reason) == ("declined", "the worker had no contact")
        end = await d.report(running.task, Failed)
        assert (end.error.code, end.error.retryable) == ("self_fenced", True)

        async def takes_tasks() -> bool:
            (answer,) = await d.assign(d.assignment("noop", slot=2))
            return answer.outcome == "accepted"

        await harness.until(takes_tasks)

    since_boot = clock.since_boot
    monkeypatch.setattr(clock, "since_boot", lambda: since_boot() + asleep_seconds)
    harness.run_with_agent(scenario)


def test_an_agent_without_a_server_leaves_when_told(harness: Any) -> None:
    harness.server.stop()
    agent = harness.process()
    deadline = time.monotonic() + 20
    while '"the agent runs"' not in agent.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert agent.terminate() == 0


def test_an_agent_that_cannot_write_its_journal_ends_and_what_runs_goes_on(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        async with harness.agent(d) as agent:
            one = d.assignment("command", {"script": f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo whole"})
            await d.assign(one)
            await d.report(one.task, Started)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Journal, "_commit", fail)
                with pytest.raises(nats.errors.TimeoutError):
                    await d.assign(d.assignment("noop", slot=1))
                with pytest.raises(JournalError):
                    await agent.task
        async with harness.agent(d):
            (tmp_path / "go").touch()
            await d.report(one.task, Succeeded)
            assert await d.output(one.task) == b"whole\n"

    harness.run(scenario)


def fail(*_: object) -> None:
    raise sqlite3.OperationalError("disk I/O error")
