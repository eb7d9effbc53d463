"""One agent that reports without end keeps no other report from being stored, and has no more stored than it may."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import nats.errors
import pytest
from agents_world import World, connect, say_until_stored, services_running, start_flood, start_service, until_joined
from nats.aio.client import Client
from real_servers import nats_running, service_settings

from taskyard.contracts.subjects import REPORTS
from taskyard.embedded.nats_server import NatsServer
from taskyard.machine import intake, relay
from taskyard.machine.intake import REPORTS_HEARD, could_not_store
from taskyard.service import linked

FLOODER, HONEST, STRANGER = "worker-1", "worker-2", "worker-3"
FLOOD_SECONDS = 6.0
FIRST = b"hello"
INCARNATIONS = {FLOODER: "ab" * 8, HONEST: "cd" * 8}


def test_an_agents_reports_are_stored_in_order_while_another_one_floods(tmp_path: Path) -> None:
    async def scenario(server: NatsServer) -> None:
        async with services_running(server) as world, joined(world, FLOODER, HONEST) as (_, honest):
            flood = start_flood(server, FLOODER, "report", b"no report at all", FLOOD_SECONDS)
            told = 0
            while flood.poll() is None:
                await report(honest, HONEST, b"%d" % told)
                told += 1
            sent = int(flood.communicate()[0])
            assert await found(world, HONEST) == [b"%d" % number for number in range(told)]
            may = REPORTS_HEARD.at_once + REPORTS_HEARD.per_second * FLOOD_SECONDS
            assert sent > 10 * may, "no flood"
            assert len(await found(world, FLOODER)) <= may

    run(tmp_path, scenario)


def test_a_dispatcher_that_ends_in_a_flood_costs_the_others_no_report(tmp_path: Path) -> None:
    async def scenario(server: NatsServer) -> None:
        async with services_running(server) as world, joined(world, FLOODER, HONEST) as (_, honest):
            stop = asyncio.Event()
            told = service_settings(server, postgres_dsn="")
            second = asyncio.create_task(start_service(server, "dispatcher", told, stop))
            flood = start_flood(server, FLOODER, "report", b"no report at all", FLOOD_SECONDS)
            number, middle = 0, time.monotonic() + FLOOD_SECONDS / 2
            while flood.poll() is None:
                if time.monotonic() > middle:
                    stop.set()
                await report(honest, HONEST, b"%d" % number)
                number += 1
            flood.communicate()
            await second
            # Once each, though two have heard it.
            assert await found(world, HONEST) == [b"%d" % each for each in range(number)]

    run(tmp_path, scenario)


def test_no_id_of_one_agent_is_that_of_another(tmp_path: Path) -> None:
    async def scenario(server: NatsServer) -> None:
        async with services_running(server) as world, joined(world, FLOODER, HONEST) as (one, other):
            for client, agent in ((one, FLOODER), (other, HONEST), (other, HONEST)):
                await client.request(f"taskyard.report.{agent}", b"{}", timeout=5, headers={"Nats-Msg-Id": "guessed"})
            assert (await found(world, FLOODER), await found(world, HONEST)) == ([b"{}"], [b"{}"])

    run(tmp_path, scenario)


def test_of_what_an_agent_says_nothing_but_its_bytes_and_its_id_reaches_the_stream(tmp_path: Path) -> None:
    async def scenario(server: NatsServer) -> None:
        async with services_running(server) as world, joined(world, FLOODER) as (agent,):
            headers = {"Nats-Rollup": "all", "Nats-Expected-Stream": "ANOTHER", "Nats-TTL": "1s", "X": "y"}
            await agent.request(f"taskyard.report.{FLOODER}", b"{}", timeout=5, headers=headers)
            message = await world.fleet.jetstream().get_last_msg(REPORTS, f"taskyard.report.{FLOODER}")
            assert list(message.headers or {}) == ["Nats-Msg-Id"]

    run(tmp_path, scenario)


def test_reports_that_fit_no_message_any_more_are_refused_and_cost_no_connection(tmp_path: Path) -> None:
    """nats-server takes 1 MiB of them; with an id they are longer, and who sends that is hung up on for good."""

    async def scenario(server: NatsServer) -> None:
        async with services_running(server) as world, joined(world, FLOODER, HONEST) as (one, other):
            answer = await one.request(f"taskyard.report.{FLOODER}", b" " * ((1 << 20) - 8), timeout=5)
            assert b'"code":413' in answer.data
            for client, agent in ((one, FLOODER), (other, HONEST)):
                await report(client, agent, b"{}")
            assert (await found(world, FLOODER), await found(world, HONEST)) == ([b"{}"], [b"{}"])

    run(tmp_path, scenario)


def test_reports_are_heard_again_when_the_server_has_closed_the_connection_that_hears_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "fits", lambda *_: True)

    async def scenario(server: NatsServer) -> None:
        async with services_running(server) as world, joined(world, FLOODER, HONEST) as (one, other):
            await one.publish(f"taskyard.report.{FLOODER}", b" " * ((1 << 20) - 8))
            await one.flush()
            await report(other, HONEST, b"{}")
            assert await found(world, HONEST) == [b"{}"]

    run(tmp_path, scenario)


def test_of_who_is_not_known_nothing_is_stored(tmp_path: Path) -> None:
    async def scenario(server: NatsServer) -> None:
        async with services_running(server) as world, joined(world, HONEST) as (honest,):
            stranger = await connect(server, STRANGER)
            with pytest.raises(nats.errors.TimeoutError):
                await stranger.request(f"taskyard.report.{STRANGER}", b"{}", timeout=1)
            await report(honest, HONEST, b"{}")
            assert (await found(world, HONEST), await found(world, STRANGER)) == ([b"{}"], [])
            await stranger.close()

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("answer", "is_fault"),
    [
        (b'{"stream":"TASKYARD_REPORTS","seq":7}', False),
        (b'{"stream":"TASKYARD_REPORTS","seq":7,"duplicate":true}', False),
        (
            b'{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"},"seq":0}',
            False,
        ),
        (b'{"error":{"code":503,"err_code":10077,"description":"no space left on device"},"seq":0}', True),
        (b"", True),
        (b"\xff", False),
    ],
)
def test_what_the_stream_cannot_store_is_told_from_what_an_agent_should_not_have_sent(
    answer: bytes, is_fault: bool
) -> None:
    assert could_not_store(answer) is is_fault


def test_deadlines_wait_until_what_could_not_be_stored_was_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[intake.Intake] = []
    monkeypatch.setattr(intake, "AGAIN_SECONDS", 0.5)
    monkeypatch.setattr(intake.Intake, "__init__", _remembered(looks, intake.Intake.__init__))

    async def scenario(server: NatsServer) -> None:
        async with services_running(server) as world, joined(world, HONEST) as (honest,):
            (heard,) = looks
            await heard.until_told_again()
            full = (await world.fleet.jetstream().stream_info(REPORTS)).config
            await world.fleet.jetstream().update_stream(full.evolve(max_bytes=1))
            answer = await honest.request(f"taskyard.report.{HONEST}", b"{}", timeout=5)
            assert b"error" in answer.data
            waiting = asyncio.create_task(heard.until_told_again())
            await asyncio.sleep(0)
            assert not waiting.done()
            await world.fleet.jetstream().update_stream(full)
            await report(honest, HONEST, b"{}")
            await waiting

    run(tmp_path, scenario)


def test_who_wakes_first_from_a_standstill_waits_until_it_is_noticed(tmp_path: Path) -> None:
    async def scenario(server: NatsServer) -> None:
        async with linked("dispatcher", service_settings(server, postgres_dsn="")) as links:
            hearing = intake._Reports(links, dict)
            heard = hearing.since
            assert hearing.left_seconds(heard) == intake.AGAIN_SECONDS
            assert hearing.left_seconds(heard + intake.STOOD_STILL_SECONDS) < intake.AGAIN_SECONDS
            assert hearing.left_seconds(heard + 60) == intake.TICK_SECONDS

    run(tmp_path, scenario)


def _remembered(looks: list[intake.Intake], begin: Callable[..., None]) -> Callable[..., None]:
    def remember(self: intake.Intake, *arguments: object) -> None:
        looks.append(self)
        begin(self, *arguments)

    return remember


async def report(client: Client, agent: str, body: bytes) -> None:
    await say_until_stored(client, f"taskyard.report.{agent}", body, timeout_seconds=1)


@asynccontextmanager
async def joined(world: World, *agents: str) -> AsyncIterator[list[Client]]:
    """Connections of agents that are known and heard."""
    clients = [await connect(world.server, agent) for agent in agents]
    for client, agent in zip(clients, agents, strict=True):
        await until_joined(world, client, agent, INCARNATIONS[agent])
        await report(client, agent, FIRST)
    yield clients
    for client in clients:
        await client.close()


async def found(world: World, agent: str) -> list[bytes]:
    """What is stored of an agent, but for what it said first."""
    stream = world.fleet.jetstream()
    reading = await stream.subscribe(f"taskyard.report.{agent}", ordered_consumer=True)
    info = await stream.stream_info(REPORTS, subjects_filter=f"taskyard.report.{agent}")
    count = (info.state.subjects or {}).get(f"taskyard.report.{agent}", 0)
    messages = [(await reading.next_msg(timeout=5)).data for _ in range(count)]
    await reading.unsubscribe()
    return messages[1:]


def run(folder: Path, scenario: Callable[[NatsServer], Awaitable[None]]) -> None:
    async def with_server() -> None:
        with nats_running(folder / "nats", clients=[], agents=[FLOODER, HONEST, STRANGER]) as server:
            async with asyncio.timeout(120):
                await scenario(server)

    asyncio.run(with_server())
