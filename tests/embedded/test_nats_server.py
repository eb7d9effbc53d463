"""The accounts of the embedded nats-server hold what the design promises of them, against a real server."""

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import nats.errors
import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError, ServerError, ServiceUnavailableError

from taskyard.embedded import processes
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.nats_users import AGENTS_KEEPER, CONTROL_KEEPER, SYSTEM_USER

SECONDS_MAX = 5.0
STORE_NOT_CREATED = 10049
Answer = TypeVar("Answer")


class Connected:
    """A connection, and what the server denied on it."""

    def __init__(self, client: Client, errors: asyncio.Queue[str]) -> None:
        self.client = client
        self.errors = errors

    async def denial(self) -> str:
        """Wait for the next thing that was denied."""
        async with asyncio.timeout(SECONDS_MAX):
            error = await self.errors.get()
        assert "permissions violation" in error.lower()
        return error


@asynccontextmanager
async def connected(server: NatsServer, user: str) -> AsyncIterator[Connected]:
    errors: asyncio.Queue[str] = asyncio.Queue()

    async def note(error: Exception) -> None:
        errors.put_nowait(str(error))

    client = Client()
    try:
        await client.connect(
            server.url,
            user=user,
            password=server.password(user),
            inbox_prefix=f"_INBOX_{user}".encode(),
            error_cb=note,
            allow_reconnect=False,
        )
        yield Connected(client, errors)
    finally:
        await client.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(limited())


@asynccontextmanager
async def control(server: NatsServer) -> AsyncIterator[Client]:
    """The services' connection, with a stream of commands and one of the log."""
    async with connected(server, CONTROL_KEEPER) as service:
        stream = service.client.jetstream()
        await add_stream(stream, StreamConfig(name="COMMANDS", subjects=["taskyard.commanded.>"]))
        await add_stream(stream, StreamConfig(name="LOG", subjects=["taskyard.log.>"]))
        try:
            yield service.client
        finally:
            await stream.delete_stream("COMMANDS")
            await stream.delete_stream("LOG")


async def add_stream(stream: JetStreamContext, config: StreamConfig) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            try:
                await stream.add_stream(config)
                return
            except ServerError as error:
                if error.err_code != STORE_NOT_CREATED:
                    raise
                await asyncio.sleep(
                    0.02
                )  # the test before deleted a stream of this name, and its files are still going


async def count(client: Client, stream: str) -> int:
    return (await client.jetstream().stream_info(stream)).state.messages


def test_a_command_of_a_client_is_stored_in_the_account_of_the_services(nats_server: NatsServer) -> None:
    async def scenario() -> None:
        async with control(nats_server) as service, connected(nats_server, "admin") as admin:
            acknowledged = await admin.client.jetstream().publish("taskyard.command.admin.default.submit", b"{}")
            assert (acknowledged.stream, acknowledged.seq) == ("COMMANDS", 1)
            stored = await service.jetstream().get_msg("COMMANDS", 1)
            assert stored.subject == "taskyard.commanded.admin.default.submit"

    run(scenario)


def test_a_forged_reply_subject_of_a_client_reaches_no_stream_of_the_log(nats_server: NatsServer) -> None:
    async def scenario() -> None:
        async with control(nats_server) as service, connected(nats_server, "admin") as admin:
            await admin.client.publish("taskyard.command.admin.default.submit", b"{}", reply="taskyard.log.0.scheduler")
            await admin.client.jetstream().publish("taskyard.command.admin.default.submit", b"{}")
            assert await count(service, "COMMANDS") == 2
            # The acknowledgement of the first message was sent before the second was stored.
            await service.jetstream().publish("taskyard.log.0.dispatcher", b"{}")
            assert await count(service, "LOG") == 1

    run(scenario)


@pytest.mark.parametrize(
    "subject",
    [
        "taskyard.command.bob.default.submit",
        "taskyard.request.bob.default.submit",
        "taskyard.log.0.scheduler",
        "taskyard.report.worker-1",
        "$JS.API.STREAM.DELETE.LOG",
    ],
)
def test_a_client_publishes_under_its_own_name_only(nats_server: NatsServer, subject: str) -> None:
    async def scenario() -> None:
        async with control(nats_server) as service, connected(nats_server, "admin") as admin:
            await admin.client.publish(subject, b"{}")
            assert subject.lower() in await admin.denial()
            assert (await count(service, "COMMANDS"), await count(service, "LOG")) == (0, 0)

    run(scenario)


