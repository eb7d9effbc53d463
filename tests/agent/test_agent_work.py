"""What an agent does with assignments and cancels, over a real nats-server."""

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import nats.errors
import pytest
from host_processes import is_running

from taskyard.contracts.agent_protocol import Failed, Started, Succeeded


def result(report: Any) -> Any:
    return msgspec.json.decode(report.result)


def pids(path: Path) -> list[int]:
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def test_the_first_heartbeat_comes_at_once_and_tells_everything(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        heartbeat = d.heartbeats[0]
        assert heartbeat.slots == (("any",), ("plan",))
        assert set(heartbeat.kinds) == {"command", "noop", "plan", "plan_and_apply"}
        assert heartbeat.labels == {"zone": "a"}
        assert not heartbeat.leaving

    harness.run_with_agent(scenario, slots=[["any"], ["plan"]], labels={"zone": "a"})


def test_a_burst_of_noops_starts_and_succeeds_in_order(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        burst = [d.assignment("noop", {"n": slot}, slot=slot) for slot in range(200)]
        answers = await d.assign(*burst)
        assert [answer.outcome for answer in answers] == ["accepted"] * 200
        await d.report(burst[-1].task, Succeeded)
        reports = await d.reports()
        assert len(reports) == 400
        assert [type(one) for one in reports if one.task == burst[7].task] == [Started, Succeeded]

    harness.run_with_agent(scenario, slots=[["any"]] * 256)


def test_a_command_runs_with_its_environment_and_its_output_is_stored_before_its_end(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        script = 'echo "hello $NAME"; pwd; echo oops >&2; test -z "$TASKYARD_PASSWORD"'
        one = d.assignment("command", {"script": script, "env": {"NAME": "you"}})
        await d.assign(one)
        end = await d.report(one.task, Succeeded, Failed)
        stdout = (await d.output(one.task)).decode().splitlines()
        assert stdout[0] == "hello you"
        assert await d.output(one.task, "stderr") == b"oops\n"
        assert result(end) == {"exit_code": 0}
        assert not Path(stdout[1]).exists(), "the working directory is removed"
        assert [type(report) for report in await d.reports(one.task)] == [Started, Succeeded]

    harness.run_with_agent(scenario)


def test_a_command_that_fails_tells_its_exit_code_and_last_words(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment("command", {"script": "echo working; echo no luck >&2; exit 3"})
        await d.assign(one)
        end = await d.report(one.task, Failed)
        assert end.error.code == "exit_status"
        assert end.error.retryable
        assert end.error.message == "the command ended with 3: no luck"
        assert result(end) == {"exit_code": 3}

    harness.run_with_agent(scenario)


def test_a_command_that_kills_itself_is_told_with_the_signal(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment("command", {"script": "kill -SEGV $$"})
        await d.assign(one)
        assert "SIGSEGV" in (await d.report(one.task, Failed)).error.message

    harness.run_with_agent(scenario)


def test_a_program_that_is_not_there_is_final(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment("command", {"argv": ["no-such-program-anywhere"]})
        await d.assign(one)
        end = await d.report(one.task, Failed)
        assert (end.error.code, end.error.retryable) == ("not_found", False)

    harness.run_with_agent(scenario)


def test_wrong_input_is_final(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment("command", {"argv": []})
        await d.assign(one)
        end = await d.report(one.task, Failed)
        assert (end.error.code, end.error.retryable) == ("invalid_input", False)

    harness.run_with_agent(scenario)


def test_output_comes_while_the_command_runs(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment("command", {"script": "echo first; sleep 60"})
        await d.assign(one)

        async def shown() -> bool:
            return await d.output(one.task) == b"first\n"

        await harness.until(shown)
        assert not [report for report in await d.reports(one.task) if isinstance(report, Succeeded | Failed)]
        await d.cancel(one)
        await d.report(one.task, Failed)

    harness.run_with_agent(scenario)


def test_of_too_much_output_the_beginning_and_the_end_are_shown_and_what_is_missing_is_counted(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        script = "echo begins; head -c 3000000 /dev/zero; echo the end; echo broken >&2"
        one = d.assignment("command", {"script": script})
        await d.assign(one)
        await d.report(one.task, Succeeded)
        mark = b"\n[taskyard: 2900015 bytes of output are missing here: only the beginning and the end are kept]\n"
        output = await d.output(one.task)
        assert output.startswith(b"begins\n")
        assert output.endswith(b"the end\n")
        assert output[50_000:-50_000] == mark
        assert await d.output(one.task, "stderr") == b"broken\n"

    harness.run_with_agent(scenario, output_bytes_max=100_000)


def test_a_repeated_assignment_runs_once_and_its_end_is_reported_again(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment("command", {"script": f"echo x >> {tmp_path}/runs; sleep 0.3"})
        answers = [(await d.assign(one))[0].outcome for _ in range(3)]
        assert answers == ["accepted"] * 3
        await d.report(one.task, Succeeded)
        assert (await d.assign(one))[0].outcome == "accepted"
        await d.report(one.task, Succeeded, count=2)
        assert (tmp_path / "runs").read_text() == "x\n"

    harness.run_with_agent(scenario)


def test_a_cancel_reaches_children_that_ignore_term(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        stubborn = f"trap '' TERM; echo $$ >> {tmp_path}/pids; while :; do sleep 1; done"
        script = f"trap '' TERM; (sh -c \"{stubborn.replace('$$', chr(92) + '$' + chr(92) + '$')}\" &); {stubborn}"
        one = d.assignment("command", {"script": script})
        await d.assign(one)

        async def two_run() -> bool:
            return len(pids(tmp_path / "pids")) == 2

        await harness.until(two_run)
        assert await d.cancel(one, grace_seconds=0.5) == "accepted"
        end = await d.report(one.task, Failed)
        assert (end.error.code, end.error.retryable) == ("cancelled", False)
        assert [pid for pid in pids(tmp_path / "pids") if is_running(pid)] == []

    harness.run_with_agent(scenario)


def test_what_a_command_leaves_in_its_group_ends_before_the_report(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment("command", {"script": f"sleep 300 & echo $! > {tmp_path}/pids"})
        await d.assign(one)
        await d.report(one.task, Succeeded)
        assert [pid for pid in pids(tmp_path / "pids") if is_running(pid)] == []

    harness.run_with_agent(scenario)


def test_a_process_that_left_the_group_ends_before_the_report(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        wait = f"while [ ! -s {tmp_path}/pids ]; do sleep 0.02; done"
        one = d.assignment("command", {"script": f"setsid sh -c 'echo $$ > {tmp_path}/pids; exec sleep 300' & {wait}"})
        await d.assign(one)
        await d.report(one.task, Succeeded)
        assert [pid for pid in pids(tmp_path / "pids") if is_running(pid)] == []

    harness.run_with_agent(scenario)


def test_a_cancel_ends_what_left_the_group_by_a_double_fork(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        script = f"(setsid sh -c 'env -i sleep 300 & echo $! > {tmp_path}/pids' &) & sleep 300"
        one = d.assignment("command", {"script": script})
        await d.assign(one)

        async def runs() -> bool:
            return len(pids(tmp_path / "pids")) == 1

        await harness.until(runs)
        await d.cancel(one, grace_seconds=0.5)
        await d.report(one.task, Failed)
        assert [pid for pid in pids(tmp_path / "pids") if is_running(pid)] == []

    harness.run_with_agent(scenario)


def test_the_deadline_is_enforced(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment("command", {"argv": ["sleep", "300"]}, timeout_seconds=0.5)
        started = time.monotonic()
        await d.assign(one)
        end = await d.report(one.task, Failed)
        assert (end.error.code, end.error.message) == ("timeout", "execution timeout")
        assert time.monotonic() - started < 5

    harness.run_with_agent(scenario)


def test_a_cancel_of_an_unseen_assignment_is_recorded_for_ever(harness: Any, tmp_path: Path) -> None:
    one = None

    async def cancel_first(d: Any) -> None:
        nonlocal one
        one = d.assignment("command", {"script": f"touch {tmp_path}/ran"})
        assert await d.cancel(one) == "accepted"
        assert (await d.report(one.task, Failed)).error.code == "cancelled"
        assert (await d.assign(one))[0].outcome == "accepted"
        await d.report(one.task, Failed, count=2)

    async def assign_after_a_restart(d: Any) -> None:
        await d.assign(one)
        await d.report(one.task, Failed, count=3)
        assert not (tmp_path / "ran").exists()

    harness.run_with_agent(cancel_first)
    harness.run_with_agent(assign_after_a_restart)


def test_a_slot_whose_process_lives_takes_nothing_newer(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        old = d.assignment("command", {"argv": ["sleep", "300"]})
        new = d.assignment("noop")
        await d.assign(old)
        await d.report(old.task, Started)
        answer = (await d.assign(new))[0]
        assert answer.outcome == "declined"
        assert old.task in answer.reason
        assert "process" in answer.reason
        assert (await d.report(old.task, Failed)).error.code == "cancelled"
        assert (await d.assign(new))[0].outcome == "declined", "what was declined stays declined"
        assert (await d.assign(d.assignment("noop")))[0].outcome == "accepted"

    harness.run_with_agent(scenario)


def test_what_is_meant_for_another_incarnation_is_not_answered_since_that_one_has_to(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment("noop")
        with pytest.raises(nats.errors.TimeoutError):
            await d.assign(one, incarnation="r-of-another", timeout_seconds=0.5)
        assert await d.reports(one.task) == []

    harness.run_with_agent(scenario)


def test_an_assignment_to_a_run_with_another_journal_is_lost(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment("noop", incarnation="r-of-another")
        assert (await d.assign(one))[0].outcome == "lost"

    harness.run_with_agent(scenario)


def test_an_agent_that_leaves_stops_what_runs_and_says_so(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        async with harness.agent(d) as agent:
            one = d.assignment("command", {"argv": ["sleep", "300"]})
            await d.assign(one)
            await d.report(one.task, Started)
            leaving = asyncio.create_task(agent.stop())

            async def told() -> bool:
                return d.heartbeats[-1].leaving

            await harness.until(told)
            late = (await d.assign(d.assignment("noop", slot=1)))[0]
            assert (late.outcome, late.reason) == ("declined", "draining")
            await leaving
            end = await d.report(one.task, Failed)
            assert (end.error.code, end.error.retryable) == ("worker_stopped", True)

    harness.run(scenario)
