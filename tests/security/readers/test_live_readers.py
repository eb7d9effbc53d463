"""Readers of what is live come and go as they like: nothing of theirs stays behind."""

import asyncio
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from fake_read_model import FakeTask
from left_over import Held, until_given_back
from running_api import TOKENS, World

from taskyard.api.clock import make_id
from taskyard.contracts.agent_protocol import HEADER_ATTEMPT, HEADER_OFFSET, HEADER_STREAM
from taskyard.contracts.events import TaskSubmitted
from taskyard.contracts.subjects import output_subject

pytestmark = pytest.mark.anyio

HANG_UPS = 500
AT_A_TIME = 50
PROCESSES = int(os.environ.get("TASKYARD_TEST_READERS", "100"))
"""Programs that are killed: each takes a while to start. 500 of each kind were tried once."""
WATCHERS = 4
STUCK = 40
LARGE_EVENTS = 60
SECONDS_MAX = 30.0
KINDS = ("events", "events of a task", "output", "output that is followed")


async def path_of(world: World, kind: str) -> str:
    """The address of what is read, with a task that goes on and has some output."""
    if kind == "events":
        return "/api/v1/events"
    task = world.read_model.put(FakeTask(id=make_id())).id
    if kind == "events of a task":
        return f"/api/v1/events?task={task}&from=0"
    nc = await world.nats("agents.dispatcher")  # which has it stored for the agent
    headers = {HEADER_ATTEMPT: "1", HEADER_STREAM: "stdout", HEADER_OFFSET: "0"}
    await nc.publish(output_subject("worker-1", task), b"some output\n", headers=headers)
    await nc.flush()
    await nc.close()
    return f"/api/v1/tasks/{task}/output" + ("?follow=1" if kind == "output that is followed" else "")


def request_for(world: World, path: str) -> bytes:
    """A request as bytes."""
    host = urlsplit(world.url).netloc
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKENS['admin']}\r\n\r\n".encode()


async def many(count: int, one) -> None:
    """Do something so many times, not all at once."""
    places = asyncio.Semaphore(AT_A_TIME)

    async def take_place() -> None:
        async with places:
            await one()

    async with asyncio.timeout(SECONDS_MAX * 4), asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(take_place())


@pytest.mark.parametrize("kind", KINDS)
async def test_readers_that_hang_up_leave_nothing_behind(world: World, before: Held, kind: str):
    path = await path_of(world, kind)

    async def read_and_hang_up() -> None:
        address = urlsplit(world.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(request_for(world, path))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"\r\n\r\n")
        await reader.readline()
        writer.close()
        await writer.wait_closed()

    await many(HANG_UPS, read_and_hang_up)
    await until_given_back(world, before)


@pytest.mark.parametrize("kind", KINDS)
async def test_readers_that_hang_up_before_they_are_answered_leave_nothing_behind(
    world: World, before: Held, kind: str
):
    path = await path_of(world, kind)

    async def ask_and_hang_up() -> None:
        address = urlsplit(world.url)
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(request_for(world, path))
        await writer.drain()
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()

    await many(HANG_UPS // 2, ask_and_hang_up)
    await until_given_back(world, before)


@pytest.mark.parametrize("kind", ["events", "output that is followed"])
async def test_curl_that_is_killed_leaves_nothing_behind(world: World, before: Held, kind: str):
    path = await path_of(world, kind)
    token = f"Authorization: Bearer {TOKENS['admin']}"

    async def run_and_kill() -> None:
        curl = await asyncio.create_subprocess_exec(
            "curl", "-sN", "--noproxy", "*", "-H", token, world.url + path, stdout=asyncio.subprocess.PIPE
        )
        assert curl.stdout is not None
        assert await curl.stdout.readline()
        curl.kill()
        await curl.wait()

    await many(PROCESSES, run_and_kill)
    await until_given_back(world, before)


async def test_watch_that_is_killed_leaves_nothing_behind(world: World, before: Held):
    world.read_model.put(FakeTask(id=make_id()))
    taskyard = Path(sys.executable).parent / "taskyard"
    environment = os.environ | {"TASKYARD_URL": world.url, "TASKYARD_TOKEN": TOKENS["admin"]}

    async def watch_and_kill() -> None:
        watch = await asyncio.create_subprocess_exec(
            taskyard, "watch", "--json", env=environment, stdout=asyncio.subprocess.PIPE
        )
        assert watch.stdout is not None
        assert await watch.stdout.readline()
        watch.kill()
        await watch.wait()

    await many(WATCHERS, watch_and_kill)
    await until_given_back(world, before)


async def test_readers_that_take_nothing_are_cut_off_and_leave_nothing_behind(world: World, before: Held, monkeypatch):
    monkeypatch.setattr("taskyard.http_server.protocol.UNREAD_SECONDS_MAX", 1.0)
    large = msgspec.Raw(b'"%s"' % (b"x" * 120_000))
    for _ in range(LARGE_EVENTS):
        await world.append(
            TaskSubmitted(
                task=make_id(), kind="noop", pool="default", queue="default", by="admin", input=large, digest="d",
                timeout_seconds=1,
            )
        )  # fmt: skip
    address = urlsplit(world.url)
    readers = [socket.socket() for _ in range(STUCK)]
    try:
        for reader in readers:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect((address.hostname, address.port))
            reader.sendall(request_for(world, "/api/v1/events?from=0"))
        await until_given_back(world, before)
    finally:
        for reader in readers:
            reader.close()