@pytest.mark.parametrize("subject", [">", "_INBOX.>", "_INBOX_bob.>", "taskyard.command.admin.>", "taskyard.log.>"])
def test_a_client_listens_below_its_inbox_only(nats_server: NatsServer, subject: str) -> None:
    async def scenario() -> None:
        async with connected(nats_server, "admin") as admin:
            await admin.client.subscribe(subject)
            assert subject.lower() in await admin.denial()

    run(scenario)


def test_a_request_of_a_client_is_answered_by_a_service(nats_server: NatsServer) -> None:
    async def scenario() -> None:
        async with control(nats_server) as service, connected(nats_server, "bob") as bob:
            requests = await service.subscribe("taskyard.request.>")
            await service.flush(SECONDS_MAX)
            asked = asyncio.create_task(bob.client.request("taskyard.request.bob.default.submit", b"?", SECONDS_MAX))
            request = await requests.next_msg(SECONDS_MAX)
            assert request.subject == "taskyard.request.bob.default.submit"
            await request.respond(b"!")
            assert (await asked).data == b"!"

    run(scenario)


def test_a_viewer_may_ask_but_not_command(nats_server: NatsServer) -> None:
    async def scenario() -> None:
        async with control(nats_server), connected(nats_server, "vera") as vera:
            await vera.client.publish("taskyard.request.vera.default.submit", b"{}")
            await vera.client.publish("taskyard.command.vera.default.submit", b"{}")
            assert "taskyard.command" in await vera.denial()
            assert vera.errors.empty()

    run(scenario)


def test_an_agent_reports_into_the_account_of_agents_and_answers_requests(nats_server: NatsServer) -> None:
    async def scenario() -> None:
        async with connected(nats_server, AGENTS_KEEPER) as fleet, connected(nats_server, "worker-1") as agent:
            stream = fleet.client.jetstream()
            await stream.add_stream(StreamConfig(name="REPORTS", subjects=["taskyard.reported.*"]))
            try:
                acknowledged = await agent.client.jetstream().publish("taskyard.report.worker-1", b"{}")
                assert acknowledged.stream == "REPORTS"
                with pytest.raises(nats.errors.TimeoutError):
                    await agent.client.request("$JS.API.STREAM.INFO.REPORTS", b"", timeout=0.2)
            finally:
                await stream.delete_stream("REPORTS")
            assignments = await agent.client.subscribe("taskyard.agent.worker-1.>")
            await agent.client.flush(SECONDS_MAX)
            asked = asyncio.create_task(fleet.client.request("taskyard.agent.worker-1.assign", b"?", SECONDS_MAX))
            await (await assignments.next_msg(SECONDS_MAX)).respond(b"accepted")
            assert (await asked).data == b"accepted"

    run(scenario)


def test_that_nobody_listens_on_an_agents_subject_shows_at_once(nats_server: NatsServer) -> None:
    async def scenario() -> None:
        async with connected(nats_server, AGENTS_KEEPER) as fleet:
            with pytest.raises(nats.errors.NoRespondersError):
                await fleet.client.request("taskyard.agent.worker-1.assign", b"?", SECONDS_MAX)

    run(scenario)


@pytest.mark.parametrize(
    "subject",
    [
        "taskyard.report.worker-2",
        "taskyard.heartbeat.worker-2",
        "taskyard.output.worker-2.task",
        "taskyard.agent.worker-2.assign",
        "taskyard.command.admin.default.submit",
    ],
)
def test_an_agent_publishes_on_its_own_subjects_only(nats_server: NatsServer, subject: str) -> None:
    async def scenario() -> None:
        async with connected(nats_server, "worker-1") as agent:
            await agent.client.publish(subject, b"{}")
            assert subject.lower() in await agent.denial()

    run(scenario)


@pytest.mark.parametrize("subject", [">", "_INBOX.>", "taskyard.agent.worker-2.>", "taskyard.agent.*.assign"])
def test_an_agent_listens_on_its_own_subjects_only(nats_server: NatsServer, subject: str) -> None:
    async def scenario() -> None:
        async with connected(nats_server, "worker-1") as agent:
            await agent.client.subscribe(subject)
            assert subject.lower() in await agent.denial()

    run(scenario)


