"""Looks after the kept states of the past in the background, slowly, so that it is never noticed."""

import asyncio
import logging
from contextlib import aclosing

from nats.errors import Error as NatsError

from taskyard.api.errors import Refusal
from taskyard.api.past.checkpoints import Checkpoints
from taskyard.api.past.folding import chunks_behind
from taskyard.api.past.state import LogEvent, PastState, end_of
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.log import EventLog

KEEP_SECONDS = 60.0
"""How often the kept states are looked after."""
KEEP_COMMITS_MIN = 5_000
"""A log that grew by less needs no new ones."""
KEEP_REST = 12.0
"""It rests so many times as long as it works: it takes less than a tenth of a processor."""

_log = logging.getLogger(__name__)


async def keep_up(log: EventLog[LogEvent], checkpoints: Checkpoints) -> None:
    """Keep states of the past, for as long as the service runs."""
    done = 0
    while True:
        try:
            head = await log.head()
            if head < done:
                done = 0  # another log, that begins anew
            if head - done >= KEEP_COMMITS_MIN:
                done = await keep_until(head, log, checkpoints)
        except (EventLogError, NatsError, Refusal) as error:
            _log.warning("states of the past are not kept for now", extra={"error": str(error)})
        except Exception:  # noqa: BLE001 - without them answers take longer, and no more
            _log.exception("states of the past are not kept for now")
        await asyncio.sleep(KEEP_SECONDS)


async def keep_until(head: int, log: EventLog[LogEvent], checkpoints: Checkpoints, *, rest: float = KEEP_REST) -> int:
    """Fold on from the latest kept state to the commit `head`, slowly, and keep what is due; how far it came."""
    state = await checkpoints.latest() or PastState()
    clock = asyncio.get_running_loop().time
    async with aclosing(chunks_behind(state, log)) as chunks:
        async for chunk in chunks:
            for stored in chunk:
                before = state.events
                began = clock()
                await asyncio.to_thread(state.fold, stored, end_of(stored.sequence))
                if checkpoints.is_due(before, state):
                    await checkpoints.keep(state)
                await asyncio.sleep((clock() - began) * rest)
            if state.sequence >= head:
                break
    return state.sequence
