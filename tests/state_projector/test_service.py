"""The whole service on a real nats-server and a real PostgreSQL."""

import asyncio
from typing import Any

import asyncpg
import httpx

from taskyard.embedded.nats_server import NatsServer
from taskyard.eventlog.commit import Commit
from taskyard.service import linked
from taskyard.settings import Settings
from taskyard.state_projector import rebuild
from taskyard.state_projector.app import run as run_service

SECONDS_MAX = 20.0


def test_what_is_appended_is_read_and_rebuilt_the_same(
    story: Any, settings: Settings, dsn: str, run: Any, nats_server: NatsServer
) -> None:
    story.tell_anything(7, commits=60)

    async def append(after: int) -> None:
        last: dict[str, int] = {}
        async with linked("test", settings) as links:
            for message in story.stream.after(after):
                commit: Commit[Any] = story.codec.decode(message.data)
                found = await links.log.last(commit.writer) if commit.writer not in last else None
                expected = last.get(commit.writer, found.sequence if found else 0)
                sequence = await links.log.append(message.data, writer=commit.writer, expected=expected)
                last[commit.writer] = sequence

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
            await append(0)
            await wait_for(story.head)
            assert "taskyard_projected_events_total" in (await client.get("/metrics")).text
            port = nats_server.port
            await asyncio.to_thread(nats_server.stop)
            await asyncio.to_thread(nats_server.start)
            assert nats_server.port == port
            written = story.head
            story.tell_anything(8, commits=20)
            await append(written)
            await wait_for(story.head)
            await wait_until_ready(client)
        report = await rebuild.run(settings, verify_only=True)
        assert report.is_equal, report.differing
        assert report.sequence == story.head
        stop.set()
        async with asyncio.timeout(SECONDS_MAX):
            await service

    run(scenario())
