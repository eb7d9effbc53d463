"""The log read over NATS, as one of the services reads it: with their settings, and never writing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

from taskyard.cli.connection import OtherServer
from taskyard.cli.errors import Broken, Refused, Unreachable, WrongUsage
from taskyard.cli.verification import Verification
from taskyard.contracts.events import AnyEvent, decode_event
from taskyard.contracts.subjects import log_stream, log_subject
from taskyard.eventlog.answers import state_of
from taskyard.eventlog.commit import CommitCodec
from taskyard.eventlog.copying import read_messages
from taskyard.eventlog.errors import (
    ArchiveDamaged,
    ArchiveMismatch,
    ArchiveUnreachable,
    CommitUnreadable,
    CopyRefused,
    EventLogError,
    FenceMoved,
    GenerationUnfinished,
    LeaseHeld,
    LogBegins,
    LogGap,
    LogVersionUnknown,
    StreamMissing,
)
from taskyard.eventlog.jetstream import JetStreamLog
from taskyard.settings import Settings, SettingsError, load

CONNECT_SECONDS_MAX = 5.0
CONFLICT = 409

Log = JetStreamLog[Any]


def services_settings(path: Path) -> Settings:
    """The settings of the services. Raises `WrongUsage`."""
    try:
        return load(Settings, path)
    except SettingsError as error:
        raise WrongUsage(f"the settings of the services are needed (--config): {error}") from error


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Client]:
    """A connection that may read the log. What goes wrong with the log inside is raised as the command line's errors."""
    user = settings.control_user
    async with _connected(
        settings.nats_urls, user=user, password=settings.control_password, inbox_prefix=f"_INBOX_{user}"
    ) as nc:
        yield nc


@asynccontextmanager
async def connected_to(there: OtherServer) -> AsyncIterator[Client]:
    """A connection to another server than that of the settings. Raises as `connected`."""
    async with _connected([there.url], **there.credentials) as nc:
        yield nc


@asynccontextmanager
async def _connected(urls: Sequence[str], **credentials: str) -> AsyncIterator[Client]:
    try:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            nc = await nats.connect(
                list(urls),
                name="taskyard command line",
                max_reconnect_attempts=-1,
                error_cb=_ignore,
                **credentials,
            )
    except (NatsError, OSError, ValueError, TimeoutError) as error:
        where = ", ".join(urls)
        raise Unreachable(f"NATS at {where} is not reachable: {str(error) or type(error).__name__}") from error
    try:
        yield nc
    except (CopyRefused, LeaseHeld) as error:
        raise Refused(CONFLICT, "", str(error)) from error
    except FenceMoved as error:
        raise Refused(CONFLICT, "", f"somebody else does the same now: {error}") from error
    except (ArchiveMismatch, GenerationUnfinished, LogBegins, LogVersionUnknown) as error:
        raise WrongUsage(str(error)) from error
    except ArchiveDamaged as error:
        raise Broken(f"the archive is damaged: {error}") from error
    except ArchiveUnreachable as error:
        raise Unreachable(str(error)) from error
    except StreamMissing as error:
        raise Unreachable(f"there is no log: {error}") from error
    except (CommitUnreadable, LogGap) as error:
        raise Broken(f"the log is broken, see `taskyard log verify`: {error}") from error
    except (EventLogError, NatsError, TimeoutError) as error:
        raise Unreachable(f"the log gives no answer: {str(error) or type(error).__name__}") from error
    finally:
        await nc.close()


def open_log(nc: Client, settings: Settings) -> Log:
    """The log of the services' partition."""
    prefix = log_subject(settings.partition, "").rstrip(".")
    codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
    return JetStreamLog(nc, log_stream(settings.partition), prefix, codec, archive=settings.log_archive)


async def verify(nc: Client, partition: str, progress: Callable[[int, int], None]) -> Verification:
    """Look at the whole log up to where it ends now; `progress` is told where it is and where the end is."""
    stream = log_stream(partition)
    state = await state_of(nc, stream)
    verification = Verification(max(state.first_seq - 1, 0))
    # The bare messages: what is no commit, or is missing, must be reported instead of ending the reading.
    async for batch in read_messages(nc, stream, state.first_seq, state.last_seq):
        verification.see(batch)
        progress(batch[-1].sequence, state.last_seq)
    verification.end(state.last_seq)
    return verification


async def _ignore(error: Exception) -> None:
    """What is wrong shows where it is awaited; nats-py would print it."""
    del error
