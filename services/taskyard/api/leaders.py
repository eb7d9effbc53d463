"""Whether each deciding service has a leader that stays: judged from looks all the time, since one cannot tell. Time is given.

A service that fails as soon as it leads, and is started again, holds its lease most of the time, and nobody decides. So a
leader counts once it has held its lease for longer than a lease lasts by itself, that is, once it has renewed it. One that
fails some time later is seen by how often leadership began lately: by the names that held the lease, and by the epochs in
the log, which rise with each beginning and tell also of those between two looks.

That nobody leads and that nobody tells who leads are two things: the second says nothing about the service.
"""

from collections import deque

from msgspec import Struct

from taskyard.contracts.events import DECIDERS
from taskyard.eventlog.leases import SILENCE_SECONDS_MAX

LEASE_LASTS = 1.5
"""A lease of one who is gone is gone after so many of its periods at the latest."""
TAKEOVER_LEASES_MAX = 2.0
"""A takeover takes so many lease periods at the longest: whoever is without a leader for longer is not well."""
UNSETTLED_LEASES_MAX = TAKEOVER_LEASES_MAX + LEASE_LASTS
"""And so long until its new leader has stayed."""
LATELY_SECONDS = 120.0
BEGINNINGS_MAX = 4
"""Leadership that began more often than this lately begins in a loop. A rolling restart of two or three instances, or a
hand-over, makes it begin once for each."""
BEGINNINGS_KEPT_MAX = 100


class Look(Struct, frozen=True, kw_only=True):
    """What was learnt of one writer: who holds its lease now, None for nobody, and its epoch in the log."""

    leader: str | None
    epoch: int


class WritersHealth(Struct, frozen=True, kw_only=True):
    """Who leads each deciding service, and for those that have no leader that stays what is wrong.

    Of those in `unknown` it was not learnt just now; their `leaders` are what was learnt last. `warnings` names streams that
    will soon be full, and refuse what is new then.
    """

    healthy: bool
    reasons: dict[str, str]
    leaders: dict[str, str | None]
    unknown: list[str]
    warnings: dict[str, str] = {}


class _Seen(Struct, kw_only=True):
    """What was seen of one writer. `lacking_since`: since when no leader has stayed, None while one does;
    `unknown_since`: since when nothing was learnt, None while it is.
    """

    leader: str | None = None
    leads_since: float = 0.0
    lacking_since: float | None
    unknown_since: float | None
    epoch: int | None = None
    holders: deque[float]
    epochs: deque[float]


class Leaders:
    """What was seen of the leaders since this instance began. All times are monotonic seconds of the caller."""

    def __init__(self, lease_seconds: float, now: float) -> None:
        self._lease_seconds = lease_seconds
        self._seen = {
            writer: _Seen(
                lacking_since=now,
                unknown_since=now,
                holders=deque(maxlen=BEGINNINGS_KEPT_MAX),
                epochs=deque(maxlen=BEGINNINGS_KEPT_MAX),
            )
            for writer in DECIDERS
        }

    def began_before(self, writer: str, at: float) -> None:
        """Note that the leadership of a writer began before this instance did: it may end with what it watches."""
        self._seen[writer].epochs.append(at)

    def saw(self, writer: str, look: Look | None, now: float) -> None:
        """Note what one look at a writer told; None: nothing was learnt."""
        seen = self._seen[writer]
        if look is None:
            seen.unknown_since = now if seen.unknown_since is None else seen.unknown_since
            return
        is_first, seen.unknown_since = seen.epoch is None, None
        if seen.epoch is not None:
            begun = min(max(look.epoch - seen.epoch, 0), BEGINNINGS_KEPT_MAX)
            seen.epochs.extend([now] * begun)
        seen.epoch = look.epoch
        leader = look.leader
        if leader != seen.leader:
            if leader is not None and not is_first:
                seen.holders.append(now)
            seen.lacking_since = now if seen.lacking_since is None else seen.lacking_since
            seen.leader, seen.leads_since = leader, now
        elif leader is not None and now - seen.leads_since > LEASE_LASTS * self._lease_seconds:
            seen.lacking_since = None

    def lacking_seconds(self, writer: str, now: float) -> float:
        """How long the writer has been without a leader that stays; 0 while it has one."""
        since = self._seen[writer].lacking_since
        return 0.0 if since is None else now - since

    def beginnings(self, writer: str, now: float) -> int:
        """How often the leadership of a writer has begun lately."""
        seen = self._seen[writer]
        # Each beginning shows twice, as another holder and as another epoch, and not at the same look.
        return max(sum(now - at <= LATELY_SECONDS for at in times) for times in (seen.holders, seen.epochs))

    def health(self, now: float) -> WritersHealth:
        """What is to be told of all."""
        reasons = {writer: reason for writer in DECIDERS if (reason := self._reason(writer, now))}
        return WritersHealth(
            healthy=not reasons,
            reasons=reasons,
            leaders={writer: seen.leader for writer, seen in self._seen.items()},
            unknown=[writer for writer, seen in self._seen.items() if seen.unknown_since is not None],
        )

    def _reason(self, writer: str, now: float) -> str:
        seen, lacking = self._seen[writer], self.lacking_seconds(writer, now)
        if seen.unknown_since is not None:
            unknown = now - seen.unknown_since
            # Whoever leads goes on for so long while nobody answers.
            is_long = unknown > max(SILENCE_SECONDS_MAX, TAKEOVER_LEASES_MAX * self._lease_seconds)
            return f"who leads has not been learnt for {unknown:.0f} s: look at nats-server" if is_long else ""
        if (begun := self.beginnings(writer, now)) > BEGINNINGS_MAX:
            who = f"the log of {seen.leader}" if seen.leader is not None else "the logs of its instances"
            return f"leadership began {begun} times in the last {LATELY_SECONDS:.0f} s: it restarts in a loop, look at {who}"
        if seen.leader is None and lacking > TAKEOVER_LEASES_MAX * self._lease_seconds:
            return f"no leader has been seen for {lacking:.0f} s: look whether an instance runs, and at its log"
        if seen.leader is not None and lacking > UNSETTLED_LEASES_MAX * self._lease_seconds:
            return f"no leader has stayed for {lacking:.0f} s: look at the log of {seen.leader}"
        return ""
