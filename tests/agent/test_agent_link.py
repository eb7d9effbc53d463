"""The connection of an agent to a server that stands still for a while."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats.aio.msg import Msg

from taskyard.agent import link as link_module
from taskyard.agent.link import Link

NAME = "w1"
SUBJECT = f"taskyard.agent.{NAME}.assign"


@asynccontextmanager
async def link_to(server: Any) -> AsyncIterator[tuple[Link, "asyncio.Queue[bytes]"]]:
    """A connected link, and what it hears."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(message: Msg) -> None:
        heard.put_nowait(message.data)

    link = Link(urls=[server.url], name=NAME, password="secret", handlers={SUBJECT: hear}, on_up=lambda: None)
    running = asyncio.create_task(link.run())
    try:
        await link.connected(timeout_seconds=10)
        yield link, heard
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_an_agent_hears_on_after_its_server_stood_still(harness: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "CONTACT_TIMEOUT_SECONDS", 0.2)

    async def scenario(d: Any) -> None:
        async with link_to(harness.server) as (link, heard):
            assert await link.has_contact()

            async def silent() -> bool:
                return not await link.has_contact()

            os.kill(harness.server.process.pid, signal.SIGSTOP)
            try:
                await harness.until(silent)
                assert not await link.has_contact()
            finally:
                os.kill(harness.server.process.pid, signal.SIGCONT)
            await harness.until(link.has_contact)
            await d.client.publish(SUBJECT, b"hello")
            # Sooner than a client that has gone deaf finds its connection stale and makes another.
            async with asyncio.timeout(link_module.PING_SECONDS):
                assert await heard.get() == b"hello"

    harness.run(scenario)


def test_a_question_that_a_lost_connection_took_along_does_not_stand_for_silence(
    harness: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "CONTACT_TIMEOUT_SECONDS", 0.2)

    async def scenario(d: Any) -> None:
        del d
        async with link_to(harness.server) as (link, _):

            async def silent() -> bool:
                return not await link.has_contact()

            os.kill(harness.server.process.pid, signal.SIGSTOP)
            await harness.until(silent)
            harness.server.stop()
            harness.server.start()
            await harness.until(link.has_contact, seconds=link_module.ANSWER_SECONDS_MAX / 2)

    harness.run(scenario)
