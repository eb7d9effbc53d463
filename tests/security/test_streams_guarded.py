"""What is stored cannot be taken back, by whoever; and a server that is not as it must be is not worked with."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from agents_world import connect
from nats.aio.client import Client
from real_servers import nats_running, own_users, service_settings

from taskyard.contracts.subjects import AGENTS, CONTROL, streams
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.nats_users import AGENTS_KEEPER, CONTROL_KEEPER
from taskyard.eventlog.errors import ApiRefused, StreamMissing
from taskyard.eventlog.jetstream_api import api_request, publish, stream_info
from taskyard.eventlog.streams import ensure_streams, stream_config
from taskyard.eventlog.strictness import is_strict
from taskyard.service import NotStrict, linked
from taskyard.settings import Settings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_running(tmp_path / "nats", clients=[], agents=["worker-1"]) as running:
        yield running


async def keepers(server: NatsServer) -> dict[str, Client]:
    return {CONTROL: await connect(server, CONTROL_KEEPER), AGENTS: await connect(server, AGENTS_KEEPER)}


async def close(clients: dict[str, Client]) -> None:
    for client in clients.values():
        await client.close()


def test_no_stream_is_purged_and_no_message_deleted_by_whoever(server: NatsServer) -> None:
    async def scenario() -> None:
        clients = await keepers(server)
        await ensure_streams(clients, streams())
        for spec in streams():
            nc = clients[spec.account]
            subject = spec.subjects[0].replace("*", "one").replace(">", "one")
            await publish(nc, subject, b"{}")
            for call, body in (("PURGE", None), ("MSG.DELETE", {"seq": 1})):
                with pytest.raises(ApiRefused):
                    await api_request(nc, f"STREAM.{call}.{spec.name}", body)
            assert (await stream_info(nc, spec.name)).state.messages == 1
        await close(clients)

    asyncio.run(scenario())


def test_streams_of_before_are_guarded_as_new_ones_are(server: NatsServer) -> None:
    async def scenario() -> None:
        clients = await keepers(server)
        former = [spec for spec in streams() if not spec.append_only]
        for spec in former:
            config = {**stream_config(spec, 1), "deny_delete": False, "deny_purge": False}
            await api_request(clients[spec.account], f"STREAM.CREATE.{spec.name}", config)
        await ensure_streams(clients, streams())
        for spec in former:
            config = (await stream_info(clients[spec.account], spec.name)).config
            assert (config["deny_delete"], config["deny_purge"]) == (True, True)
        await close(clients)

    asyncio.run(scenario())


def as_service(server: NatsServer, name: str, **more: Any) -> Settings:
    told = own_users(server, name) | {"makes_streams": False} | more
    return msgspec.structs.replace(service_settings(server, postgres_dsn=""), **told)


def test_a_service_waits_for_streams_and_makes_none(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskyard.eventlog.streams.AWAIT_SECONDS_MAX", 0.5)

    async def scenario() -> None:
        with pytest.raises(StreamMissing):
            async with linked("scheduler", as_service(server, "scheduler")):
                pass
        clients = await keepers(server)
        for nc in clients.values():
            assert not await nc.jetstream().streams_info()
        await close(clients)
        async with linked("setup", service_settings(server, postgres_dsn="")):
            pass
        for name in ("scheduler", "slot_allocator", "dispatcher", "state_projector", "api"):
            async with linked(name, as_service(server, name, production=True)) as links:
                assert links.control_client.is_connected and links.fleet_client.is_connected

    asyncio.run(scenario())


def test_a_request_that_says_what_the_server_does_not_know_is_refused(server: NatsServer) -> None:
    async def scenario() -> None:
        clients = await keepers(server)
        await ensure_streams(clients, streams())
        assert await is_strict(clients[CONTROL], streams()[0].name)
        with pytest.raises(ApiRefused):
            await api_request(clients[AGENTS], "STREAM.CREATE.NEW", {"name": "NEW", "deny_purges": True})
        await close(clients)

    asyncio.run(scenario())


def test_a_server_that_passes_over_what_it_does_not_know_is_refused_in_production(tmp_path: Path) -> None:
    async def scenario(lax: NatsServer) -> None:
        with pytest.raises(NotStrict, match="strict: true"):
            async with linked("setup", service_settings(lax, postgres_dsn="", production=True)):
                pass
        async with linked("setup", service_settings(lax, postgres_dsn="")):
            pass

    server = NatsServer(tmp_path / "nats", clients=[])
    file = tmp_path / "nats" / "nats-server.conf"
    told = msgspec.json.decode(file.read_bytes())
    told["jetstream"]["strict"] = False
    file.write_bytes(msgspec.json.encode(told))
    server.start()
    try:
        asyncio.run(scenario(server))
    finally:
        server.stop()
