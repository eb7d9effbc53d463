"""An instance that is told to stop: it says so first, and answers everything that it was asked before."""

import asyncio
from contextlib import asynccontextmanager, suppress

import httpx
import msgspec
import pytest
from fakes import accept, answers_of
from nats.errors import NoRespondersError
from running_api import World, connect, settings_for, until_ready

from taskyard.api.app import serve
from taskyard.contracts.commands import AnswerBatch
from taskyard.contracts.subjects import COMMAND_SUBJECTS, HEADER_ANSWER, answer_subject
from taskyard.contracts.values import POOL_DEFAULT
from taskyard.embedded.nats_users import CONTROL_KEEPER
from taskyard.service import linked

pytestmark = pytest.mark.anyio

NOOP = {"kind": "noop", "input": {}}
SECONDS_MAX = 20.0


class LateScheduler:
    """Knows the commands that were stored, and answers them when it is told to."""

    def __init__(self, control) -> None:
        self._control = control
        self.waiting = []

    async def hear(self, message) -> None:
        self.waiting.append(message)

    async def answer_all(self) -> None:
        for message in self.waiting:
            batch = AnswerBatch(outcomes=(answers_of(msgspec.json.decode(message.data), accept),))
            await self._control.publish(answer_subject(message.headers[HEADER_ANSWER]), msgspec.json.encode(batch))


@asynccontextmanager
async def stoppable(server, drain_seconds: float):
    settings = msgspec.structs.replace(settings_for(server), drain_seconds=drain_seconds)
    control = await connect(server, CONTROL_KEEPER)
    scheduler = LateScheduler(control)
    await control.subscribe(COMMAND_SUBJECTS, cb=scheduler.hear)
    await control.flush()
    stop = asyncio.Event()
    async with linked("api", settings) as links:
        world = World(server, control, links, f"http://127.0.0.1:{settings.http_port}")
        serving = asyncio.create_task(serve(settings, links, world.read_model, stop, answer_seconds=SECONDS_MAX))
        try:
            await until_ready(world, serving)
            yield world, scheduler, stop, serving
        finally:
            stop.set()
            await serving
            await control.close()


async def request_for_ever(client, subject: str) -> None:
    """Until nobody takes part any more in answering requests."""
    while True:
        with suppress(TimeoutError):  # it was still taken
            await client.request(subject, msgspec.json.encode(NOOP), timeout=0.2)


async def test_what_was_asked_before_the_stop_is_answered_and_what_comes_later_goes_elsewhere(nats_server):
    async with (
        stoppable(nats_server, drain_seconds=0.0) as (world, scheduler, stop, serving),
        world.http() as http,
        asyncio.timeout(SECONDS_MAX),
    ):
        admin = await world.nats("admin")
        subject = f"taskyard.request.admin.{POOL_DEFAULT}.submit"
        over_nats = asyncio.create_task(admin.request(subject, msgspec.json.encode(NOOP), timeout=SECONDS_MAX))
        over_http = asyncio.create_task(http.post("/api/v1/tasks", json=NOOP))
        while len(scheduler.waiting) < 2:
            await asyncio.sleep(0.01)
        stop.set()
        with pytest.raises(NoRespondersError):
            await request_for_ever(admin, subject)
        assert not serving.done()
        await scheduler.answer_all()
        assert msgspec.json.decode((await over_nats).data)["code"] == 202
        assert (await over_http).status_code == 202
        await serving
        await admin.close()


async def test_it_says_that_it_stops_and_still_takes_requests_for_a_while(nats_server):
    async with stoppable(nats_server, drain_seconds=1.0) as (world, _, stop, serving), world.http() as http:
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.headers.get("connection")) == (200, None)
        stop.set()
        answer = await http.get("/readyz")
        while answer.status_code == 200:
            answer = await http.get("/readyz")
        assert answer.json()["reasons"]["service"] == "it stops"
        assert answer.headers["connection"] == "close"
        read = await http.get("/api/v1/pools")
        assert (read.status_code, read.headers["connection"]) == (200, "close")
        await serving
        with pytest.raises(httpx.ConnectError):
            await http.get("/readyz")
