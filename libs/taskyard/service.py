"""What every service of the control plane is outside its own work: connections, streams, health, and its command line.

A service is a FastStream application: two brokers (the account of the log, and the account of the agents), a lifespan,
and an ASGI application with health and metrics.
"""

import asyncio
import gc
import os
import re
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import nats.errors
import structlog
import uvloop
from faststream.asgi import AsgiFastStream, AsgiResponse, get
from faststream.nats import NatsBroker
from faststream.security import SASLPlaintext
from nats.aio.client import Client

from taskyard.contracts.events import AnyEvent, UnknownEvent, decode_event
from taskyard.contracts.subjects import (
    AGENTS,
    COMMANDS,
    CONTROL,
    LEASES_BUCKET,
    SNAPSHOTS_BUCKET,
    log_stream,
    streams,
)
from taskyard.eventlog.any_message import survive_any_message
from taskyard.eventlog.commit import CommitCodec
from taskyard.eventlog.durability import is_sync_always
from taskyard.eventlog.errors import EventLogError, LogUnavailable, LogVersionUnknown
from taskyard.eventlog.generation import require_finished
from taskyard.eventlog.jetstream import JetStreamLog
from taskyard.eventlog.leases import ensure_leases, leases_stream
from taskyard.eventlog.snapshots import ensure_snapshots
from taskyard.eventlog.streams import await_stream, await_streams, ensure_streams, refuse_lost_log
from taskyard.eventlog.strictness import is_strict
from taskyard.eventlog.versions import read_version
from taskyard.http_server.connections import ConnectionLimits
from taskyard.http_server.open_files import allow_open_files, fitting_connections
from taskyard.http_server.server import HttpServer, listen
from taskyard.http_server.tokens import bearer_of, token_in
from taskyard.settings import Settings, from_arguments
from taskyard.telemetry.logs import name_service, set_up_logs
from taskyard.telemetry.metrics import CONTENT_TYPE, MetricsScope
from taskyard.telemetry.spans import Spans, exporting_spans

CONNECT_SECONDS_MAX = 60.0
CONNECT_RETRY_SECONDS = 0.2
RECONNECT_WAIT_SECONDS = 1
PING_SECONDS = 2
PINGS_OUTSTANDING_MAX = 2
"""A connection whose other end fell silent is given up after six seconds, and another server is tried."""
GRACE_SECONDS = 2.0
CLOSED_LOOK_SECONDS = 0.5
HEALTH_CONNECTIONS_MAX = 100
"""Who asks at the port for health are an orchestrator and Prometheus."""
COLLECT_OBJECTS = 10_000
"""So many objects more than were freed begin a collection of the young ones; one of all follows after a hundred."""

LogEvent = AnyEvent | UnknownEvent
Scope = MutableMapping[str, Any]

_logger = structlog.get_logger()


class NotStrict(Exception):
    """The server does requests that it does not understand whole. Set `jetstream { strict: true }` in its configuration."""


class NotDurable(Exception):
    """The server acknowledges before it has written to disk. Set `sync_interval: always` in its configuration."""


@dataclass(frozen=True, kw_only=True)
class Links:
    """The connections of one service: `control` is in the account of the log, `fleet` in that of the agents.

    `metrics` is what the service shows on `/metrics`; `spans` takes its part of traces, None where telemetry is off.
    """

    name: str
    control: NatsBroker
    fleet: NatsBroker
    log: JetStreamLog[LogEvent]
    metrics: MetricsScope
    spans: Spans | None

    @property
    def control_client(self) -> Client:
        """The plain connection below `control`."""
        return self.control.connection

    @property
    def fleet_client(self) -> Client:
        """The plain connection below `fleet`."""
        return self.fleet.connection


def make_instance_name() -> str:
    """A name for one run of one service: no other run ever bears it, also not that of the same container."""
    host = re.sub(r"[^a-z0-9_-]", "-", socket.gethostname().lower())[:32].lstrip("_-") or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


@asynccontextmanager
async def linked(name: str, settings: Settings) -> AsyncIterator[Links]:
    """Connect a service, and make or check its streams. Subscribers are registered inside, before `serving`.

    Raises:
        NotDurable, NotStrict: the server is not safe and the settings demand that it is.
        StreamMissing: nobody has made the streams (`taskyard.setup`).
        LogUnavailable: no server was reached within CONNECT_SECONDS_MAX, or it has closed a connection for good.
        LogMissing: the log was deleted.
        LogVersionUnknown: the log means what only a newer version of this program knows.
    """
    name_service(name)
    control = _broker(name, settings, settings.control_user, settings.control_password)
    fleet = _broker(name, settings, settings.fleet_user, settings.fleet_password)
    try:
        for broker in (control, fleet):
            await _connect(broker, settings.nats_urls)
            survive_any_message(broker.connection)
        await _prepare(name, control.connection, fleet.connection, settings)
        partition = settings.partition
        codec = CommitCodec[LogEvent](AnyEvent, decode_event)
        log = JetStreamLog(
            control.connection,
            log_stream(partition),
            f"taskyard.log.{partition}",
            codec,
            archive=settings.log_archive,
        )
        await read_version(log)  # an instance that is too old for the log must not begin
        with MetricsScope() as metrics:
            async with _telling_spans(name, settings) as spans, ended_when_closed(control.connection, fleet.connection):
                yield Links(name=name, control=control, fleet=fleet, log=log, metrics=metrics, spans=spans)
    finally:
        for broker in (control, fleet):
            try:
                await broker.stop()
            except (nats.errors.Error, OSError):  # the server may be gone before us
                _logger.info("closed a connection that was gone")


