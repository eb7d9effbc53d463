"""What readers hold on the server of the log and in the service, and whether all of it is given back."""

import asyncio
import gc

import httpx
from msgspec import Struct
from running_api import World

from taskyard.eventlog.follower import StreamFollower

SECONDS_MAX = 30.0
POLL_SECONDS = 0.1


class Held(Struct, frozen=True, kw_only=True):
    """Consumers of JetStream, subscriptions on the server, tasks that are not done, and followers in memory."""

    consumers: int
    subscriptions: int
    tasks: int
    followers: int


async def held_by(world: World) -> Held:
    """What is held now, once nothing of it has moved for a moment."""
    last, now = None, await _look(world)
    while now != last:
        await asyncio.sleep(5 * POLL_SECONDS)
        last, now = now, await _look(world)
    return now


async def until_given_back(world: World, before: Held) -> None:
    """Wait until no more is held than before. Raises `AssertionError` with what is still held."""
    now = await _look(world)
    try:
        async with asyncio.timeout(SECONDS_MAX):
            while now != before:
                await asyncio.sleep(POLL_SECONDS)
                now = await _look(world)
    except TimeoutError:
        raise AssertionError(f"before {before}, still held {now}") from None


async def _look(world: World) -> Held:
    async with httpx.AsyncClient(base_url=world.server.monitor_url, trust_env=False, verify=False) as http:
        consumers = (await http.get("/jsz")).json()["consumers"]
        connections = (await http.get("/connz")).json()["connections"]
    gc.collect()
    return Held(
        consumers=consumers,
        subscriptions=sum(connection["subscriptions"] for connection in connections),
        tasks=len(asyncio.all_tasks()),
        followers=sum(isinstance(found, StreamFollower) for found in gc.get_objects()),
    )
