"""Output on its way: chunks, order, what is missing, and how the next agent goes on."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from taskyard.agent import output as output_module
from taskyard.agent.errors import NotStoredError
from taskyard.agent.output import AttemptOutput
from taskyard.agent.programs import Program
from taskyard.agent.supervisor.protocol import Kept, ProgramState, Room, spool_file
from taskyard.agent.supervisor.spool import Spool
from taskyard.contracts.agent_protocol import OUTPUT_CHUNK_BYTES_MAX, Assignment
from taskyard.contracts.values import Position, TaskId

ROOM = Room(1 << 20, 1 << 20)
ONE = Assignment(
    position=Position(7),
    task=TaskId("t"),
    attempt=1,
    slot=0,
    incarnation="r1",
    kind="command",
    input=msgspec.Raw(b"null"),
    timeout_seconds=1.0,
)


class Store:
    """JetStream with its memory of ids, there or away."""

    def __init__(self) -> None:
        self.is_away = False
        self.texts: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        self.sizes: list[int] = []
        self.ids: set[str] = set()
        self.stop_after: int | None = None

    async def store(self, subject: str, payload: bytes, *, headers: dict[str, str], timeout_seconds: float) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise NotStoredError("away")
        if headers["Nats-Msg-Id"] in self.ids:
            return
        stream = headers["Taskyard-Stream"]
        assert int(headers["Taskyard-Offset"]) == len(self.texts[stream])
        self.ids.add(headers["Nats-Msg-Id"])
        self.texts[stream] += payload
        self.sizes.append(len(payload))
        if self.stop_after is not None and len(self.sizes) >= self.stop_after:
            raise asyncio.CancelledError  # the agent dies when it is stored, before it knows


class Writer:
    """A program that says what a test wants, as its supervisor sees it."""

    def __init__(self, folder: Path, step: str = "one", room: Room = ROOM) -> None:
        (folder / "spool").mkdir(exist_ok=True)
        self.program = Program(7, step, (room, room), folder)
        self.spools = [Spool(spool_file(folder, 7, step, stream), room) for stream in ("stdout", "stderr")]

    def say(self, out: bytes = b"", err: bytes = b"", status: int | None = None) -> None:
        for spool, data in zip(self.spools, (out, err), strict=True):
            if data:
                spool.write(data)
        kept: tuple[Kept, Kept] = (self.spools[0].kept, self.spools[1].kept)
        self.program.become(ProgramState(step=self.program.state.step, pid=1, status=status, kept=kept))


class Told:
    """What the supervisor keeps for the next agent."""

    sent = b""

    async def tell(self, sent: bytes) -> None:
        self.sent = sent


def an_output(store: Store, told: Told, sent: bytes = b"") -> AttemptOutput:
    return AttemptOutput(agent="w1", assignment=ONE, sender=store, tell=told.tell, sent=sent)


def run(scenario: Callable[[Store, Told], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(10):
            await scenario(Store(), Told())

    asyncio.run(main())


def test_both_streams_of_all_programs_arrive_whole_in_bounded_chunks(tmp_path: Path) -> None:
    async def scenario(store: Store, told: Told) -> None:
        output = an_output(store, told)
        pump = asyncio.create_task(output.run())
        first, second = Writer(tmp_path, "one"), Writer(tmp_path, "two")
        output.show(first.program)
        for number in range(300):
            first.say(b"line %d\n" % number * 50, b"oops %d\n" % number)
            await asyncio.sleep(0)
        first.say(status=0)
        output.show(second.program)
        second.say(b"more\n", b"", status=0)
        output.close()
        await pump
        assert store.texts["stdout"] == b"".join(b"line %d\n" % number * 50 for number in range(300)) + b"more\n"
        assert store.texts["stderr"] == b"".join(b"oops %d\n" % number for number in range(300))
        assert max(store.sizes) <= OUTPUT_CHUNK_BYTES_MAX

    run(scenario)


def test_while_nothing_can_be_stored_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_module, "RETRY_SECONDS", 0.01)

    async def scenario(store: Store, told: Told) -> None:
        store.is_away = True
        output = an_output(store, told)
        writer = Writer(tmp_path)
        output.show(writer.program)
        pump = asyncio.create_task(output.run())
        writer.say(b"x" * 1_000_000)
        await asyncio.sleep(0.05)
        writer.say(b"y" * 1_000_000, status=0)
        store.is_away = False
        output.close()
        await pump
        assert store.texts["stdout"] == b"x" * 1_000_000 + b"y" * 1_000_000

    run(scenario)


@pytest.mark.parametrize("stop_after", range(1, 8))
def test_the_next_agent_goes_on_without_a_gap_and_doubles_nothing(tmp_path: Path, stop_after: int) -> None:
    async def scenario(store: Store, told: Told) -> None:
        first, second = Writer(tmp_path, "one"), Writer(tmp_path, "two")
        first.say(b"a" * 70_000, b"b" * 50_000)
        store.stop_after = stop_after
        output = an_output(store, told)
        output.show(first.program)
        pump = asyncio.create_task(output.run())
        if stop_after > 5:
            first.say(status=0)
            output.show(second.program)
            second.say(b"c" * 100_000)
        while not pump.done():
            await asyncio.sleep(0)
        # More has come by the time when the next agent is there.
        if stop_after <= 5:
            first.say(b"a" * 10_000, status=0)
            second.say(b"c" * 100_000)
        second.say(b"d", status=0)
        store.stop_after = None
        again = an_output(store, told, told.sent)
        again.show(first.program)
        again.show(second.program)
        again.close()
        await again.run()
        assert store.texts["stdout"] == b"a" * (80_000 if stop_after <= 5 else 70_000) + b"c" * 100_000 + b"d"
        assert store.texts["stderr"] == b"b" * 50_000

    run(scenario)


def test_what_is_missing_is_marked_and_counted(tmp_path: Path) -> None:
    async def scenario(store: Store, told: Told) -> None:
        output = an_output(store, told)
        writer = Writer(tmp_path, room=Room(10, 5))
        output.show(writer.program)
        output.close()
        writer.say(b"0123456789" * 10, b"short", status=1)
        await output.run()
        mark = b"\n[taskyard: 85 bytes of output are missing here: only the beginning and the end are kept]\n"
        assert store.texts == {"stdout": b"0123456789" + mark + b"56789", "stderr": b"short"}

    run(scenario)
