"""The whole service against a real nats-server, a scheduler that answers at once, and a read model in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256

import httpx
import msgspec
import nats
from fake_read_model import FakeReadModel
from fakes import accept, answers_of
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from real_servers import service_settings

from taskyard.api.app import serve
from taskyard.contracts.commands import AnswerBatch
from taskyard.contracts.events import AnyEvent, decode_event
from taskyard.contracts.subjects import COMMAND_SUBJECTS, HEADER_ANSWER, LEASES_BUCKET, answer_subject
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.nats_users import CONTROL_KEEPER
from taskyard.embedded.processes import free_port
from taskyard.eventlog.commit import Commit, CommitCodec
from taskyard.eventlog.leases import JetStreamLease
from taskyard.service import Links, linked
from taskyard.settings import Principal, Role, Settings

TOKENS = {"admin": "admin-token", "oscar": "oscar-token", "vera": "vera-token"}
ROLES = {"admin": Role.ADMIN, "oscar": Role.OPERATOR, "vera": Role.VIEWER}
USERS = {"clients": ["admin", "oscar"], "viewers": ["vera"], "agents": ["worker-1", "worker-2"]}
READY_SECONDS_MAX = 10.0


class World:
    """A running service and what a test needs around it."""

    def __init__(self, server: NatsServer, control: NatsClient, links: Links, url: str) -> None:
        self.server = server
        self.control = control
        self.log = links.log
        self.url = url
        self.read_model = FakeReadModel(links.log)
        self.stored: list[tuple[str, dict]] = []
        self.silent = False
        self.stop = asyncio.Event()
        self.decide = accept
        self.codec = CommitCodec(AnyEvent, decode_event)

    def http(self, user: str = "admin") -> httpx.AsyncClient:
        """A client that bears the user's token."""
        headers = {"Authorization": f"Bearer {TOKENS[user]}"} if user else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20, trust_env=False, verify=False)

    async def nats(self, user: str) -> NatsClient:
        """A connection of a principal or an agent."""
        return await connect(self.server, user, inbox_prefix=f"_INBOX_{user}".encode())

    async def append(self, *events: object, writer: str = "scheduler") -> int:
        """Append a commit as the service `writer`; its sequence."""
        last = await self.log.last(writer)
        commit = Commit(writer=writer, instance="test", epoch=1, at=0, events=events)
        return await self.log.append(self.codec.encode(commit), writer=writer, expected=last.sequence if last else 0)

    async def on_command(self, message: Msg) -> None:
        """Be the scheduler."""
        if not message.headers or HEADER_ANSWER not in message.headers:
            return
        body = msgspec.json.decode(message.data)
        self.stored.append((message.subject, body))
        if not self.silent:
            batch = AnswerBatch(outcomes=(answers_of(body, self.decide),))
            await self.control.publish(answer_subject(message.headers[HEADER_ANSWER]), msgspec.json.encode(batch))


async def connect(server: NatsServer, user: str, **options) -> NatsClient:
    async def note(error: Exception) -> None:
        """What a test provokes is no news."""

    return await nats.connect(server.url, user=user, password=server.password(user), error_cb=note, **options)


def settings_for(server: NatsServer, *, postgres_dsn: str = "") -> Settings:
    """Settings of a service on this server and a free port."""
    return service_settings(
        server,
        postgres_dsn=postgres_dsn,
        http_port=free_port(),
        principals=[
            Principal(name=name, role=role, token_sha256=sha256(TOKENS[name].encode()).hexdigest())
            for name, role in ROLES.items()
        ],
    )


@asynccontextmanager
async def running(server: NatsServer, *, answer_seconds: float = 5.0) -> AsyncIterator[World]:
    """The service on a free port, until the block ends."""
    settings = settings_for(server)
    control = await connect(server, CONTROL_KEEPER)
    async with linked("api", settings) as links:
        world = World(server, control, links, f"http://127.0.0.1:{settings.http_port}")
        await control.subscribe(COMMAND_SUBJECTS, cb=world.on_command)
        await control.flush()
        serving = asyncio.create_task(
            serve(settings, links, world.read_model, world.stop, answer_seconds=answer_seconds)
        )
        try:
            await until_ready(world, serving)
            yield world
        finally:
            world.stop.set()
            await serving
            await control.close()


async def until_ready(world: World, serving: asyncio.Task[None]) -> None:
    """Wait until the service answers; what it failed with is raised."""
    async with asyncio.timeout(READY_SECONDS_MAX), world.http() as http:
        while not serving.done():
            with suppress(httpx.TransportError):
                if (await http.get("/healthz")).status_code == 200:
                    return
            await asyncio.sleep(0.01)
    await serving


@asynccontextmanager
async def led(world: World, *writers: str) -> AsyncIterator[None]:
    """Within it somebody leads these services and stays."""
    leases = [JetStreamLease(world.control, LEASES_BUCKET, writer) for writer in writers]
    for lease in leases:
        assert await lease.try_acquire("one")

    async def renew() -> None:
        while True:
            await asyncio.gather(*(lease.renew() for lease in leases))
            await asyncio.sleep(0.2)

    renewing = asyncio.create_task(renew())
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