@asynccontextmanager
async def another_fleet_link(links: Links, settings: Settings) -> AsyncIterator[Links]:
    """The same with a connection of its own to the account of the agents, which belongs to the event loop that runs this.

    Raises:
        LogUnavailable: no server was reached within CONNECT_SECONDS_MAX, or it has closed the connection for good.
    """
    fleet = _broker(links.name, settings, settings.fleet_user, settings.fleet_password)
    async with _connected(fleet, settings):
        with MetricsScope(links.metrics.metrics) as metrics:
            yield replace(links, fleet=fleet, metrics=metrics)


@asynccontextmanager
async def another_control_client(links: Links, settings: Settings) -> AsyncIterator[Client]:
    """One more connection to the account of the log, which belongs to the event loop that runs this.

    Raises:
        LogUnavailable: no server was reached within CONNECT_SECONDS_MAX, or it has closed the connection for good.
    """
    control = _broker(links.name, settings, settings.control_user, settings.control_password)
    async with _connected(control, settings):
        yield control.connection


@asynccontextmanager
async def _connected(broker: NatsBroker, settings: Settings) -> AsyncIterator[None]:
    try:
        await _connect(broker, settings.nats_urls)
        survive_any_message(broker.connection)
        async with ended_when_closed(broker.connection):
            yield
    finally:
        with suppress(nats.errors.Error, OSError):  # the server may be gone before us
            await broker.stop()


@asynccontextmanager
async def ended_when_closed(*clients: Client) -> AsyncIterator[None]:
    """End the block when a connection of these is closed for good: its client never connects again.

    A server says what it does not bear, and hangs up. Nobody is heard or answered then, so it is better to begin anew.

    Raises:
        LogUnavailable: one was.
    """
    reason = ""

    async def watch() -> None:
        nonlocal reason
        while not (closed := [client for client in clients if client.is_closed]):  # noqa: ASYNC110 - nats-py tells one callback only, which is FastStream's
            await asyncio.sleep(CLOSED_LOOK_SECONDS)
        reason = str(closed[0].last_error)
        scope.reschedule(asyncio.get_running_loop().time())

    scope = asyncio.timeout(None)
    try:
        async with scope:
            watching = asyncio.create_task(watch(), name="watch connections")
            try:
                yield
            finally:
                watching.cancel()
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise LogUnavailable(f"the server has closed the connection: {reason}") from error


@asynccontextmanager
async def _telling_spans(name: str, settings: Settings) -> AsyncIterator[Spans | None]:
    if not settings.telemetry or settings.otlp_endpoint is None:
        yield None
        return
    spans = exporting_spans(settings.otlp_endpoint, name, make_instance_name())
    try:
        yield spans
    finally:
        await spans.close()


@asynccontextmanager
async def serving(links: Links, settings: Settings, is_ready: Callable[[], bool]) -> AsyncIterator[None]:
    """Start what was registered on the brokers, and health and metrics over HTTP where the settings name a port."""

    @get
    async def healthz(_: object) -> AsgiResponse:
        return AsgiResponse(b"ok", 200)

    @get
    async def readyz(scope: Scope) -> AsgiResponse:
        reasons = [] if is_ready() else ["it is starting or stopping"]
        reasons += [] if links.control_client.is_connected else ["no connection to NATS, account of the log"]
        reasons += [] if links.fleet_client.is_connected else ["no connection to NATS, account of the agents"]
        told = f": {'; '.join(reasons)}" if reasons and _may_see_details(scope, settings) else ""
        return AsgiResponse((f"not ready{told}" if reasons else "ready").encode(), 503 if reasons else 200)

    @get
    async def metrics(scope: Scope) -> AsgiResponse:
        if not _may_see_details(scope, settings):
            return AsgiResponse(b"a bearer token is needed", 401, {"WWW-Authenticate": 'Bearer realm="taskyard"'})
        return AsgiResponse(await links.metrics.metrics.scrape(), 200, {"Content-Type": CONTENT_TYPE})

    routes = [("/healthz", healthz), ("/readyz", readyz), ("/metrics", metrics)]
    app = AsgiFastStream(links.control, links.fleet, asgi_routes=routes, logger=None)
    await app.start()
    _logger.info("started", pid=os.getpid(), health_port=settings.health_port)
    try:
        async with _health_served(app, settings):
            yield
    finally:
        _logger.info("stopped")


