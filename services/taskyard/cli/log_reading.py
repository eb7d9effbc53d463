"""The log read over NATS, as one of the services reads it: with their settings, and never writing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

from taskyard.cli.errors import Broken, Unreachable, WrongUsage
from taskyard.cli.verification import Verification
from taskyard.contracts.events import AnyEvent, decode_event
from taskyard.contracts.subjects import log_stream, log_subject
from taskyard.eventlog.commit import CommitCodec, StoredCommit
from taskyard.eventlog.errors import ApiRefused, CommitUnreadable, EventLogError, LogGap
from taskyard.eventlog.follower import StreamFollower
from taskyard.eventlog.jetstream import JetStreamLog
from taskyard.eventlog.jetstream_api import stream_info
from taskyard.settings import Settings, SettingsError, load

CONNECT_SECONDS_MAX = 5.0
SILENCE_SECONDS_MAX = 15.0
"""How long reading what is stored may stand still; a restart of the server passes unnoticed."""

Log = JetStreamLog[Any]


def services_settings(path: Path) -> Settings:
    """The settings of the services. Raises `WrongUsage`."""
    try:
        return load(Settings, path)
    except SettingsError as error:
        raise WrongUsage(f"the settings of the services are needed (--config): {error}") from error


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Client]:
    """A connection that may read the log. Raises `Unreachable`, and for what the log is not `Broken`."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            nc = await nats.connect(
                settings.nats_urls,
                user=settings.control_user,
                password=settings.control_password,
                name="taskyard command line",
                max_reconnect_attempts=-1,
                error_cb=_ignore,
            )
    except (NatsError, OSError, TimeoutError) as error:
        where = ", ".join(settings.nats_urls)
        raise Unreachable(f"NATS at {where} is not reachable: {str(error) or type(error).__name__}") from error
    try:
        yield nc
    except (CommitUnreadable, LogGap) as error:
        raise Broken(f"the log is broken, see `taskyard log verify`: {error}") from error
    except (EventLogError, NatsError, TimeoutError) as error:
        raise Unreachable(f"the log gives no answer: {str(error) or type(error).__name__}") from error
    finally:
        await nc.close()


def open_log(nc: Client, settings: Settings) -> Log:
    """The log of the services' partition."""
    return _ReportingLog(nc, settings, lambda _sequence: None)


def open_reporting_log(nc: Client, settings: Settings, progress: Callable[[int], None]) -> Log:
    """The same, telling `progress` the sequence of each commit that is read."""
    return _ReportingLog(nc, settings, progress)


class _ReportingLog(JetStreamLog[Any]):
    def __init__(self, nc: Client, settings: Settings, progress: Callable[[int], None]) -> None:
        prefix = log_subject(settings.partition, "").rstrip(".")
        super().__init__(nc, log_stream(settings.partition), prefix, CommitCodec(AnyEvent, decode_event))
        self._progress = progress

    async def read(self, *args: Any, **kwargs: Any) -> AsyncIterator[StoredCommit[Any]]:
        async for stored in super().read(*args, **kwargs):
            self._progress(stored.sequence)
            yield stored


async def verify(nc: Client, partition: str, progress: Callable[[int, int], None]) -> Verification:
    """Look at the whole log up to where it ends now; `progress` is told where it is and where the end is."""
    stream = log_stream(partition)
    verification = Verification()
    try:
        head = (await stream_info(nc, stream)).state.last_seq
    except ApiRefused as error:
        raise Unreachable(f"there is no log: {error}") from error
    # The bare messages: what is no commit, or is missing, must be reported instead of ending the reading.
    async with StreamFollower(nc, stream, after=0) as follower:
        while verification.last < head:
            try:
                async with asyncio.timeout(SILENCE_SECONDS_MAX):
                    batch = await follower.next_batch()
            except TimeoutError:
                break
            verification.see(message for message in batch if message.sequence <= head)
            progress(min(batch[-1].sequence, head), head)
            if batch[-1].sequence > head:
                break
    verification.end(head)
    return verification


async def _ignore(error: Exception) -> None:
    """What is wrong shows where it is awaited; nats-py would print it."""
    del error
