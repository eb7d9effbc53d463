"""The doors over NATS as a client uses them: with what `connection.json` says, and nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.aio.client import Client
from system import System

ANSWER_SECONDS_MAX = 10.0
CONNECT_SECONDS_MAX = 5.0


@asynccontextmanager
async def connected(system: System, **options: Any) -> AsyncIterator[Client]:
    """A client with the credentials of `connection.json`."""
    connection = system.connection
    client = await nats.connect(
        connection["nats_url"],
        user=connection["nats_user"],
        password=connection["nats_password"],
        inbox_prefix=connection["nats_inbox_prefix"],
        connect_timeout=CONNECT_SECONDS_MAX,
        allow_reconnect=False,
        **options,
    )
    try:
        yield client
    finally:
        await client.close()


def ask(system: System, verb: str, *, pool: str = "default", **body: Any) -> dict[str, Any]:
    """Request something in a pool, and the answer."""
    return ask_with(system, f"{pool}.{verb}", body)


def ask_with(system: System, pool_and_verb: str, body: dict[str, Any]) -> dict[str, Any]:
    """Request with a body as it is, and the answer."""

    async def request() -> dict[str, Any]:
        async with connected(system) as client:
            subject = f"taskyard.request.{system.connection['nats_user']}.{pool_and_verb}"
            reply = await client.request(subject, json.dumps(body).encode(), timeout=ANSWER_SECONDS_MAX)
            return json.loads(reply.data)

    return asyncio.run(request())


def command(system: System, verb: str, *, pool: str = "default", **body: Any) -> None:
    """Request something that is to be accepted, and wait until it can be read."""
    answer = ask(system, verb, pool=pool, **body)
    assert answer["code"] == 202, answer
    assert system.http.get("/stats", params={"after": answer["position"]}).status_code == 200


def store(system: System, verb: str, body: dict[str, Any], *, pool: str = "default") -> int:
    """Publish a command; the sequence by which it is stored."""

    async def publish() -> int:
        async with connected(system) as client:
            subject = f"taskyard.command.{system.connection['nats_user']}.{pool}.{verb}"
            stored = await client.jetstream().publish(subject, json.dumps(body).encode(), timeout=ANSWER_SECONDS_MAX)
            return stored.seq

    return asyncio.run(publish())
