"""Fetches the submission of an old task from the log, for its `retry`. What cannot be fetched now is an answer, and soon."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import structlog

from taskyard.contracts.events import TaskSubmitted
from taskyard.contracts.values import Position, TaskId, commit_sequence
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.log import EventLog

FETCH_SECONDS_MAX = 5.0
"""So long one submission may take: every command behind its `retry` waits for it."""
AWAY_SECONDS = 15.0
"""So long nothing as old as what could not be fetched is asked for again."""

_logger = structlog.get_logger()


class Unavailable(Exception):
    """The submission may be there, and cannot be read now. Remedy: ask again later, or look at the log's archive."""


class Originals:
    """Reads submissions from the log, whose older part may lie in an archive that is away."""

    def __init__(
        self, log: EventLog[Any], monotonic: Callable[[], float], *, fetch_seconds_max: float = FETCH_SECONDS_MAX
    ) -> None:
        self._log = log
        self._monotonic = monotonic
        self._fetch_seconds_max = fetch_seconds_max
        self._away_until = 0.0
        self._away_sequence = 0

    async def fetch(self, task: TaskId, position: Position) -> TaskSubmitted | None:
        """The submission of the task that was submitted at `position`; None where there is none.

        Raises:
            Unavailable: it cannot be read now.
        """
        sequence = commit_sequence(position)
        if sequence <= self._away_sequence and self._monotonic() < self._away_until:
            raise Unavailable
        try:
            async with asyncio.timeout(self._fetch_seconds_max):
                return await self._read(task, sequence)
        except (EventLogError, TimeoutError) as error:
            self._away_sequence, self._away_until = sequence, self._monotonic() + AWAY_SECONDS
            _logger.warning("a submission could not be fetched", task=task, sequence=sequence, reason=str(error))
            raise Unavailable from error

    async def _read(self, task: TaskId, sequence: int) -> TaskSubmitted | None:
        async with aclosing(self._log.read(sequence, sequence)) as commits:
            async for stored in commits:
                for event in stored.commit.events:
                    if isinstance(event, TaskSubmitted) and event.task == task:
                        return event
        return None
