"""The doors while NATS is away: an honest 503, and work goes on by itself afterwards."""

import asyncio

import pytest
from running_api import running

from taskyard.api.clock import make_id
from taskyard.embedded.nats_server import NatsServer

pytestmark = pytest.mark.anyio

SECONDS_MAX = 20.0


async def test_without_nats_commands_are_503_and_are_taken_again_afterwards(tmp_path):
    server = NatsServer(tmp_path / "nats", clients=["admin", "oscar"], viewers=["vera"])
    server.start()
    try:
        async with running(server) as world, world.http() as http:
            body = {"id": make_id(), "kind": "noop", "input": {}}
            assert (await http.post("/api/v1/tasks", json=body)).status_code == 202
            await asyncio.to_thread(server.stop)
            submit, cancel, ready, log = await asyncio.gather(
                http.post("/api/v1/tasks", json=body),
                http.post(f"/api/v1/tasks/{make_id()}/cancel"),
                http.get("/readyz"),
                http.get("/healthz"),
            )
            assert (submit.status_code, cancel.status_code, ready.status_code, log.status_code) == (503, 503, 503, 200)
            assert submit.headers["Retry-After"]
            assert submit.headers["content-type"] == "application/problem+json"
            assert "nats" in ready.json()["reasons"]
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(SECONDS_MAX):
                while (await http.post("/api/v1/tasks", json=body)).status_code != 202:
                    await asyncio.sleep(0.1)
    finally:
        server.stop()
