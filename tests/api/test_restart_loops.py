"""What is told of a service that leads for a while, dies, and is started again, time after time."""

import asyncio

import msgspec
import pytest
from real_servers import nats_running, own_users
from running_api import USERS, World, led, running, settings_for

from taskyard.api.leaders import BEGINNINGS_MAX
from taskyard.contracts.events import DECIDERS, SCHEDULER
from taskyard.scheduler import app as scheduler

LIFE_SECONDS = 6.0


@pytest.mark.anyio
@pytest.mark.timeout(180)
async def test_health_is_503_while_the_scheduler_dies_6_s_after_it_leads_again_and_again(tmp_path) -> None:
    """A real one, whose program ends without giving anything up; the other services are led."""
    with nats_running(tmp_path, **USERS) as server:
        async with running(server) as world:
            await _tell_of_the_loop(world)


async def _tell_of_the_loop(world: World) -> None:
    settings = settings_for(world.server)
    settings = msgspec.structs.replace(settings, **own_users(world.server, SCHEDULER), makes_streams=False)

    async def epoch() -> int:
        last = await world.log.last(SCHEDULER)
        return 0 if last is None else last.commit.epoch

    async def live() -> None:
        before = await epoch()
        program = asyncio.create_task(scheduler.run(settings, asyncio.Event()))
        while await epoch() == before:
            assert not program.done()
            await asyncio.sleep(0.05)
        await asyncio.sleep(LIFE_SECONDS)  # how long it lives is what this is about
        program.cancel()
        await asyncio.gather(program, return_exceptions=True)

    async with led(world, *(writer for writer in DECIDERS if writer != SCHEDULER)), world.http("") as anybody:
        for _ in range(2):
            await live()
        assert (await anybody.get("/api/v1/health")).status_code == 200, "two changes are a hand-over"
        for _ in range(BEGINNINGS_MAX - 1):
            await live()
        answer = await anybody.get("/api/v1/health")
        text = (await anybody.get("/metrics")).text
    assert answer.status_code == 503
    assert list(answer.json()["reasons"]) == [SCHEDULER]
    assert "leadership began 5 times in the last 120 s" in answer.json()["reasons"][SCHEDULER]
    assert 'taskyard_writer_healthy{service="scheduler"} 0.0' in text
    assert 'taskyard_writer_leaders_begun{service="scheduler"} 5.0' in text
