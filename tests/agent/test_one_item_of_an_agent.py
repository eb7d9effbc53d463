"""One message, report, file, program or turn of a loop that raises ends no loop of the agent and harms nothing beside it."""

import asyncio
import os
import selectors
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskyard.agent import attempts as attempts_module
from taskyard.agent import supervised as supervised_module
from taskyard.agent.attempt import Attempt
from taskyard.agent.attempts import Attempts
from taskyard.agent.contact import Contact
from taskyard.agent.disk import Disk
from taskyard.agent.executors.command import Command
from taskyard.agent.executors.directories import Roots
from taskyard.agent.executors.terraform import Terraform
from taskyard.agent.link import Link
from taskyard.agent.slots import SlotMemory
from taskyard.agent.supervisor.connections import Connections
from taskyard.agent.supervisor.protocol import Command as Asked
from taskyard.agent.supervisor.protocol import Forget, Hello, Squeeze, encode_frame
from taskyard.contracts.agent_protocol import Failed, Lost, Started, Succeeded
from taskyard.contracts.values import Instant, make_uuid7


def once(real: Callable[..., Any]) -> Callable[..., Any]:
    """Raises when it is called for the first time."""
    calls = iter((True,))

    def touchy(*args: Any, **named: Any) -> Any:
        return broken() if next(calls, False) else real(*args, **named)

    return touchy


