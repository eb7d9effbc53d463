"""One agent that prints without end keeps no other agent's output from being stored, and has no more stored than it may."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from agents_world import (
    STORED_SECONDS_MAX,
    World,
    connect,
    say_until_stored,
    services_running,
    start_flood,
    until_joined,
)
from nats.aio.client import Client
from real_servers import nats_running

from taskyard.contracts.agent_protocol import OUTPUT_CHUNK_BYTES_MAX
from taskyard.contracts.subjects import OUTPUT
from taskyard.embedded.nats_server import NatsServer
from taskyard.machine.intake import OUTPUT_HEARD

FLOODER, HONEST = "worker-1", "worker-2"
FLOOD_SECONDS = 6.0
"""An agent asks again after two seconds."""


def test_an_agents_output_is_stored_in_order_while_another_one_floods(tmp_path: Path) -> None:
    async def scenario(server: NatsServer) -> None:
        async with services_running(server) as world:
            flooder, honest = await joined(world, FLOODER, "ab" * 8), await joined(world, HONEST, "cd" * 8)
            flood = start_flood(server, FLOODER, "output.*", b"yes", FLOOD_SECONDS)
            told = 0
            while flood.poll() is None:
                await say(honest, HONEST, b"%d" % told)
                told += 1
            sent = int(flood.communicate()[0])
            assert await found(world, HONEST) == [b"%d" % number for number in range(told)]
            may = OUTPUT_HEARD.at_once + OUTPUT_HEARD.per_second * FLOOD_SECONDS
            assert sent > 10 * may, "no flood"
            assert 0 < len(await found(world, FLOODER)) <= may
            await flooder.close()
            await honest.close()

    run(tmp_path, scenario)


def test_as_many_agents_as_slots_of_one_may_each_say_much_at_once(tmp_path: Path) -> None:
    async def scenario(server: NatsServer) -> None:
        async with services_running(server) as world:
            honest = await joined(world, HONEST, "cd" * 8)
            chunk = b"x" * OUTPUT_CHUNK_BYTES_MAX
            begun = time.monotonic()
            for number in range(8):
                await asyncio.gather(
                    *(say(honest, HONEST, b"%d.%d." % (number, slot) + chunk[8:]) for slot in range(64))
                )
            assert time.monotonic() - begun < STORED_SECONDS_MAX
            assert len(await found(world, HONEST)) == 8 * 64
            await honest.close()

    run(tmp_path, scenario)


def test_a_chunk_bears_what_tells_its_place_and_nothing_else_of_what_its_agent_says(tmp_path: Path) -> None:
    async def scenario(server: NatsServer) -> None:
        async with services_running(server) as world:
            agent = await joined(world, FLOODER, "ab" * 8)
            place = {"Taskyard-Attempt": "1", "Taskyard-Stream": "stdout", "Taskyard-Offset": "0"}
            other = {"Nats-Rollup": "all", "Nats-Expected-Stream": "ANOTHER", "Nats-TTL": "1s", "X": "y"}
            for _ in range(2):
                given = {**place, **other, "Nats-Msg-Id": "guessed"}
                await agent.request(f"taskyard.output.{FLOODER}.task", b"{}", timeout=5, headers=given)
            assert await found(world, FLOODER) == [b"{}"]
            message = await world.fleet.jetstream().get_last_msg(OUTPUT, f"taskyard.output.{FLOODER}.task")
            assert message.headers == {**place, "Nats-Msg-Id": f"{FLOODER}.guessed"}
            await agent.close()

    run(tmp_path, scenario)


async def joined(world: World, agent: str, incarnation: str) -> Client:
    """The connection of an agent that is known."""
    client = await connect(world.server, agent)
    await until_joined(world, client, agent, incarnation)
    return client


async def say(client: Client, agent: str, chunk: bytes) -> None:
    await say_until_stored(client, f"taskyard.output.{agent}.task", chunk, timeout_seconds=2)


async def found(world: World, agent: str) -> list[bytes]:
    """What is stored of an agent."""
    stream, subject = world.fleet.jetstream(), f"taskyard.output.{agent}.task"
    reading = await stream.subscribe(subject, ordered_consumer=True)
    info = await stream.stream_info(OUTPUT, subjects_filter=subject)
    count = (info.state.subjects or {}).get(subject, 0)
    messages = [(await reading.next_msg(timeout=5)).data for _ in range(count)]
    await reading.unsubscribe()
    return messages


def run(folder: Path, scenario: Callable[[NatsServer], Awaitable[None]]) -> None:
    async def with_server() -> None:
        with nats_running(folder / "nats", clients=[], agents=[FLOODER, HONEST]) as server:
            async with asyncio.timeout(120):
                await scenario(server)

    asyncio.run(with_server())
