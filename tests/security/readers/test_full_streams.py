"""A stream of commands that is full: who commands is told so, nothing that was taken is lost, and it is told before."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from nats.aio.client import Client
from nats.js.errors import APIError
from running_api import World

from taskyard.client import make_id
from taskyard.contracts.subjects import COMMANDS, REPORTS
from taskyard.eventlog import space

LIMIT_BYTES = 200_000
LONG = "x" * 20_000
SUBMIT = "taskyard.command.oscar.default.submit"
REQUEST = "taskyard.request.oscar.default.submit"


@pytest.fixture
async def small(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """The stream of commands has room for so little more; afterwards it is as it was."""
    monkeypatch.setattr(space, "LOOK_SECONDS", 0.0)
    stream = world.control.jetstream()
    found = await stream.stream_info(COMMANDS)
    await stream.update_stream(found.config.evolve(max_bytes=found.state.bytes + LIMIT_BYTES))
    yield world
    await stream.update_stream(found.config)


async def fill(world: World, share: float) -> None:
    """Store commands until so much of the limit is used."""
    found = await world.control.jetstream().stream_info(COMMANDS)
    left = int(found.config.max_bytes * share) - found.state.bytes
    while left > 0:
        size = min(left, 20_000)
        await world.control.jetstream().publish("taskyard.command.admin.default.dance", bytes(size))
        left -= size


@pytest.mark.anyio
async def test_who_commands_while_the_stream_is_full_is_told_so_at_every_door(small: World) -> None:
    oscar: Client = await small.nats("oscar")
    try:
        with pytest.raises(APIError, match="maximum bytes exceeded"):
            await fill(small, 1.1)
        before = (await small.control.jetstream().stream_info(COMMANDS)).state
        large = msgspec.json.encode({"id": make_id(), "kind": "command", "input": {"argv": ["true", LONG]}})
        async with small.http("oscar") as http:
            answer = await http.post("/api/v1/tasks", content=large)
            read = await http.get("/api/v1/tasks")
        asked = msgspec.json.decode((await oscar.request(REQUEST, large, timeout=5)).data)
        stored = msgspec.json.decode((await oscar.request(SUBMIT, large, timeout=5)).data)

        assert (answer.status_code, answer.json()["error"]) == (503, "no_room")
        assert (asked["code"], asked["error"]) == (503, "no_room")
        assert stored["error"]["description"] == "maximum bytes exceeded"
        assert read.status_code == 200
        after = (await small.control.jetstream().stream_info(COMMANDS)).state
        assert (after.first_seq, after.messages) == (before.first_seq, before.messages)
    finally:
        await oscar.close()


@pytest.mark.anyio
async def test_a_stream_that_will_soon_be_full_is_a_warning_and_no_fault(small: World) -> None:
    async with small.http() as http:
        before = (await http.get("/api/v1/health")).json()["warnings"]
        await fill(small, 0.85)
        answer = await http.get("/api/v1/health")
        metrics = (await http.get("/metrics")).text

    assert before == {} or set(before) == {COMMANDS}
    assert list(answer.json()["warnings"]) == [COMMANDS] and "% full" in answer.json()["warnings"][COMMANDS]
    assert answer.json()["reasons"].keys().isdisjoint({COMMANDS})
    shares = {
        line.split("{")[1].split("}")[0]: line for line in metrics.splitlines() if "taskyard_stream_full_share{" in line
    }
    assert {f'stream="{COMMANDS}"', f'stream="{REPORTS}"'} == set(shares)
    assert float(shares[f'stream="{COMMANDS}"'].split()[-1]) > 0.8
