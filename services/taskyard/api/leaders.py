"""Whether each deciding service has a leader that stays: watched all the time, since one look cannot tell.

A service that fails as soon as it leads, and is started again, holds its lease most of the time, and nobody decides. So a
leader counts once it has held its lease for longer than a lease lasts by itself, that is, once it has renewed it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from msgspec import Struct

from taskyard.contracts.events import DECIDERS

LOOKS_PER_LEASE = 3
LEASE_LASTS = 1.5
"""A lease of one who is gone is gone after so many of its periods at the latest."""
TAKEOVER_LEASES_MAX = 2.0
"""A takeover takes so many lease periods at the longest: whoever is without a leader for longer is not well."""
UNSETTLED_LEASES_MAX = TAKEOVER_LEASES_MAX + LEASE_LASTS
"""And so long until its new leader has stayed."""

Ask = Callable[[str], Awaitable[str | None]]
"""Who leads a writer now; None for nobody, or where that was not learnt."""


class WritersHealth(Struct, frozen=True, kw_only=True):
    """Who leads each deciding service, and for those that have been without a leader for too long, what is wrong."""

    healthy: bool
    reasons: dict[str, str]
    leaders: dict[str, str | None]


class _Seen(Struct, kw_only=True):
    """What was seen of one writer. `lacking_since`: since when no leader has stayed; None while one does."""

    leader: str | None = None
    leads_since: float = 0.0
    lacking_since: float | None


class Leaders:
    """What was seen of the leaders since this instance began. All times are monotonic seconds of the caller."""

    def __init__(self, lease_seconds: float, now: float) -> None:
        self._lease_seconds = lease_seconds
        self._seen = {writer: _Seen(lacking_since=now) for writer in DECIDERS}

    def saw(self, writer: str, leader: str | None, now: float) -> None:
        """Note who leads a writer now."""
        seen = self._seen[writer]
        if leader != seen.leader:
            seen.lacking_since = now if seen.lacking_since is None else seen.lacking_since
            seen.leader, seen.leads_since = leader, now
        elif leader is not None and now - seen.leads_since > LEASE_LASTS * self._lease_seconds:
            seen.lacking_since = None

    def lacking_seconds(self, writer: str, now: float) -> float:
        """How long the writer has been without a leader that stays; 0 while it has one."""
        since = self._seen[writer].lacking_since
        return 0.0 if since is None else now - since

    def health(self, now: float) -> WritersHealth:
        """What is to be told of all."""
        reasons = {writer: reason for writer in DECIDERS if (reason := self._reason(writer, now))}
        leaders = {writer: seen.leader for writer, seen in self._seen.items()}
        return WritersHealth(healthy=not reasons, reasons=reasons, leaders=leaders)

    def _reason(self, writer: str, now: float) -> str:
        lacking, leader = self.lacking_seconds(writer, now), self._seen[writer].leader
        if leader is None and lacking > TAKEOVER_LEASES_MAX * self._lease_seconds:
            return f"no leader has been seen for {lacking:.0f} s: look whether an instance runs, and at its log"
        if leader is not None and lacking > UNSETTLED_LEASES_MAX * self._lease_seconds:
            return f"no leader has stayed for {lacking:.0f} s: look at the log of {leader}"
        return ""


async def watch_leaders(leaders: Leaders, ask: Ask, lease_seconds: float) -> None:
    """Look again and again who leads."""
    while True:
        holders = await asyncio.gather(*(ask(writer) for writer in DECIDERS))
        for writer, holder in zip(DECIDERS, holders, strict=True):
            leaders.saw(writer, holder, time.monotonic())
        await asyncio.sleep(lease_seconds / LOOKS_PER_LEASE)
