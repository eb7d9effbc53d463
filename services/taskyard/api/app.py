"""Wires the service: doors, read model, live streams and the HTTP server, over the connections of every service."""

import asyncio
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import structlog
from nats.aio.msg import Msg

from taskyard.api.audit import Audit
from taskyard.api.clock import make_id, now
from taskyard.api.costs import Costs
from taskyard.api.denials import Denials
from taskyard.api.directory import TaskDirectory
from taskyard.api.doors import Door
from taskyard.api.feed import EventFeed
from taskyard.api.health import Health
from taskyard.api.http_app import make_app
from taskyard.api.http_shared import Parts
from taskyard.api.intake import hearing_commands
from taskyard.api.leader_watch import look_back, watch_leaders
from taskyard.api.leaders import Leaders
from taskyard.api.metrics import Metrics
from taskyard.api.nats_door import NatsDoor
from taskyard.api.outcomes import ANSWER_SECONDS, Outcomes
from taskyard.api.output import TaskOutput
from taskyard.api.past.checkpoints import Checkpoints
from taskyard.api.past.explaining import Explaining
from taskyard.api.past.keeping import keep_up
from taskyard.api.past.questions import Past
from taskyard.api.past.travel import FOLD_SECONDS_MAX, TimeTravel
from taskyard.api.places import QUESTIONS, STREAMS, Places
from taskyard.api.postgres_read_model import PostgresReadModel
from taskyard.api.principals import Principals
from taskyard.api.read_model import ReadModel
from taskyard.api.store import JetStreamCommands
from taskyard.api.tracing import DoorSpans
from taskyard.api.turns import Turns
from taskyard.contracts.subjects import COMMANDS, REPORTS, SNAPSHOTS_BUCKET, answer_subject
from taskyard.eventlog.snapshots import JetStreamSnapshots
from taskyard.eventlog.space import Fills, LogSpace
from taskyard.http_server.server import HttpServer, listen
from taskyard.service import Links, http_limits, linked, serving
from taskyard.settings import Settings

GRACE_SECONDS = 5
"""How long answers in flight may take when the service stops."""
LAST_ANSWER_SECONDS = 2.0
"""How long a verdict is waited for when the service stops: requests whose answer takes longer than the grace get a 500."""

