"""A real nats-server with the services that agents speak to, and connections of agents that mean harm."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import nats
import nats.errors
from nats.aio.client import Client
from nats.errors import Error
from real_servers import own_users, service_settings

import taskyard.dispatcher.app
import taskyard.slot_allocator.app
from taskyard.contracts.agent_protocol import Heartbeat
from taskyard.contracts.events import AnyEvent, WorkerJoined, decode_event
from taskyard.contracts.subjects import heartbeat_subject, log_stream
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.nats_users import AGENTS_KEEPER, CONTROL_KEEPER
from taskyard.eventlog.commit import CommitCodec
from taskyard.eventlog.jetstream import JetStreamLog
from taskyard.service import linked
from taskyard.settings import Settings

READY_SECONDS_MAX = 20.0
STORED_SECONDS_MAX = 5.0
"""While a flood is stored as it comes, two of three are not answered for so long, and most are never stored."""
RUN = {"slot_allocator": taskyard.slot_allocator.app.run, "dispatcher": taskyard.dispatcher.app.run}


FLOOD = """
import socket, sys, time
port, user, password, subject, seconds, body = int(sys.argv[1]), *sys.argv[2:5], float(sys.argv[5]), sys.argv[6].encode()
line = socket.create_connection(("127.0.0.1", port))
line.recv(65536)
line.sendall(b'CONNECT {"verbose":false,"user":"%s","pass":"%s"}\\r\\nPING\\r\\n' % (user.encode(), password.encode()))
line.recv(65536)
one = b"PUB taskyard.%s %d\\r\\n%s\\r\\n" % (subject.encode(), len(body), body)
until, sent = time.monotonic() + seconds, 0
while time.monotonic() < until:
    line.sendall(one * 200)
    sent += 200
print(sent)
"""


def start_flood(server: NatsServer, agent: str, kind: str, body: bytes, seconds: float) -> subprocess.Popen[bytes]:
    """A process that says this as often as it can as an agent, on its subject of the kind; it prints how often it did.

    With a kind as `output.*` the last token is a task.
    """
    subject = f"{kind.removesuffix('.*')}.{agent}" + (".task" if kind.endswith(".*") else "")
    told = [str(server.port), agent, server.password(agent), subject, str(seconds), body.decode()]
    return subprocess.Popen([sys.executable, "-c", FLOOD, *told], stdout=subprocess.PIPE)


async def connect(server: NatsServer, user: str, **options: Any) -> Client:
    """A connection as a user, who hears answers below its own inbox only."""

    async def note(error: Exception) -> None:
        """What a test provokes is no news."""

    told: dict[str, Any] = {"inbox_prefix": f"_INBOX_{user}".encode(), "error_cb": note}
    return await nats.connect(server.url, user=user, password=server.password(user), **(told | options))


def heartbeat(incarnation: str = "ab" * 8, **more: Any) -> bytes:
    """What an agent with one slot says of itself."""
    fields: dict[str, Any] = {"pool": "default", "slots": (("any",),), "kinds": ("noop",)}
    return msgspec.json.encode(Heartbeat(incarnation=incarnation, **(fields | more)))


class World:
    """The running services, seen from outside."""

    def __init__(self, server: NatsServer, control: Client, fleet: Client) -> None:
        self.server = server
        self.control = control
        self.fleet = fleet
        codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
        self.log = JetStreamLog(control, log_stream("0"), "taskyard.log.0", codec)

    async def events(self) -> list[Any]:
        """All events of the log."""
        head = await self.log.head()
        return [event async for stored in self.log.read(1, head) for event in stored.commit.events]

    async def streams(self) -> dict[str, tuple[dict[str, Any], dict[str, int]]]:
        """Of each stream of both accounts its configuration, and how many messages each subject has."""
        found: dict[str, tuple[dict[str, Any], dict[str, int]]] = {}
        for client in (self.control, self.fleet):
            js = client.jetstream()
            for info in await js.streams_info():
                state = (await js.stream_info(info.config.name, subjects_filter=">")).state
                found[info.config.name] = (info.config.as_dict(), dict(state.subjects or {}))
        return found


@asynccontextmanager
async def services_running(server: NatsServer, **settings: Any) -> AsyncIterator[World]:
    """Slot allocator and dispatcher on this server: what hears agents and reads their reports, each as itself."""
    stop = asyncio.Event()
    told = service_settings(server, postgres_dsn="", **settings)
    async with linked("setup", told):
        pass
    runs = [asyncio.create_task(start_service(server, service, told, stop)) for service in RUN]
    control, fleet = await connect(server, CONTROL_KEEPER), await connect(server, AGENTS_KEEPER)
    world = World(server, control, fleet)
    try:
        await _until_both_lead(world, runs)
        yield world
    finally:
        stop.set()
        await asyncio.gather(*runs)
        for client in (control, fleet):
            await client.close()


async def start_service(server: NatsServer, service: str, told: Settings, stop: asyncio.Event) -> None:
    """One instance of a service, as itself."""
    await RUN[service](msgspec.structs.replace(told, makes_streams=False, **own_users(server, service)), stop)


async def _until_both_lead(world: World, runs: list[asyncio.Task[None]]) -> None:
    async with asyncio.timeout(READY_SECONDS_MAX):
        while True:
            for run in runs:
                if run.done():
                    run.result()
            with suppress(Error):
                if all([await world.log.last(writer) for writer in ("slot_allocator", "dispatcher")]):
                    return
            await asyncio.sleep(0.05)


async def say_until_stored(client: Client, subject: str, body: bytes, *, timeout_seconds: float) -> None:
    """Say it until it is stored, as an agent does."""
    async with asyncio.timeout(STORED_SECONDS_MAX):
        while True:
            with suppress(nats.errors.TimeoutError, nats.errors.NoRespondersError):
                answer = await client.request(subject, body, timeout=timeout_seconds)
                assert b"error" not in answer.data
                return


async def until_joined(world: World, client: Client, agent: str, incarnation: str) -> None:
    """Let an agent say that it is there until it counts."""
    async with asyncio.timeout(READY_SECONDS_MAX):
        while not any(isinstance(e, WorkerJoined) and e.worker == agent for e in await world.events()):
            await client.publish(heartbeat_subject(agent), heartbeat(incarnation))
            await asyncio.sleep(0.2)
