"""Output on its way: chunks, order, and what happens when nothing can be stored."""

import asyncio
from typing import Any

import pytest

from taskyard.agent import output as output_module
from taskyard.agent.errors import NotStoredError
from taskyard.agent.output import OUTPUT_BUFFER_BYTES_MAX, AttemptOutput
from taskyard.contracts.agent_protocol import OUTPUT_CHUNK_BYTES_MAX
from taskyard.contracts.values import TaskId


class Store:
    """JetStream, there or away."""

    def __init__(self) -> None:
        self.is_away = False
        self.texts: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        self.sizes: list[int] = []

    async def store(self, subject: str, payload: bytes, *, headers: dict[str, str], timeout_seconds: float) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise NotStoredError("away")
        stream = headers["Taskyard-Stream"]
        assert int(headers["Taskyard-Offset"]) == len(self.texts[stream])
        self.texts[stream] += payload
        self.sizes.append(len(payload))


def an_output(store: Store) -> AttemptOutput:
    return AttemptOutput(agent="w1", incarnation=1, task=TaskId("t"), attempt=1, sender=store)


async def finish(output: AttemptOutput, pump: "asyncio.Task[Any]") -> None:
    output.close()
    async with asyncio.timeout(5):
        await pump


def test_both_streams_arrive_whole_in_bounded_chunks() -> None:
    async def scenario() -> None:
        store = Store()
        output = an_output(store)
        pump = asyncio.create_task(output.run())
        for number in range(3000):
            output.write("stdout", b"line %d\n" % number)
            output.write("stderr", b"oops %d\n" % number)
        await finish(output, pump)
        assert store.texts["stdout"] == b"".join(b"line %d\n" % number for number in range(3000))
        assert store.texts["stderr"] == b"".join(b"oops %d\n" % number for number in range(3000))
        assert max(store.sizes) <= OUTPUT_CHUNK_BYTES_MAX

    asyncio.run(scenario())


def test_a_full_buffer_holds_the_program_and_lets_it_go() -> None:
    async def scenario() -> None:
        store = Store()
        output = an_output(store)
        flows: list[bool] = []
        output.hold_by(flows.append)
        output.write("stdout", b"x" * (OUTPUT_BUFFER_BYTES_MAX + 1))
        assert flows == [False]
        await finish(output, asyncio.create_task(output.run()))
        assert flows == [False, True]

    asyncio.run(scenario())


def test_the_next_program_of_an_attempt_is_held_too_while_the_buffer_is_full() -> None:
    async def scenario() -> None:
        store = Store()
        output = an_output(store)
        first: list[bool] = []
        second: list[bool] = []
        output.hold_by(first.append)
        output.write("stdout", b"x" * (OUTPUT_BUFFER_BYTES_MAX + 1))
        output.hold_by(None)
        output.hold_by(second.append)
        assert (first, second) == ([False], [False])
        await finish(output, asyncio.create_task(output.run()))
        assert (first, second) == ([False], [False, True])

    asyncio.run(scenario())


def test_without_a_server_output_is_dropped_with_a_mark_and_the_program_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(output_module, "OUTPUT_STALL_SECONDS", 0.0)
    monkeypatch.setattr(output_module, "RETRY_SECONDS", 0.01)

    async def scenario() -> None:
        store = Store()
        store.is_away = True
        output = an_output(store)
        flows: list[bool] = []
        freed = asyncio.Event()

        def flow(flowing: bool) -> None:
            flows.append(flowing)
            if flowing:
                freed.set()

        output.hold_by(flow)
        pump = asyncio.create_task(output.run())
        output.write("stdout", b"x" * (OUTPUT_BUFFER_BYTES_MAX + 1))
        async with asyncio.timeout(5):
            await freed.wait()
        for _ in range(100):
            output.write("stdout", b"y" * 100_000)
        assert flows == [False, True]
        store.is_away = False
        await finish(output, pump)
        text = store.texts["stdout"]
        assert text.startswith(b"x" * (OUTPUT_BUFFER_BYTES_MAX + 1))
        assert b"10000000 bytes of output were dropped" in text

    asyncio.run(scenario())
