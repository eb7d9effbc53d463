"""Who was denied what leaves a trace that nobody changes: over HTTP and over NATS, without secrets, and never in bulk."""

import asyncio

import msgspec
import pytest
from nats.js.errors import APIError
from running_api import TOKENS, World, connect

from taskyard.api.denials import TOLD_OF_ONE_PER_MINUTE_MAX
from taskyard.contracts.audit import AccessDenied
from taskyard.contracts.subjects import AUDIT
from taskyard.embedded.nats_users import CONTROL_READER
from taskyard.eventlog.jetstream_api import message_at, stream_info

NOOP = {"kind": "noop", "input": {}}
SECRET = "a-token-that-nobody-has"
STORED_SECONDS_MAX = 10.0
FLOOD = 300


class Trace:
    """What is stored from now on, as whoever may read the log reads it."""

    async def begin(self, world: World) -> None:
        self._nc = await connect(world.server, CONTROL_READER, inbox_prefix=f"_INBOX_{CONTROL_READER}".encode())
        self._before = (await stream_info(self._nc, AUDIT)).state.last_seq

    async def read(self, count: int) -> list[AccessDenied]:
        """Wait until so many stand there, and read all."""
        async with asyncio.timeout(STORED_SECONDS_MAX):
            while (last := (await stream_info(self._nc, AUDIT)).state.last_seq) < self._before + count:
                await asyncio.sleep(0.02)
        found = [await message_at(self._nc, AUDIT, number) for number in range(self._before + 1, last + 1)]
        data = [message.data for message in found if message is not None]
        assert not any(secret.encode() in each for each in data for secret in (SECRET, *TOKENS.values()))
        return [msgspec.json.decode(each, type=AccessDenied) for each in data]

    async def end(self) -> None:
        await self._nc.close()


@pytest.fixture
async def trace(world: World):
    trace = Trace()
    await trace.begin(world)
    yield trace
    await trace.end()


@pytest.mark.anyio
async def test_who_is_denied_something_over_http_leaves_an_audit_event(world: World, trace: Trace) -> None:
    async with world.http("") as nobody, world.http("vera") as vera:
        stolen = {"Authorization": f"Bearer {SECRET}"}
        assert (await nobody.get("/api/v1/tasks", params={"q": SECRET}, headers=stolen)).status_code == 401
        assert (await vera.post("/api/v1/tasks", json=NOOP)).status_code == 403

    first, second = await trace.read(2)

    assert (first.door, first.status, first.by, first.what) == ("http", 401, None, "GET /api/v1/tasks")
    assert (first.address, first.reason) == ("127.0.0.1", "the token is not valid")
    assert (second.door, second.status, second.by, second.what) == ("http", 403, "vera", "POST /api/v1/tasks")


@pytest.mark.anyio
async def test_who_is_denied_something_over_nats_leaves_an_audit_event(world: World, trace: Trace) -> None:
    vera = await world.nats("vera")
    await vera.request("taskyard.request.vera.default.submit", msgspec.json.encode(NOOP), timeout=5)
    await vera.close()

    (event,) = await trace.read(1)

    assert (event.door, event.status, event.by, event.what) == ("nats", 403, "vera", "default.submit")


@pytest.mark.anyio
async def test_a_flood_of_denials_leaves_some_events_and_how_many_were_left_out(world: World, trace: Trace) -> None:
    async with world.http("") as nobody, world.http("vera") as vera:
        answers = await asyncio.gather(*(nobody.get("/api/v1/tasks") for _ in range(FLOOD)))
        assert {answer.status_code for answer in answers} == {401}
        assert (await vera.post("/api/v1/tasks", json=NOOP)).status_code == 403

    events = await trace.read(2)
    while events[-1].by != "vera":
        events = await trace.read(len(events) + 1)

    minutes = 2  # the flood may have come about the turn of one
    assert TOLD_OF_ONE_PER_MINUTE_MAX < len(events) <= minutes * TOLD_OF_ONE_PER_MINUTE_MAX + 1
    assert sum(event.left_out for event in events) + len(events) == FLOOD + 1


@pytest.mark.anyio
async def test_nobody_changes_what_was_traced(world: World, trace: Trace) -> None:
    async with world.http("") as nobody:
        await nobody.get("/api/v1/tasks")
    await trace.read(1)
    stream = world.control.jetstream()
    for change in (stream.purge_stream(AUDIT), stream.delete_msg(AUDIT, 1)):
        with pytest.raises(APIError):
            await change
