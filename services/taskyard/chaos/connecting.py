"""Connections that outlive every fault: as a service, as a principal, and over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import nats
import nats.errors
from nats.aio.client import Client as NatsClient

from taskyard.chaos.system import Connection
from taskyard.settings import Settings

CONNECT_SECONDS_MAX = 10
RECONNECT_SECONDS = 0.2
REQUEST_SECONDS_MAX = 15.0


@asynccontextmanager
async def as_service(settings: Settings) -> AsyncIterator[NatsClient]:
    """In the account of the log: only there can it be read."""
    async with _connected(
        servers=settings.nats_urls, user=settings.control_user, password=settings.control_password
    ) as client:
        yield client


@asynccontextmanager
async def as_admin(connection: Connection) -> AsyncIterator[NatsClient]:
    """As the principal `admin`, who submits."""
    async with _connected(
        servers=connection.nats_url,
        user=connection.nats_user,
        password=connection.nats_password,
        inbox_prefix=connection.nats_inbox_prefix.encode(),
    ) as client:
        yield client


@asynccontextmanager
async def over_http(admin_token: str) -> AsyncIterator[httpx.AsyncClient]:
    """As `admin` too."""
    headers = {"Authorization": f"Bearer {admin_token}"}
    async with httpx.AsyncClient(headers=headers, timeout=REQUEST_SECONDS_MAX, trust_env=False) as http:
        yield http


@asynccontextmanager
async def _connected(**options: Any) -> AsyncIterator[NatsClient]:
    client = await nats.connect(
        **options,
        connect_timeout=CONNECT_SECONDS_MAX,
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_SECONDS,
        error_cb=_ignore,
        name="taskyard chaos",
    )
    try:
        yield client
    finally:
        with suppress(nats.errors.Error, OSError):  # the server may be away just now
            await client.close()


async def _ignore(error: Exception) -> None:
    """Connections are lost on purpose; nats-py would print it."""
    del error
