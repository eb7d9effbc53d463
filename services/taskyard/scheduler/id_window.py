"""Which ids are remembered: a window by their own time.

A UUIDv7 bears its time. The window forgets the ids of the earliest time first, and whatever is as early as something
forgotten is refused from then on: no id is ever both forgotten and accepted, however late its command is read.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from taskyard.contracts.commands import ID_AGE_SECONDS_MAX, ID_AHEAD_SECONDS_MAX
from taskyard.contracts.lifecycle import NO_INSTANT
from taskyard.contracts.values import Instant, format_instant, seconds, uuid7_instant

IDS_MAX = 1_000_000
"""Ids remembered at most."""
ID_BYTES = 16

_AGE, _AHEAD = seconds(ID_AGE_SECONDS_MAX), seconds(ID_AHEAD_SECONDS_MAX)
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
    """The ids that are remembered, in the order of their times: that of their bytes."""

    def __init__(self, ids: Iterable[bytes] = (), horizon: Instant = NO_INSTANT) -> None:
        self.horizon = horizon
        self._order = list(ids)
        heapify(self._order)
        self._at = NO_INSTANT
        self._oldest = b""

    def add(self, id: bytes, at: Instant) -> list[bytes]:
        """One more id, at log time `at`; those to forget, of which it may be one."""
        order = self._order
        forgotten: list[bytes] = []
        heappush(order, id)
        if at != self._at:
            self._at, oldest = at, max(0, at - _AGE)
            self._oldest = (oldest // _MILLISECOND).to_bytes(_TIME_BYTES)
        while order and (order[0] < self._oldest or len(order) > IDS_MAX):
            forgotten.append(heappop(order))
        if forgotten:
            latest = int.from_bytes(forgotten[-1][:_TIME_BYTES]) * _MILLISECOND
            self.horizon = Instant(max(self.horizon, latest))
        return forgotten

    def age_fault(self, id: str, at: Instant) -> str | None:
        """Why an id that came at log time `at` is refused for its own time, if it is."""
        own = uuid7_instant(id)
        if own > at + _AHEAD:
            return f"its time is more than {ID_AHEAD_SECONDS_MAX} s ahead"
        if own < at - _AGE:
            return f"its time is more than {ID_AGE_SECONDS_MAX} s ago"
        if own <= self.horizon:
            return f"its time is not after {format_instant(self.horizon)}, and ids as old are not remembered any more"
        return None
