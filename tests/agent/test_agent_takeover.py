"""An agent's death ends nothing: what ran goes on, is taken over by the next agent, and ends as it ends."""

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from host_processes import is_running

from taskyard.agent import process
from taskyard.agent.executors.terraform import find_program
from taskyard.agent.journal import Journal
from taskyard.agent.stopping import FENCE_GRACE_SECONDS
from taskyard.agent.supervised import Supervised
from taskyard.contracts.agent_protocol import Failed, Lost, Planned, Started, Succeeded
from taskyard.contracts.values import Position

needs_terraform = pytest.mark.skipif(find_program() is None, reason="neither terraform nor tofu is on this machine")
SLOW = """
resource "terraform_data" "first" {{}}
resource "terraform_data" "slow" {{
  depends_on = [terraform_data.first]
  provisioner "local-exec" {{
    command = "echo run >> {folder}/runs; echo asleep; while [ ! -e {folder}/go ]; do sleep 0.05; done; echo awake"
  }}
}}
resource "terraform_data" "last" {{ depends_on = [terraform_data.slow] }}
output "number" {{ value = 7 }}
"""


def until_go(folder: Path) -> str:
    return f"while [ ! -e {folder}/go ]; do sleep 0.02; done"


def read_pid(path: Path) -> int:
    return int(path.read_text()) if path.exists() and path.read_text().strip() else 0


async def shows(d: Any, harness: Any, task: str, text: bytes) -> None:
    async def there() -> bool:
        return text in await d.output(task)

    await harness.until(there)