_logger = structlog.get_logger()


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        OSError: the address for HTTP is taken.
    """
    async with linked("api", settings) as links, PostgresReadModel.connect(settings.postgres_dsn, now) as read_model:
        await serve(settings, links, read_model, stop)


async def serve(
    settings: Settings,
    links: Links,
    read_model: ReadModel,
    stop: asyncio.Event,
    *,
    answer_seconds: float = ANSWER_SECONDS,
) -> None:
    """Serve over these connections until `stop` is set. `answer_seconds` is how long a door waits for a verdict."""
    # The name is fresh in each run: what the scheduler answers to an earlier run must not be taken for ours.
    name = f"api-{secrets.token_hex(8)}"
    closing = asyncio.Event()
    metrics = Metrics(links.metrics)
    outcomes = Outcomes(answer_seconds=answer_seconds)
    principals = Principals(settings.principals)
    spans = DoorSpans(links.spans) if links.spans is not None else None
    door = Door(JetStreamCommands(links.control_client, name), outcomes, make_id=make_id, spans=spans)
    checkpoints = Checkpoints(JetStreamSnapshots(links.control_client, SNAPSHOTS_BUCKET), links.log)
    costs, audit = Costs(), Audit(links.control_client)
    parts = _parts(
        links,
        door=door,
        costs=costs,
        denials=Denials("http", audit.note),
        principals=principals,
        metrics=metrics,
        read_model=read_model,
        space=_log_space(links, settings),
        checkpoints=checkpoints,
        closing=closing,
        leaders=Leaders(settings.lease_seconds, time.monotonic()),
        shows_details_to_anyone=settings.shows_details_to_anyone,
    )
    metrics.watch("taskyard_commands_waiting", "Commands that wait for their verdict.", lambda: len(outcomes))
    metrics.watch("taskyard_event_streams", "Open event streams.", lambda: parts.feed.streams)

    async def take_answers(message: Msg) -> None:
        outcomes.deliver(message.data)

    answers = await links.control_client.subscribe(answer_subject(name), cb=take_answers)
    nats_door = NatsDoor(door, principals, costs, metrics, trace=audit.note)
    nats_door.attach(links.control)
    leaders = parts.leaders
    metrics.leaders(leaders, time.monotonic)

    async def watch() -> None:
        await look_back(leaders, links.log, now)
        await watch_leaders(leaders, parts.health.look_at, settings.lease_seconds)

    looking = asyncio.create_task(watch(), name="api watches leaders")
    tracing = asyncio.create_task(audit.run(), name="api stores denials")
    keeping = asyncio.create_task(keep_up(links.log, checkpoints), name="api keeps states of the past")
    hurrying = asyncio.create_task(_hurry(closing, outcomes), name="api waits less when it stops")
    try:
        hearing = hearing_commands(links, settings, principals.names)
        async with hearing, serving(links, settings, lambda: not stop.is_set()):
            await _serve_http(settings, parts, stop, nats_door)
    finally:
        closing.set()
        keeping.cancel()
        hurrying.cancel()
        looking.cancel()
        tracing.cancel()
        await asyncio.gather(keeping, hurrying, looking, tracing, return_exceptions=True)
        if links.control_client.is_connected:
            await answers.unsubscribe()


def _parts(
    links: Links,
    *,
    door: Door,
    costs: Costs,
    denials: Denials,
    principals: Principals,
    metrics: Metrics,
    read_model: ReadModel,
    space: LogSpace,
    checkpoints: Checkpoints,
    closing: asyncio.Event,
    leaders: Leaders,
    shows_details_to_anyone: bool,
) -> Parts:
    fills = Fills({COMMANDS: links.control_client, REPORTS: links.fleet_client})
    health = Health(links.control_client, links.log, read_model, metrics, space, fills=fills)
    links.metrics.refresh(health.measure)
    directory = TaskDirectory(read_model.place, health.catch_up, lambda: read_model.generation)

    async def workers_of(task: str) -> Mapping[int, str]:
        # Output may be faster than the rows that say whose attempt it is.
        await health.catch_up()
        return await read_model.workers_of(task)

    travel = TimeTravel(links.log, checkpoints, now)
    return Parts(
        door=door,
        costs=costs,
        denials=denials,
        principals=principals,
        directory=directory,
        read_model=read_model,
        past=Past(travel, read_model),
        explaining=Explaining(travel, read_model, now),
        log=links.log,
        feed=EventFeed(links.log, directory, closing),
        output=TaskOutput(links.fleet_client, workers_of, closing),
        health=health,
        leaders=leaders,
        metrics=metrics,
        closing=closing,
        shows_details_to_anyone=shows_details_to_anyone,
        event_places=Places("event streams", STREAMS),
        output_places=Places("readers of output", STREAMS),
        questions=Turns("questions about the past", QUESTIONS, wait_seconds_max=FOLD_SECONDS_MAX),
    )


def _log_space(links: Links, settings: Settings) -> LogSpace:
    directory = settings.nats_store_directory
    return LogSpace(
        links.control_client,
        monitoring_urls=settings.nats_monitoring_urls,
        directory=None if directory is None else Path(directory),
    )


async def _hurry(closing: asyncio.Event, outcomes: Outcomes) -> None:
    await closing.wait()
    outcomes.hurry(LAST_ANSWER_SECONDS)


async def _serve_http(settings: Settings, parts: Parts, stop: asyncio.Event, nats_door: NatsDoor) -> None:
    app = make_app(parts)
    server = HttpServer(app, http_limits(settings), grace_seconds=GRACE_SECONDS)
    parts.metrics.connections(server.connections)
    with listen(settings.http_host, settings.http_port) as listening:
        http = asyncio.create_task(server.serve(sockets=[listening]), name="http")
        stopping = asyncio.create_task(stop.wait(), name="http waits to stop")
        _logger.info("api serves HTTP", host=settings.http_host, port=listening.getsockname()[1])
        try:
            await asyncio.wait((http, stopping), return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                _logger.info("api sends its clients to other instances", drain_seconds=settings.drain_seconds)
                parts.health.leave()
                await asyncio.gather(nats_door.drain(), asyncio.sleep(settings.drain_seconds))
        finally:
            stopping.cancel()
            parts.closing.set()
            server.should_exit = True
            await http
