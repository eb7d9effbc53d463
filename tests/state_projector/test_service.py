"""The whole service on a real nats-server and a real PostgreSQL."""

import asyncio
from typing import Any

import asyncpg
import httpx
from real_log import append

from taskyard.embedded.nats_server import NatsServer
from taskyard.service import linked
from taskyard.settings import Settings
from taskyard.state_projector.app import run as run_service
from taskyard.state_projector.rebuild import rebuild

SECONDS_MAX = 20.0


def test_what_is_appended_is_read_and_rebuilt_the_same(
    story: Any, settings: Settings, dsn: str, run: Any, nats_server: NatsServer
) -> None:
    story.tell_anything(7, commits=60)

    async def wait_for(sequence: int) -> None:
        connection = await asyncpg.connect(dsn)
        async with asyncio.timeout(SECONDS_MAX):
            while await connection.fetchval("SELECT sequence FROM taskyard.log_position") != sequence:
                await asyncio.sleep(0.01)
        await connection.close()

    async def wait_until_ready(client: httpx.AsyncClient) -> None:
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                try:
                    if (await client.get("/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.02)

    async def scenario() -> None:
        stop = asyncio.Event()
        service = asyncio.create_task(run_service(settings, stop))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.health_port}") as client:
            await wait_until_ready(client)
            await append(story, settings)
            await wait_for(story.head)
            assert "taskyard_projected_events_total" in (await client.get("/metrics")).text
            port = nats_server.port
            await asyncio.to_thread(nats_server.stop)
            await asyncio.to_thread(nats_server.start)
            assert nats_server.port == port
            written = story.head
            story.tell_anything(8, commits=20)
            await append(story, settings, written)
            await wait_for(story.head)
            await wait_until_ready(client)
        async with linked("rebuild", settings) as links:
            report = await rebuild(links.log, dsn, verify_only=True)
        assert report.is_equal, report.differing
        assert report.sequence == story.head
        stop.set()
        async with asyncio.timeout(SECONDS_MAX):
            await service

    run(scenario())
