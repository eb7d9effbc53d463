"""Looks again and again at who leads each deciding service."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import structlog

from taskyard.api.feed import LogEvent
from taskyard.api.leaders import LATELY_SECONDS, Leaders, Look
from taskyard.contracts.events import DECIDERS
from taskyard.contracts.values import SECOND, Instant
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.log import EventLog

LOOKS_PER_LEASE = 3
LOOKED_BACK_COMMITS_MAX = 500
"""So much of the end of the log is read at the start: where services restart in a loop little is appended."""
LOOK_BACK_SECONDS_MAX = 5.0

Ask = Callable[[str], Awaitable[Look | None]]
"""What a look at a writer tells; None where nothing was learnt."""

_logger = structlog.get_logger()


async def watch_leaders(leaders: Leaders, ask: Ask, lease_seconds: float) -> None:
    """Look again and again who leads."""
    while True:
        looks = await asyncio.gather(*(_look(ask, writer) for writer in DECIDERS))
        for writer, look in zip(DECIDERS, looks, strict=True):
            leaders.saw(writer, look, time.monotonic())
        await asyncio.sleep(lease_seconds / LOOKS_PER_LEASE)


async def look_back(leaders: Leaders, log: EventLog[LogEvent], wall: Callable[[], Instant]) -> None:
    """Note how often leadership began just before this instance did. In one process with the services it ends with each of
    them, and would have forgotten whenever it is asked.
    """
    try:
        async with asyncio.timeout(LOOK_BACK_SECONDS_MAX):
            await _look_back(leaders, log, wall)
    except (EventLogError, TimeoutError) as error:
        _logger.warning("who led before is not known", error=str(error) or "time is up")
    except Exception:  # who leads now can be learnt all the same
        _logger.exception("who led before is not known")


async def _look(ask: Ask, writer: str) -> Look | None:
    """A look that raises tells nothing, and keeps nobody from the next one."""
    try:
        return await ask(writer)
    except Exception:
        _logger.exception("who leads was not learnt", writer=writer)
        return None


async def _look_back(leaders: Leaders, log: EventLog[LogEvent], wall: Callable[[], Instant]) -> None:
    head = await log.head()
    epochs: dict[str, int] = {}
    async with aclosing(log.read(max(head - LOOKED_BACK_COMMITS_MAX, 0) + 1, head)) as commits:
        async for stored in commits:
            writer, epoch = stored.commit.writer, stored.commit.epoch
            ago = (wall() - stored.at) / SECOND
            if writer in DECIDERS and epoch > epochs.get(writer, epoch) and ago <= LATELY_SECONDS:
                leaders.began_before(writer, time.monotonic() - ago)
            epochs[writer] = epoch