def _may_see_details(scope: Scope, settings: Settings) -> bool:
    if settings.shows_details_to_anyone:
        return True
    token = token_in(dict(scope["headers"]).get(b"authorization", b"").decode("latin-1"))
    return token is not None and bearer_of(settings.principals, token) is not None


@asynccontextmanager
async def _health_served(app: AsgiFastStream, settings: Settings) -> AsyncIterator[None]:
    if settings.health_port is None:
        yield
        return
    server = HttpServer(app, http_limits(settings, HEALTH_CONNECTIONS_MAX), grace_seconds=int(GRACE_SECONDS))
    with listen(settings.http_host, settings.health_port) as listening:
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield
        finally:
            server.should_exit = True
            await task


def http_limits(settings: Settings, connections_max: int | None = None) -> ConnectionLimits:
    """How many connections a server of this process takes, where so many files may be open."""
    wanted = settings.http_connections_max if connections_max is None else connections_max
    return ConnectionLimits(
        connections_max=fitting_connections(wanted, allow_open_files()),
        per_address_max=settings.http_connections_per_address_max,
    )


def calm_collector() -> None:
    """Keep the garbage collector from stopping a service: called once everything is imported, before anything runs.

    What is imported, some 80,000 objects that live to the end, would be looked through by each full collection, which
    takes 20 to 50 ms: a task that is on its way through three services meets such a pause sooner or later. Put aside,
    it is not looked at again. And the collector need not begin for every 700 objects: what services make is freed
    without it, and only what refers to itself in a circle waits for it.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_OBJECTS, *gc.get_threshold()[1:])


def main(run: Callable[[Settings, asyncio.Event], Awaitable[None]]) -> None:
    """The program of a service: read settings from the command line, run until TERM or INT."""
    settings = from_arguments(Settings)
    set_up_logs(settings.log_level)

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run(settings, stop)

    calm_collector()
    try:
        uvloop.run(until_signalled())
    except LogVersionUnknown as error:
        _logger.critical("stopped: this program is too old for the log", reason=str(error))
        sys.exit(1)
    except (EventLogError, NotDurable, NotStrict) as error:
        _logger.critical(
            "stopped: what it stands on is not as it must be", reason=str(error), cause=type(error).__name__
        )
        sys.exit(1)


def _broker(name: str, settings: Settings, user: str, password: str) -> NatsBroker:
    return NatsBroker(
        settings.nats_urls,
        # Of its own: answers to others are not to be heard by it.
        inbox_prefix=f"_INBOX_{user}",
        security=SASLPlaintext(username=user, password=password),
        name=name,
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_WAIT_SECONDS,
        ping_interval=PING_SECONDS,
        max_outstanding_pings=PINGS_OUTSTANDING_MAX,
        graceful_timeout=GRACE_SECONDS,
        logger=None,
    )


async def _connect(broker: NatsBroker, urls: Sequence[str]) -> None:
    """Connect; the server may be starting beside us. Raises `LogUnavailable`."""
    reason = "no answer"
    try:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            while True:
                try:
                    await broker.connect()
                except (nats.errors.Error, OSError) as error:
                    reason = str(error) or type(error).__name__
                    _logger.info("waits for NATS", reason=reason)
                    await asyncio.sleep(CONNECT_RETRY_SECONDS)
                else:
                    return
    except TimeoutError as error:
        raise LogUnavailable(f"NATS at {', '.join(urls)} is not reachable: {reason}") from error


async def _prepare(name: str, control: Client, fleet: Client, settings: Settings) -> None:
    log = log_stream(settings.partition)
    await require_finished(control, log)
    accounts, replicas = {CONTROL: control, AGENTS: fleet}, settings.stream_replicas
    specs = streams(
        settings.partition,
        commands_bytes_max=settings.commands_bytes_max,
        reports_bytes_max=settings.reports_bytes_max,
    )
    if settings.makes_streams:
        await refuse_lost_log(control, log, COMMANDS)
        await ensure_streams(accounts, specs, replicas=replicas)
        await ensure_leases(control, LEASES_BUCKET, lease_seconds=settings.lease_seconds, replicas=replicas)
        await ensure_snapshots(control, SNAPSHOTS_BUCKET, replicas=replicas)
    else:
        used = [spec for spec in specs if name in (*spec.readers, *spec.owner.split(", "))]
        await await_streams(accounts, used)
        for bucket in (leases_stream(LEASES_BUCKET), SNAPSHOTS_BUCKET):
            await await_stream(control, bucket)
    if not await is_sync_always(monitoring_urls=settings.nats_monitoring_urls):
        if settings.production:
            raise NotDurable("set `jetstream { sync_interval: always }` in the configuration of nats-server")
        _logger.warning("nats-server may lose acknowledged messages in a power failure", setting="sync_interval")
    if not await is_strict(control, log):
        if settings.production:
            raise NotStrict("set `jetstream { strict: true }` in the configuration of nats-server")
        _logger.warning("nats-server does requests that it does not understand whole", setting="strict")
