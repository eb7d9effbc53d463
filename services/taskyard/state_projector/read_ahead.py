"""Commits that were read from the log and wait to be written: bounded, and gathered to what is worth a transaction."""

import asyncio
from collections.abc import Sequence
from typing import Any

from taskyard.contracts.values import Instant
from taskyard.eventlog.commit import StoredCommit

EVENTS_MAX = 20_000
BYTES_MAX = 8 << 20
"""From one of these on nothing more is read before what there is was taken; one batch of the follower may exceed it."""
QUIET_SECONDS = 0.05
"""A log that has been silent for this long is not waited for any more."""

Commits = list[StoredCommit[Any]]


class ReadAhead:
    """What one task reads and another one writes."""

    def __init__(self) -> None:
        self._commits: Commits = []
        self._events = 0
        self._bytes = 0
        self._taken_since: Instant | None = None
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()

    @property
    def oldest(self) -> Instant | None:
        """Log time of the first commit that is not written yet; what was taken is written when more is gathered."""
        if self._taken_since is not None:
            return self._taken_since
        return self._commits[0].at if self._commits else None

    async def put(self, commits: Sequence[StoredCommit[Any]]) -> None:
        """Add commits; waits for room."""
        while self._is_full:
            self._taken.clear()
            await self._taken.wait()
        self._commits += commits
        self._events += count_events(commits)
        self._bytes += sum(stored.size for stored in commits)
        self._arrived.set()

    async def gather(self, due: float) -> Commits:
        """Take everything, at least one commit: before `due` (by the loop's clock) only if it fills up or falls silent."""
        self._taken_since = None
        while not self._commits:
            await self._arrival()
        now = asyncio.get_running_loop().time
        while not self._is_full and (left := due - now()) > 0:
            try:
                async with asyncio.timeout(min(left, QUIET_SECONDS)):
                    await self._arrival()
            except TimeoutError:
                break
        taken, self._commits = self._commits, []
        self._events = self._bytes = 0
        self._taken_since = taken[0].at
        self._taken.set()
        return taken

    @property
    def _is_full(self) -> bool:
        return self._events >= EVENTS_MAX or self._bytes >= BYTES_MAX

    async def _arrival(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()


def count_events(commits: Sequence[StoredCommit[Any]]) -> int:
    """How many events these commits hold."""
    return sum(len(stored.commit.events) for stored in commits)
