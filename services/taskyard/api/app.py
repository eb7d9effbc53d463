"""Wires the service: connections, doors, read model, HTTP server; runs until it is told to stop."""

import asyncio
import logging
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import ContextManager

import nats
import uvicorn
from faststream.nats import NatsBroker
from nats.aio.client import Client

from taskyard.api.directory import TaskDirectory
from taskyard.api.doors import Door
from taskyard.api.feed import EventFeed
from taskyard.api.health import Health
from taskyard.api.http_app import make_app
from taskyard.api.http_shared import Parts
from taskyard.api.ids import make_id
from taskyard.api.metrics import Metrics
from taskyard.api.nats_door import NatsDoor
from taskyard.api.outcomes import ANSWER_SECONDS, Outcomes
from taskyard.api.output import TaskOutput
from taskyard.api.principals import Principals
from taskyard.api.read_model import ReadModel
from taskyard.api.store import JetStreamCommands
from taskyard.contracts.events import AnyEvent, decode_event
from taskyard.contracts.subjects import answer_subject, log_stream
from taskyard.eventlog.commit import CommitCodec
from taskyard.eventlog.jetstream import JetStreamLog
from taskyard.settings import Settings

GRACE_SECONDS = 5
"""How long answers in flight may take when the service stops."""
HTTP_BACKLOG = 1_024
KEEP_ALIVE_SECONDS = 30

_log = logging.getLogger(__name__)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        OSError: the address for HTTP is taken, or NATS is not there at the start.
    """
    async with _control(settings) as broker, _fleet(settings) as fleet, ReadModel.connect(settings.postgres_dsn) as model:
        await serve(settings, broker, fleet, model, stop)


async def serve(
    settings: Settings,
    broker: NatsBroker,
    fleet: Client,
    read_model: ReadModel,
    stop: asyncio.Event,
    *,
    answer_seconds: float = ANSWER_SECONDS,
) -> None:
    """Serve over these connections until `stop` is set; `broker` is connected and not yet started."""
    control = await broker.connect()
    name = f"api-{secrets.token_hex(8)}"
    outcomes = Outcomes(answer_seconds=answer_seconds)
    principals = Principals(settings.principals)
    metrics = Metrics()
    metrics.watch("taskyard_commands_waiting", "Commands that wait for their verdict.", lambda: len(outcomes))
    door = Door(JetStreamCommands(control, name), outcomes, make_id=make_id)
    closing = asyncio.Event()
    parts = _parts(settings, door, principals, metrics, control, fleet, read_model, closing)
    metrics.watch("taskyard_event_streams", "Open event streams.", lambda: parts.feed.streams)

    async def take_answers(message: object) -> None:
        outcomes.deliver(message.data)  # type: ignore[attr-defined]

    answers = await control.subscribe(answer_subject(name), cb=take_answers)
    NatsDoor(door, principals, metrics).attach(broker)
    await broker.start()
    try:
        await _serve_http(settings, parts, stop)
    finally:
        closing.set()
        await answers.unsubscribe()


def _parts(
    settings: Settings,
    door: Door,
    principals: Principals,
    metrics: Metrics,
    control: Client,
    fleet: Client,
    read_model: ReadModel,
    closing: asyncio.Event,
) -> Parts:
    partition = settings.partition
    log = JetStreamLog(
        control, log_stream(partition), f"taskyard.log.{partition}", CommitCodec(AnyEvent, decode_event)
    )
    health = Health(control, log, read_model, metrics)
    directory = TaskDirectory(read_model.place, health.catch_up)
    return Parts(
        door=door,
        principals=principals,
        directory=directory,
        read_model=read_model,
        log=log,
        feed=EventFeed(log, directory, closing),
        output=TaskOutput(fleet, closing),
        health=health,
        metrics=metrics,
        closing=closing,
    )


async def _serve_http(settings: Settings, parts: Parts, stop: asyncio.Event) -> None:
    # Bound here, since uvicorn would end the process where the address is taken.
    listening = socket.create_server(
        (settings.http_host, settings.http_port),
        family=socket.AF_INET6 if ":" in settings.http_host else socket.AF_INET,
        backlog=HTTP_BACKLOG,
    )
    config = uvicorn.Config(
        make_app(parts),
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config)
    with listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]), name="http")
        stopping = asyncio.create_task(stop.wait(), name="http waits to stop")
        _log.info("api serves", extra={"host": settings.http_host, "port": listening.getsockname()[1]})
        try:
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            parts.closing.set()
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """A server among others in a process whose signals are somebody else's."""

    def capture_signals(self) -> ContextManager[None]:
        """Leave the signals alone."""
        return nullcontext()


@asynccontextmanager
async def _control(settings: Settings) -> AsyncIterator[NatsBroker]:
    broker = NatsBroker(
        settings.nats_urls,
        user=settings.control_user,
        password=settings.control_password,
        name=f"api {settings.instance}",
        max_reconnect_attempts=-1,
        graceful_timeout=GRACE_SECONDS,
    )
    try:
        yield broker
    finally:
        await broker.stop()


@asynccontextmanager
async def _fleet(settings: Settings) -> AsyncIterator[Client]:
    fleet = await nats.connect(
        settings.nats_urls,
        user=settings.fleet_user,
        password=settings.fleet_password,
        name=f"api {settings.instance}",
        max_reconnect_attempts=-1,
    )
    try:
        yield fleet
    finally:
        await fleet.close()
