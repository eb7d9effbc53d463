"""Whether the servers flush every write to disk before they acknowledge it (`sync_interval: always`).

The default flushes every two minutes, so a power failure loses writes that were acknowledged. An ordinary account
cannot learn the setting: only the monitoring port and the system account show it, as `sync_always` (`sync_interval`
itself goes on reading two minutes). An operator may also export `$SYS.REQ.SERVER.PING.JSZ` of the system account to
the services.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import msgspec
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from taskyard.eventlog.monitoring import read_jetstream

ANSWER_SECONDS_MAX = 3.0
ASK_AGAIN_SECONDS = 0.5
"""A server that is just starting may leave the first question unanswered."""
SERVERS_SUBJECT = "$SYS.REQ.SERVER.PING.JSZ"


class _Config(Struct, frozen=True):
    sync_always: bool = False


class _JetStream(Struct, frozen=True):
    config: _Config = _Config()


class _Server(Struct, frozen=True):
    id: str = ""


class _Answer(Struct, frozen=True):
    server: _Server = _Server()
    data: _JetStream = _JetStream()


async def is_sync_always(
    *, monitoring_urls: Sequence[str] = (), system: Client | None = None, servers: int = 1
) -> bool:
    """Whether the servers are seen to flush each write; False also where too few of them answer.

    Asks each of `monitoring_urls` (such as `http://127.0.0.1:8222`), of which most must answer: one of three servers
    may be away, and a service must start all the same. Over `system`, a connection of the system account, waits for
    the answers of `servers` servers. Give at least one of the two; with both, both must agree.
    """
    seen: list[bool] = []
    if monitoring_urls:
        pages = [asyncio.to_thread(_read_monitoring, url) for url in monitoring_urls]
        answers = await asyncio.gather(*pages, return_exceptions=True)
        seen += [answer for answer in answers if isinstance(answer, bool)]
        seen += [] if 2 * len(seen) > len(monitoring_urls) else [False]
    if system is not None:
        answers = await _ask_servers(system, servers)
        seen += answers if len(answers) >= servers else [False]
    return bool(seen) and all(seen)


def _read_monitoring(url: str) -> bool:
    try:
        return msgspec.json.decode(read_jetstream(url), type=_JetStream).config.sync_always
    except msgspec.DecodeError:
        return False


async def _ask_servers(system: Client, servers: int) -> list[bool]:
    answers: dict[str, bool] = {}
    complete = asyncio.Event()

    async def take(message: Msg) -> None:
        with suppress(msgspec.DecodeError):
            answer = msgspec.json.decode(message.data, type=_Answer)
            answers[answer.server.id] = answer.data.config.sync_always
        if len(answers) >= servers:
            complete.set()

    inbox = system.new_inbox()
    try:
        subscription = await system.subscribe(inbox, cb=take)
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                while not complete.is_set():
                    await system.publish(SERVERS_SUBJECT, b'{"config":true}', reply=inbox)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(complete.wait(), ASK_AGAIN_SECONDS)
        finally:
            await subscription.unsubscribe()
    except (Error, TimeoutError):
        pass  # What was answered so far is the outcome.
    return list(answers.values())