def test_what_agents_say_is_not_heard_in_the_account_of_the_services(nats_server: NatsServer) -> None:
    async def scenario() -> None:
        async with control(nats_server) as service, connected(nats_server, AGENTS_KEEPER) as fleet:
            await fleet.client.publish("taskyard.log.0.scheduler", b"forged")
            await fleet.client.flush(SECONDS_MAX)
            assert await count(service, "LOG") == 0
            with pytest.raises(NotFoundError):
                await fleet.client.jetstream().stream_info("LOG")

    run(scenario)


@pytest.mark.parametrize(("user", "password"), [(None, None), ("admin", "wrong"), (CONTROL_KEEPER, "")])
def test_nobody_connects_without_credentials(nats_server: NatsServer, user: str | None, password: str | None) -> None:
    async def scenario() -> None:
        client = Client()
        try:
            with pytest.raises(nats.errors.Error):
                await client.connect(
                    nats_server.url, user=user, password=password, allow_reconnect=False, error_cb=ignore
                )
        finally:
            await client.close()

    run(scenario)


async def ignore(_error: Exception) -> None:
    """The test looks at what is raised."""


def test_every_write_is_flushed_and_connections_are_watched(nats_server: NatsServer) -> None:
    told = httpx.get(f"{nats_server.monitor_url}/varz").json()
    assert told["jetstream"]["config"]["sync_always"] is True
    assert told["ping_interval"] == 1_000_000_000
    assert told["host"] == "127.0.0.1"


def test_an_added_agent_connects_and_nobody_is_disconnected(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats", agents=["worker-1"])
    server.start()

    async def scenario() -> None:
        async with control(server) as service, connected(server, "worker-1") as agent:
            server.add_agent("late")
            async with asyncio.timeout(SECONDS_MAX):
                while not await can_connect(server, "late"):
                    await asyncio.sleep(0.02)
            assert agent.client.is_connected
            assert service.is_connected
            async with asyncio.timeout(SECONDS_MAX):
                while not await answers(
                    service, "LOG"
                ):  # a server that reads its configuration anew answers a little later
                    await asyncio.sleep(0.02)

    try:
        run(scenario)
    finally:
        server.stop()


async def answers(client: Client, stream: str) -> bool:
    try:
        return await count(client, stream) == 0
    except ServiceUnavailableError:
        return False


async def can_connect(server: NatsServer, user: str) -> bool:
    try:
        async with connected(server, user):
            return True
    except (nats.errors.Error, ConnectionError):
        return False


def test_a_restart_keeps_passwords_and_streams_and_stops_what_was_left(tmp_path: Path) -> None:
    first = NatsServer(tmp_path / "nats")
    first.start()

    async def store() -> None:
        async with connected(first, CONTROL_KEEPER) as service:
            await service.client.jetstream().add_stream(StreamConfig(name="LOG", subjects=["taskyard.log.>"]))
            await service.client.jetstream().publish("taskyard.log.0.scheduler", b"{}")

    run(store)
    assert first.pid
    left = processes.identify(first.pid)
    assert left
    second = NatsServer(tmp_path / "nats")
    second.start()

    async def read() -> None:
        async with connected(second, CONTROL_KEEPER) as service:
            assert await count(service.client, "LOG") == 1

    try:
        assert not processes.is_alive(left)
        assert second.password(CONTROL_KEEPER) == first.password(CONTROL_KEEPER)
        run(read)
    finally:
        second.stop()
        first.stop()


def test_secrets_are_readable_by_their_owner_only(nats_server: NatsServer) -> None:
    folder = nats_server.program.log_file.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("passwords.json", "nats-server.conf"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("taken", [CONTROL_KEEPER, AGENTS_KEEPER, SYSTEM_USER, "admin"])
def test_an_agent_cannot_bear_the_name_of_another_user(tmp_path: Path, taken: str) -> None:
    with pytest.raises(ValueError, match=f"more than one NATS user would be called {taken}"):
        NatsServer(tmp_path, clients=["admin"], agents=[taken])