def broken(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("a bug")


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Link, "has_contact"), (Link, "publish"), (Disk, "check"), (Link, "_connect"), (Contact, "made")],
    ids=["contact", "heartbeat", "disk", "connection", "being connected"],
)
def test_a_loop_of_the_agent_goes_on_when_one_turn_of_it_raises(
    harness: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any, owner: type, name: str
) -> None:
    def arm() -> None:
        monkeypatch.setattr(owner, name, once(getattr(owner, name)))

    async def scenario(d: Any) -> None:
        if name == "check":  # the first look is one before there is a loop
            arm()
        one = d.assignment("noop")
        await d.assign(one)
        await d.report(one.task, Succeeded)
        heard = len(d.heartbeats)

        async def goes_on() -> bool:
            return len(d.heartbeats) > heard and "a bug" in caplog.text

        await harness.until(goes_on)

    monkeypatch.setattr("taskyard.agent.contact.HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr("taskyard.agent.app.HEARTBEAT_SECONDS", 0.1)
    if name != "check":
        arm()
    harness.run_with_agent(scenario)


def test_an_assignment_that_cannot_begin_fails_and_the_one_beside_it_runs(
    harness: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(d: Any) -> None:
        bad, good = (d.assignment("command", {"argv": ["true"]}, slot=slot) for slot in range(2))
        begin = Attempt.__init__
        monkeypatch.setattr(
            Attempt, "__init__", lambda self, one, *rest: broken() if one.slot == 0 else begin(self, one, *rest)
        )
        assert [answer.outcome for answer in await d.assign(bad, good)] == ["accepted"] * 2
        assert (await d.report(bad.task, Failed)).error.code == "agent_error"
        await d.report(good.task, Succeeded)
        monkeypatch.undo()
        again = d.assignment("command", {"argv": ["true"]})
        await d.assign(again)
        await d.report(again.task, Succeeded)

    harness.run_with_agent(scenario)


def test_an_assignment_that_cannot_be_judged_has_no_answer_and_the_one_beside_it_runs(
    harness: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(d: Any) -> None:
        bad, good = d.assignment("noop"), d.assignment("noop", slot=1)
        judge = SlotMemory._assign_one  # pyright: ignore[reportPrivateUsage]
        monkeypatch.setattr(
            SlotMemory, "_assign_one", lambda self, one, *rest: broken() if one.slot == 0 else judge(self, one, *rest)
        )
        assert [answer.position for answer in await d.assign(bad, good)] == [good.position]
        monkeypatch.undo()
        assert [answer.position for answer in await d.assign(bad)] == [bad.position]
        await d.report(bad.task, Succeeded)

    harness.run_with_agent(scenario)


def test_an_attempt_over_whose_end_the_agent_fails_is_lost_and_the_one_beside_it_goes_on(
    harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(d: Any) -> None:
        gate = tmp_path / "gate"
        bad = d.assignment("command", {"argv": ["true"]})
        good = d.assignment("command", {"script": f"while ! test -e {gate}; do sleep 0.05; done"}, slot=1)
        report = attempts_module._report  # pyright: ignore[reportPrivateUsage]
        monkeypatch.setattr(
            attempts_module, "_report", lambda one, outcome: broken() if one.slot == 0 else report(one, outcome)
        )
        await d.assign(bad, good)
        await d.report(bad.task, Lost)
        gate.touch()
        await d.report(good.task, Succeeded)
        monkeypatch.undo()
        again = d.assignment("command", {"argv": ["true"]})
        await d.assign(again)
        await d.report(again.task, Succeeded)

    harness.run_with_agent(scenario)


def test_a_failure_whose_words_are_no_text_is_told(harness: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the name of a file may be that a host speaks of."""

    async def scenario(d: Any) -> None:
        async def fails(*_: Any) -> None:
            raise FileNotFoundError(f"no {os.fsdecode(bytes((0xFF,)))}")

        monkeypatch.setattr(Command, "run", fails)
        one = d.assignment("command", {"argv": ["true"]})
        await d.assign(one)
        failed = await d.report(one.task, Failed)
        assert (failed.error.code, failed.error.message) == ("host_error", "no ?")

    harness.run_with_agent(scenario)


def test_what_stops_one_attempt_without_contact_stops_those_beside_it_though_it_raises(
    harness: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(d: Any) -> None:
        async with harness.agent(d):
            both = [d.assignment("command", {"argv": ["sleep", "60"]}, slot=slot) for slot in range(2)]
            await d.assign(*both)
            for one in both:
                await d.report(one.task, Started)
            stop = Attempt.stop
            monkeypatch.setattr(
                Attempt,
                "stop",
                lambda self, request: broken() if self.assignment.slot == 0 else stop(self, request),
            )
            monkeypatch.setattr("taskyard.agent.contact.SELF_FENCE_SECONDS", -1.0)
            assert (await d.report(both[1].task, Failed)).error.code == "self_fenced"
            monkeypatch.undo()

    harness.run(scenario)


def test_what_the_supervisor_says_and_nobody_understands_is_passed_over(
    harness: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    decode = supervised_module.decode_event

    async def scenario(d: Any) -> None:
        monkeypatch.setattr(supervised_module, "decode_event", once(decode))
        one, other = (d.assignment("command", {"argv": ["true"]}, slot=slot) for slot in range(2))
        await d.assign(one)

        async def is_passed_over() -> bool:
            return "what the supervisor says" in [getattr(line, "fields", {}).get("what") for line in caplog.records]

        await harness.until(is_passed_over)
        await d.assign(other)
        await d.report(other.task, Succeeded)

    harness.run_with_agent(scenario)


def test_an_attempt_of_an_earlier_run_that_cannot_go_on_is_ended_and_lost_and_those_beside_it_go_on(
    harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(d: Any) -> None:
        first = harness.process()
        await harness.joined(d)
        gate = tmp_path / "gate"
        script = f"echo $$ > {tmp_path}/pid.$0; while ! test -e {gate}; do sleep 0.05; done"
        bad, good = (d.assignment("command", {"argv": ["sh", "-c", script, str(slot)]}, slot=slot) for slot in range(2))
        await d.assign(bad, good)
        for one in (bad, good):
            await d.report(one.task, Started)

        async def runs() -> bool:
            return all((tmp_path / f"pid.{slot}").exists() for slot in range(2))

        await harness.until(runs)
        first.kill()
        resume = Attempts.resume
        monkeypatch.setattr(
            Attempts,
            "resume",
            lambda self, left: broken() if left.attempt == bad.position else resume(self, left),
        )
        async with harness.agent(d):
            await d.report(bad.task, Lost)
            assert not Path(f"/proc/{(tmp_path / 'pid.0').read_text().strip()}").exists()
            gate.touch()
            await d.report(good.task, Succeeded)

    harness.run(scenario)


def test_output_of_which_nobody_knows_how_far_it_was_sent_is_sent_again_and_its_attempt_goes_on(
    harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(d: Any) -> None:
        first = harness.process()
        await harness.joined(d)
        gate = tmp_path / "gate"
        one = d.assignment("command", {"script": f"echo here; while ! test -e {gate}; do sleep 0.05; done; echo there"})
        await d.assign(one)

        async def is_shown() -> bool:
            return await d.output(one.task) == b"here\n"

        await harness.until(is_shown)
        first.kill()
        decode = msgspec.msgpack.decode

        def touchy(data: bytes, **named: Any) -> Any:
            if named["type"].__name__ == "Progress":
                raise msgspec.DecodeError("of another version")
            return decode(data, **named)

        monkeypatch.setattr(msgspec.msgpack, "decode", touchy)
        async with harness.agent(d):
            gate.touch()
            await d.report(one.task, Succeeded)
            told = [m.data for m in await d.messages("TASKYARD_OUTPUT") if m.subject.endswith(one.task)]
            assert b"".join(told).startswith(b"here\nhere\n") and told[-1].endswith(b"there\n")

    harness.run(scenario)


def test_a_reserve_that_cannot_be_removed_leaves_the_journal_to_tell_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path)

    def refuses(*_: Any, **__: Any) -> None:
        raise OSError("read-only file system")

    monkeypatch.setattr(Path, "unlink", refuses)
    disk.release()
    assert disk.is_full


def test_a_folder_of_a_task_that_nobody_can_look_at_does_not_stop_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / make_uuid7(Instant(1), 1)
    gone = tmp_path / make_uuid7(Instant(1), 2)
    for folder in (old, gone):
        folder.mkdir()
        os.utime(folder, (1, 1))
    stat = Path.stat

    def touchy(self: Path, **named: Any) -> os.stat_result:
        if self.name == gone.name:
            raise FileNotFoundError(self)
        return stat(self, **named)

    monkeypatch.setattr(Path, "stat", touchy)
    Terraform(["true"], tmp_path, roots=Roots(["/"]), environment=())
    monkeypatch.undo()
    assert [one.name for one in tmp_path.iterdir()] == [gone.name]


def test_a_command_to_the_supervisor_that_raises_does_not_take_those_along_that_came_with_it() -> None:
    obeyed: list[Asked] = []

    def obey(command: Asked) -> None:
        obeyed.append(command)
        if isinstance(command, Squeeze):
            broken()

    with selectors.DefaultSelector() as selector, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(b"\0taskyard-test-%d-%d" % (os.getpid(), time.monotonic_ns()))
        listener.listen()
        listener.setblocking(False)
        Connections(
            listener,
            selector,
            greet=lambda: Hello(pid=1, attempts=(), knows_users=True),
            obey=obey,
            on_gone=lambda: None,
        )
        with socket.socket(socket.AF_UNIX) as agent:
            agent.connect(listener.getsockname())
            agent.sendall(encode_frame(Squeeze()) + encode_frame(Forget(attempt=1)))
            while len(obeyed) < 2:
                ready = selector.select(5)
                assert ready, "both are obeyed"
                for key, _ in ready:
                    key.data()
            agent.sendall(encode_frame(Forget(attempt=2)))
            for key, _ in selector.select(5):
                key.data()
        for key, _ in selector.select(5):  # the agent has gone
            key.data()
    assert obeyed == [Squeeze(), Forget(attempt=1), Forget(attempt=2)]


def test_what_was_not_begun_is_not_given_up_while_the_server_was_never_there(
    harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.agent.app.START_SECONDS_MAX", 0.2)
    give_up = SlotMemory.give_up_unbegun
    given_up: list[float] = []

    def noted(self: SlotMemory, *, now: Instant) -> Any:
        given_up.append(time.monotonic())
        return give_up(self, now=now)

    monkeypatch.setattr(SlotMemory, "give_up_unbegun", noted)

    async def scenario(d: Any) -> None:
        harness.server.stop()
        works = asyncio.Event()
        connect = Link.run

        async def noted_run(self: Link) -> None:
            works.set()
            await connect(self)

        monkeypatch.setattr(Link, "run", noted_run)
        async with asyncio.TaskGroup() as group:

            async def run_agent() -> None:
                async with harness.agent(d):

                    async def is_given_up() -> bool:
                        return bool(given_up)

                    await harness.until(is_given_up)

            group.create_task(run_agent())

            await works.wait()
            await asyncio.sleep(1.0)  # that this is longer than it waits is what is tested
            assert given_up == []
            harness.server.start()

    harness.run(scenario)
