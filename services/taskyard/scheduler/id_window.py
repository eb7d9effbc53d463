"""Which ids are remembered: a window by their own time, for each principal.

A UUIDv7 bears its time. The window forgets a principal's ids of the earliest time first, and whatever of that principal is
as early as something forgotten is refused from then on: no id is ever both forgotten and accepted, however late its
command is read. Others are not refused for it: a million ids of one principal, some minutes ahead, are that one's affair.
"""

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush

from taskyard.contracts.commands import ID_AGE_SECONDS_MAX, ID_AHEAD_SECONDS_MAX
from taskyard.contracts.lifecycle import NO_INSTANT
from taskyard.contracts.values import SECOND, Instant, format_instant, seconds, uuid7_instant

IDS_MAX = 1_000_000
"""Ids remembered at most."""
ID_BYTES = 16

SHARED_SECONDS = 600
"""An id that is older is refused to everybody where anybody's as old were forgotten."""

_AGE, _AHEAD = seconds(ID_AGE_SECONDS_MAX), seconds(ID_AHEAD_SECONDS_MAX)
_SHARED = seconds(SHARED_SECONDS)
_TIME_BYTES = 6
_MILLISECOND = 1_000


def id_bytes(id: str) -> bytes:
    """The bytes of a UUID; what is none (a stranger's) has none."""
    try:
        return bytes.fromhex(id.replace("-", ""))
    except ValueError:
        return b""


def is_ahead(id: str, at: Instant) -> bool:
    """Whether the UUIDv7 bears a time too far behind `at` for anybody's clock."""
    return uuid7_instant(id) > at + _AHEAD


class Window:
    """The ids that are remembered, of each principal in the order of their times: that of their bytes.

    `horizons` tell up to which time something of a principal was forgotten; `horizon` is one that holds for all, of a
    snapshot of an earlier version.
    """

    def __init__(
        self,
        ids: Iterable[tuple[str, bytes]] = (),
        horizon: Instant = NO_INSTANT,
        horizons: Mapping[str, Instant] | None = None,
    ) -> None:
        self.horizon = horizon
        self.horizons = dict(horizons or {})
        self._orders: dict[str, list[bytes]] = {}
        for by, id in ids:
            self._orders.setdefault(by, []).append(id)
        for order in self._orders.values():
            heapify(order)
        self._count = sum(map(len, self._orders.values()))
        self._swept = -1

    def add(self, id: bytes, by: str, at: Instant) -> list[bytes]:
        """One more id of a principal, at log time `at`; those to forget, of which it may be one.

        Where there is no room, who has most ids forgets the earliest: nobody's many ids push out another's.
        """
        heappush(self._orders.setdefault(by, []), id)
        self._count += 1
        second = at // SECOND
        oldest = (max(0, second * SECOND - _AGE) // _MILLISECOND).to_bytes(_TIME_BYTES)
        forgotten: list[bytes] = []
        # Once in a second everybody's are looked at; who adds one that is as old already, always.
        for name in sorted(self._orders) if second != self._swept else (by,):
            while name in self._orders and self._orders[name][0] < oldest:
                forgotten.append(self._forget_first(name))
        self._swept = second
        while self._count > IDS_MAX:
            forgotten.append(self._forget_first(max(self._orders, key=lambda name: (len(self._orders[name]), name))))
        return forgotten

    def age_fault(self, id: str, by: str, at: Instant) -> str | None:
        """Why an id that a principal sent, and that came at log time `at`, is refused for its own time, if it is."""
        own = uuid7_instant(id)
        if own > at + _AHEAD:
            ahead = round((own - at) / SECOND)
            return f"its time is more than {ID_AHEAD_SECONDS_MAX} s ahead: your clock is ahead by {ahead} s"
        if own < at - _AGE:
            return f"its time is more than {ID_AGE_SECONDS_MAX} s ago"
        horizon = self._horizon_for(by, at)
        if own <= horizon:
            return f"its time is not after {format_instant(horizon)}, and ids as old are not remembered any more"
        return None

    def _horizon_for(self, by: str, at: Instant) -> Instant:
        """Up to which time a principal's ids are refused. What others have forgotten counts too, but for the last minutes:
        there an id could be accepted twice only if two principals send the same one, a million ids apart.
        """
        of_others = min(max(self.horizons.values(), default=NO_INSTANT), at - _SHARED)
        return Instant(max(self.horizon, self.horizons.get(by, NO_INSTANT), of_others))

    def _forget_first(self, by: str) -> bytes:
        order = self._orders[by]
        id = heappop(order)
        self._count -= 1
        if not order:
            del self._orders[by]
        time = Instant(int.from_bytes(id[:_TIME_BYTES]) * _MILLISECOND)
        self.horizons[by] = max(self.horizons.get(by, NO_INSTANT), time)
        return id
