"""Connections to a running system, each as long as a context lasts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import nats
import nats.errors
from nats.aio.client import Client as NatsClient

from taskyard.bench.system import System
from taskyard.contracts.events import AnyEvent, UnknownEvent, decode_event
from taskyard.contracts.subjects import log_stream
from taskyard.eventlog.commit import CommitCodec
from taskyard.eventlog.jetstream import JetStreamLog
from taskyard.eventlog.whole import read_whole
from taskyard.judge.evidence import Evidence, Logged
from taskyard.judge.verdict import Verdict, judge

REQUEST_SECONDS_MAX = 10.0

LogEvent = AnyEvent | UnknownEvent


def log_of(system: System, control: NatsClient) -> JetStreamLog[LogEvent]:
    """The log of the system."""
    partition = system.services.partition
    codec = CommitCodec[LogEvent](AnyEvent, decode_event)
    return JetStreamLog[LogEvent](control, log_stream(partition), f"taskyard.log.{partition}", codec)


async def judge_log(control: NatsClient, system: System) -> Verdict:
    """What the judge says of the whole log, once every task has ended. Raises `EventLogError`."""
    stored = await read_whole(control, log_stream(system.services.partition))
    log = [Logged.stored(message.sequence, message.at, message.subject, message.data) for message in stored]
    return judge(Evidence(log=log))


@asynccontextmanager
async def http_of(system: System) -> AsyncIterator[httpx.AsyncClient]:
    """The HTTP API, as an admin."""
    async with httpx.AsyncClient(
        base_url=system.connection.http_url,
        headers={"Authorization": f"Bearer {system.connection.admin_token}"},
        timeout=REQUEST_SECONDS_MAX,
        trust_env=False,
    ) as http:
        yield http


@asynccontextmanager
async def control_of(system: System) -> AsyncIterator[NatsClient]:
    """A connection in the account of the log, as services have it: only there can the log be read."""
    control = await nats.connect(
        system.connection.nats_url,
        user=system.services.control_user,
        password=system.services.control_password,
        connect_timeout=REQUEST_SECONDS_MAX,
        name="taskyard bench",
    )
    try:
        yield control
    finally:
        with suppress(nats.errors.Error, OSError):  # the server may have ended before us
            await control.close()


async def log_bytes(control: NatsClient, system: System) -> int:
    """The size of the log as the server stores it."""
    info = await control.jetstream(timeout=REQUEST_SECONDS_MAX).stream_info(log_stream(system.services.partition))
    return info.state.bytes