def supervisor_of(pid: int) -> int:
    """The supervisor of a program: the parent of its keeper."""
    return parent_of(parent_of(pid))


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_after_kill_9_a_command_goes_on_and_its_output_has_no_gap(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        first = harness.process()
        await harness.joined(d)
        count = f"i=0; while [ ! -e {tmp_path}/go ]; do echo $i; i=$((i+1)); sleep 0.01; done"
        script = f"echo run >> {tmp_path}/runs; {count}; exit 3"
        one = d.assignment("command", {"script": script})
        await d.assign(one)
        await shows(d, harness, one.task, b"\n5\n")
        first.kill()
        before = len(await d.output(one.task))
        second = harness.process()
        await harness.joined(d)

        async def goes_on() -> bool:
            return len(await d.output(one.task)) > before + 200

        await harness.until(goes_on)
        (tmp_path / "go").touch()
        end = await d.report(one.task, Failed, Succeeded, Lost)
        assert isinstance(end, Failed)
        assert end.error.message == "the command ended with 3"
        lines = (await d.output(one.task)).decode().split()
        assert lines == [str(number) for number in range(len(lines))]
        assert (tmp_path / "runs").read_text() == "run\n"
        assert [type(report) for report in await d.reports(one.task)] == [Started, Failed]
        assert second.terminate() == 0

    harness.run(scenario)


def test_what_ended_while_no_agent_lived_is_reported_as_it_ended(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        first = harness.process()
        await harness.joined(d)
        script = f"{until_go(tmp_path)}; echo the last word >&2; touch {tmp_path}/over; exit 4"
        one = d.assignment("command", {"script": script})
        await d.assign(one)
        await d.report(one.task, Started)
        first.kill()
        (tmp_path / "go").touch()

        async def over() -> bool:
            return (tmp_path / "over").exists()

        await harness.until(over)
        second = harness.process()
        end = await d.report(one.task, Failed, Lost)
        assert end.error.message == "the command ended with 4: the last word"
        assert second.terminate() == 0

    harness.run(scenario)


@needs_terraform
def test_an_apply_whose_agent_is_killed_runs_once_and_completes_with_its_outputs(harness: Any, tmp_path: Path) -> None:
    configuration = tmp_path / "configuration"
    configuration.mkdir()
    (configuration / "main.tf").write_text(SLOW.format(folder=tmp_path))

    async def scenario(d: Any) -> None:
        first = harness.process()
        await harness.joined(d)
        plan = d.assignment("plan_and_apply", {"directory": str(configuration)})
        await d.assign(plan)
        await d.report(plan.task, Planned)
        apply = msgspec.structs.replace(
            d.assignment("plan_and_apply"), task=plan.task, attempt=2, input=plan.input, apply=True, plan_attempt=1
        )
        await d.assign(apply)
        await shows(d, harness, apply.task, b"(local-exec): asleep")
        first.kill()
        (tmp_path / "go").touch()
        second = harness.process()
        end = await d.report(apply.task, Succeeded, Failed, Lost)
        assert isinstance(end, Succeeded), end
        assert msgspec.json.decode(end.result) == {
            "exit_code": 0,
            "changes": {"add": 3, "change": 0, "destroy": 0},
            "outputs": {"number": 7},
        }
        assert (tmp_path / "runs").read_text() == "run\n"
        state = json.loads((configuration / "terraform.tfstate").read_text())
        assert len(state["resources"]) == 3
        assert not list(configuration.glob(".terraform.tfstate.lock.info"))
        output = await d.output(apply.task)
        assert output.count(b"(local-exec): asleep") == 1
        assert b"Apply complete! Resources: 3 added" in output
        assert second.terminate() == 0

    harness.run(scenario)


@needs_terraform
def test_a_plan_whose_agent_is_killed_goes_on_with_its_next_step(harness: Any, tmp_path: Path) -> None:
    """A `terraform` that waits in `init`: the steps behind it begin under the next agent."""
    configuration = tmp_path / "configuration"
    configuration.mkdir()
    (configuration / "main.tf").write_text('resource "terraform_data" "one" {}\n')
    program = tmp_path / "slow-terraform"
    (real,) = find_program() or [""]
    program.write_text(
        f'#!/bin/sh\necho $1 >> {tmp_path}/steps\nif [ $1 = init ]; then {until_go(tmp_path)}; fi\nexec {real} "$@"\n'
    )
    program.chmod(0o755)

    async def scenario(d: Any) -> None:
        first = harness.process(terraform=[str(program)])
        await harness.joined(d)
        one = d.assignment("plan", {"directory": str(configuration)})
        await d.assign(one)
        await d.report(one.task, Started)
        first.kill()
        second = harness.process(terraform=[str(program)])
        await harness.joined(d)
        (tmp_path / "go").touch()
        end = await d.report(one.task, Succeeded, Failed, Lost)
        assert isinstance(end, Succeeded), end
        assert (tmp_path / "steps").read_text().split() == ["init", "plan", "show"]
        assert second.terminate() == 0

    harness.run(scenario)


@needs_terraform
def test_terraform_gets_one_interrupt_and_time_to_save_its_state_when_the_agent_leaves(
    harness: Any, tmp_path: Path
) -> None:
    configuration = tmp_path / "configuration"
    configuration.mkdir()
    (configuration / "main.tf").write_text(SLOW.format(folder=tmp_path))

    async def scenario(d: Any) -> None:
        async with harness.agent(d) as agent:
            plan = d.assignment("plan_and_apply", {"directory": str(configuration)})
            await d.assign(plan)
            await d.report(plan.task, Planned)
            apply = msgspec.structs.replace(
                d.assignment("plan_and_apply"), task=plan.task, attempt=2, input=plan.input, apply=True, plan_attempt=1
            )
            await d.assign(apply)
            await shows(d, harness, apply.task, b"(local-exec): asleep")
            await d.cancel(apply, grace_seconds=10)
            await agent.stop()
        assert (await d.report(apply.task, Failed)).error.code == "cancelled"
        output = await d.output(apply.task)
        assert output.count(b"Interrupt received") == 1
        assert b"Two interrupts received" not in output
        state = json.loads((configuration / "terraform.tfstate").read_text())
        assert "first" in [one["name"] for one in state["resources"]]
        assert not list(configuration.glob(".terraform.tfstate.lock.info"))

    harness.run(scenario)


def test_a_trap_that_prints_while_no_agent_lives_does_not_die_of_a_broken_pipe(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        first = harness.process()
        await harness.joined(d)
        trap = f"trap 'echo caught; echo saved > {tmp_path}/saved; exit 0' TERM"
        one = d.assignment(
            "command",
            {"script": f"{trap}; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done"},
            timeout_seconds=1.5,
        )
        await d.assign(one)
        await d.report(one.task, Started)
        first.kill()

        async def stopped() -> bool:
            return read_pid(tmp_path / "pid") > 0 and not is_running(read_pid(tmp_path / "pid"))

        await harness.until(stopped)
        assert (tmp_path / "saved").read_text() == "saved\n"
        second = harness.process()
        end = await d.report(one.task, Failed)
        assert end.error.code == "timeout"
        assert await d.output(one.task) == b"caught\n"
        assert second.terminate() == 0

    harness.run(scenario)


def test_a_stop_that_was_asked_for_before_the_agent_died_is_what_is_reported(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        first = harness.process()
        await harness.joined(d)
        trap = f"trap 'touch {tmp_path}/caught; {until_go(tmp_path)}; exit 0' TERM"
        one = d.assignment("command", {"script": f"{trap}; touch {tmp_path}/ready; while :; do sleep 0.05; done"})
        await d.assign(one)

        async def ready() -> bool:
            return (tmp_path / "ready").exists()

        await harness.until(ready)
        await d.cancel(one, grace_seconds=30)

        async def caught() -> bool:
            return (tmp_path / "caught").exists()

        await harness.until(caught)
        first.kill()
        second = harness.process()
        await harness.joined(d)
        (tmp_path / "go").touch()
        assert (await d.report(one.task, Failed)).error.code == "cancelled"
        assert second.terminate() == 0

    harness.run(scenario)


def test_a_hand_over_leaves_programs_running_for_the_next_agent(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        first = harness.process()
        await harness.joined(d)
        one = d.assignment("command", {"script": f"echo before; {until_go(tmp_path)}; echo after"})
        await d.assign(one)
        await shows(d, harness, one.task, b"before")
        started = time.monotonic()
        told = await asyncio.to_thread(harness.hand_over)
        assert told.returncode == 0, told.stderr
        assert first.process.wait(5) == 0
        assert time.monotonic() - started < 15
        assert not [report for report in await d.reports(one.task) if not isinstance(report, Started)]
        second = harness.process()
        await harness.joined(d)
        (tmp_path / "go").touch()
        await d.report(one.task, Succeeded)
        assert await d.output(one.task) == b"before\nafter\n"
        assert second.terminate() == 0

    harness.run(scenario)


def test_a_clean_stop_gives_work_its_time_warns_of_what_it_stops_and_leaves_no_supervisor(
    harness: Any, tmp_path: Path
) -> None:
    async def scenario(d: Any) -> None:
        agent = harness.process(drain_seconds=1.0)
        await harness.joined(d)
        quick = d.assignment("command", {"script": f"{until_go(tmp_path)}; echo done"})
        endless = d.assignment("command", {"script": f"echo $$ > {tmp_path}/pid; exec sleep 300"}, slot=1)
        await d.assign(quick, endless)

        async def runs() -> bool:
            return read_pid(tmp_path / "pid") > 0

        await harness.until(runs)
        await d.report(quick.task, Started)
        supervisor = supervisor_of(read_pid(tmp_path / "pid"))
        agent.process.send_signal(signal.SIGTERM)
        (tmp_path / "go").touch()
        assert await asyncio.to_thread(agent.process.wait, 20) == 0
        assert not is_running(supervisor)
        await d.report(quick.task, Succeeded)
        assert (await d.report(endless.task, Failed)).error.code == "worker_stopped"
        warnings = [line for line in agent.log.read_text().splitlines() if "did not end in time" in line]
        assert [json.loads(line)["task"] for line in warnings] == [endless.task]

    harness.run(scenario)


def test_what_is_stopped_because_its_agent_leaves_has_its_time_to_save(harness: Any, tmp_path: Path) -> None:
    """More than what is fenced has, which another may run soon: Terraform has a state to save, and a lock to release."""

    async def scenario(d: Any) -> None:
        agent = harness.process(drain_seconds=0.1)
        await harness.joined(d)
        trap = f"trap 'sleep {FENCE_GRACE_SECONDS + 1}; echo saved > {tmp_path}/saved; exit 0' TERM"
        one = d.assignment("command", {"script": f"{trap}; touch {tmp_path}/ready; while :; do sleep 0.05; done"})
        await d.assign(one)

        async def ready() -> bool:
            return (tmp_path / "ready").exists()

        await harness.until(ready)
        assert await asyncio.to_thread(agent.terminate) == 0
        assert (tmp_path / "saved").read_text() == "saved\n"
        assert (await d.report(one.task, Failed)).error.code == "worker_stopped"

    harness.run(scenario)


def test_when_the_supervisor_is_killed_what_it_ran_is_ended_and_lost_and_new_work_runs(
    harness: Any, tmp_path: Path
) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment("command", {"script": f"echo $$ > {tmp_path}/pid; exec sleep 300"})
        await d.assign(one)

        async def runs() -> bool:
            return read_pid(tmp_path / "pid") > 0

        await harness.until(runs)
        os.kill(supervisor_of(read_pid(tmp_path / "pid")), signal.SIGKILL)
        await d.report(one.task, Lost)
        assert not is_running(read_pid(tmp_path / "pid"))
        again = d.assignment("command", {"argv": ["true"]})
        await d.assign(again)
        await d.report(again.task, Succeeded)

    harness.run_with_agent(scenario)


def test_when_agent_and_supervisor_are_killed_the_next_agent_tells_the_loss_when_nothing_lives(
    harness: Any, tmp_path: Path
) -> None:
    async def scenario(d: Any) -> None:
        first = harness.process()
        await harness.joined(d)
        one = d.assignment("command", {"script": f"echo $$ > {tmp_path}/pid; exec sleep 300"})
        await d.assign(one)

        async def runs() -> bool:
            return read_pid(tmp_path / "pid") > 0

        await harness.until(runs)
        supervisor = supervisor_of(read_pid(tmp_path / "pid"))
        first.kill()
        os.kill(supervisor, signal.SIGKILL)
        second = harness.process()
        await d.report(one.task, Lost)
        assert not is_running(read_pid(tmp_path / "pid"))
        assert second.terminate() == 0

    harness.run(scenario)


async def with_accepted_and_unbegun(d: Any, harness: Any, folder: Path) -> tuple[Any, list[Any]]:
    """An agent was killed that ran one attempt and had accepted three more: its supervisor never read of those."""
    agent = harness.process()
    await harness.joined(d)
    running = d.assignment("command", {"script": f"echo $$ > {folder}/pid; exec sleep 300"})
    await d.assign(running)
    await d.report(running.task, Started)

    async def runs() -> bool:
        return read_pid(folder / "pid") > 0

    await harness.until(runs)
    supervisor = supervisor_of(read_pid(folder / "pid"))
    os.kill(supervisor, signal.SIGSTOP)
    unbegun = [
        d.assignment("command", {"script": f"echo run >> {folder}/runs.{slot}"}, slot=slot) for slot in (1, 2, 3)
    ]
    assert [answer.outcome for answer in await d.assign(*unbegun)] == ["accepted"] * 3
    agent.kill()
    os.kill(supervisor, signal.SIGKILL)
    return running, unbegun


def test_what_agents_that_were_killed_had_accepted_and_not_begun_begins_once(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        running, unbegun = await with_accepted_and_unbegun(d, harness, tmp_path)
        second = harness.process()
        await harness.joined(d)
        second.kill()  # before anybody has asked
        third = harness.process()
        await d.report(running.task, Lost)
        await harness.joined(d)
        assert [one.task for one in d.heartbeats[-1].live] == [one.task for one in unbegun]
        assert await d.cancel(unbegun[2]) == "accepted"
        assert (await d.report(unbegun[2].task, Failed)).error.code == "cancelled"
        again = [msgspec.structs.replace(one, seen="accepted") for one in unbegun]
        for _ in range(2):
            assert [answer.outcome for answer in await d.assign(*again)] == ["accepted"] * 3
        for one in unbegun[:2]:
            await d.report(one.task, Succeeded)
            assert [type(report) for report in await d.reports(one.task) if isinstance(report, Lost | Failed)] == []
            assert (tmp_path / f"runs.{one.slot}").read_text() == "run\n"
        assert not (tmp_path / "runs.3").exists()
        assert third.terminate() == 0

    harness.run(scenario)


def test_what_an_agent_that_was_killed_had_not_begun_is_lost_when_nobody_asks_for_it(
    harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.agent.app.START_SECONDS_MAX", 0.1)

    async def scenario(d: Any) -> None:
        _, unbegun = await with_accepted_and_unbegun(d, harness, tmp_path)
        async with harness.agent(d):
            for one in unbegun:
                await d.report(one.task, Lost)
            await d.assign(*(msgspec.structs.replace(one, seen="accepted") for one in unbegun))
        assert list(tmp_path.glob("runs.*")) == []

    harness.run(scenario)


def test_when_supervisor_and_keeper_are_killed_too_terraform_gets_an_interrupt_and_time_to_save(
    harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `terraform` that saves on INT and dies of TERM, as the real one loses its state."""
    monkeypatch.setattr(process, "KEEPERS_SECONDS", 0.0)
    configuration = tmp_path / "configuration"
    configuration.mkdir()
    program = tmp_path / "saving-terraform"
    save = f"echo x >> {tmp_path}/caught; sleep 1; touch {tmp_path}/saved; exit 1"
    program.write_text(f"#!/bin/sh\ntrap '{save}' INT\necho $$ > {tmp_path}/pid\nwhile :; do sleep 0.02; done\n")
    program.chmod(0o755)

    async def scenario(d: Any) -> None:
        first = harness.process(terraform=[str(program)])
        await harness.joined(d)
        one = d.assignment("plan", {"directory": str(configuration)})
        await d.assign(one)

        async def runs() -> bool:
            return read_pid(tmp_path / "pid") > 0

        await harness.until(runs)
        keeper, supervisor = parent_of(read_pid(tmp_path / "pid")), supervisor_of(read_pid(tmp_path / "pid"))
        first.kill()
        os.kill(supervisor, signal.SIGSTOP)  # or one of the two would end what the other has
        for pid in (keeper, supervisor):
            os.kill(pid, signal.SIGKILL)
        async with harness.agent(d, terraform=[str(program)]):
            await d.report(one.task, Lost)
        assert not is_running(read_pid(tmp_path / "pid"))
        assert (tmp_path / "saved").exists()
        assert (tmp_path / "caught").read_text() == "x\n"

    harness.run(scenario)


def test_what_a_new_journal_does_not_know_is_ended_before_the_agent_is_heard_of(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        first = harness.process()
        await harness.joined(d)
        one = d.assignment("command", {"script": f"echo $$ > {tmp_path}/pid; exec sleep 300"})
        await d.assign(one)

        async def runs() -> bool:
            return read_pid(tmp_path / "pid") > 0

        await harness.until(runs)
        first.kill()
        for file in (tmp_path / "agent").glob("journal*"):
            file.unlink()
        second = harness.process()
        await harness.joined(d)
        assert not is_running(read_pid(tmp_path / "pid"))
        assert second.terminate() == 0

    harness.run(scenario)


def test_a_new_journal_is_heard_of_only_when_what_nobody_holds_any_more_has_ended(
    harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the journal, the agent, its supervisor and its keeper gone only its mark tells whose the program is."""
    monkeypatch.setattr(process, "KEEPERS_SECONDS", 0.0)

    async def scenario(d: Any) -> None:
        first = harness.process()
        await harness.joined(d)
        await d.assign(d.assignment("command", {"script": f"echo $$ > {tmp_path}/pid; exec sleep 300"}))

        async def runs() -> bool:
            return read_pid(tmp_path / "pid") > 0

        await harness.until(runs)
        pid = read_pid(tmp_path / "pid")
        keeper, supervisor = parent_of(pid), supervisor_of(pid)
        first.kill()
        for one in (supervisor, keeper):
            os.kill(one, signal.SIGKILL)
        for file in (tmp_path / "agent").glob("journal*"):
            file.unlink()
        async with harness.agent(d):
            await harness.joined(d)
            assert not is_running(pid)

    harness.run(scenario)


def test_a_supervisor_is_told_to_forget_only_what_the_journal_has_the_end_of(
    harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that is killed in between would tell a success as lost."""
    known: list[bool] = []
    forget = Supervised.forget

    def look_and_forget(self: Supervised, attempt: Position) -> None:
        with closing(sqlite3.connect(f"file:{tmp_path}/agent/journal.sqlite?mode=ro", uri=True)) as database:
            records = [json.loads(record) for (record,) in database.execute("SELECT record FROM slots")]
        known.append(any(record["position"] == attempt and record.get("end") for record in records))
        forget(self, attempt)

    monkeypatch.setattr(Supervised, "forget", look_and_forget)

    async def scenario(d: Any) -> None:
        one = d.assignment("command", {"script": "true"})
        await d.assign(one)
        await d.report(one.task, Succeeded)

        async def forgotten() -> bool:
            return bool(known)

        await harness.until(forgotten)
        assert known == [True]

    harness.run_with_agent(scenario)


ON_DISK = """
import json, os, sqlite3, sys
rows = sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True).execute("SELECT record FROM live")
print(os.getpid() in [json.loads(record).get("process", {}).get("pid") for (record,) in rows])
"""


def test_a_program_begins_only_after_its_pid_is_on_disk(harness: Any, tmp_path: Path) -> None:
    """The program itself looks whether the journal knows it. Commits are slow: who does not wait for them is found out."""
    commit = Journal._commit

    def slowly(self: Journal, transactions: Any) -> None:
        time.sleep(0.3)
        commit(self, transactions)

    async def scenario(d: Any) -> None:
        journal = tmp_path / "agent" / "journal.sqlite"
        assert sqlite3.connect(journal).execute("SELECT count(*) FROM live").fetchone() == (0,)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Journal, "_commit", slowly)
            one = d.assignment("command", {"argv": [sys.executable, "-c", ON_DISK, str(journal)]})
            await d.assign(one)
            await d.report(one.task, Succeeded, Failed)
        assert await d.output(one.task) == b"True\n"

    harness.run_with_agent(scenario)
