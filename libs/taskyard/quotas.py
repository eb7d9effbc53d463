"""What one sender may cost: a share that is used up and grows again, one for each name. Pure; times are monotonic seconds."""

from msgspec import Struct

NAMES_MAX = 20_000
"""Names that are remembered. A share that is whole again needs no memory."""


class Quota(Struct, frozen=True, kw_only=True):
    """How much may be used at once, and how much comes back each second. The unit is its owner's."""

    at_once: float
    per_second: float


class Shares:
    """What is left of the share of each."""

    def __init__(self, quota: Quota, *, names_max: int = NAMES_MAX) -> None:
        self._quota = quota
        self._names_max = names_max
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, name: str, cost: float, now: float) -> bool:
        """Take the cost off the share if that has so much left; else nothing is taken."""
        left = self._left_of(name, now)
        if cost > left or not self._has_room_for(name, now):
            return False
        self._left[name] = (left - cost, now)
        return True

    def charge(self, name: str, cost: float, now: float) -> None:
        """Take off what was spent already, which may be more than was left: as much again as the share at most."""
        if self._has_room_for(name, now):
            self._left[name] = (max(self._left_of(name, now) - cost, -self._quota.at_once), now)

    def wait_seconds(self, name: str, now: float) -> float:
        """How long it takes until something is left; 0 while there is."""
        return max(0.0, -self._left_of(name, now)) / self._quota.per_second

    def _left_of(self, name: str, now: float) -> float:
        left, at = self._left.get(name, (self._quota.at_once, now))
        return min(left + (now - at) * self._quota.per_second, self._quota.at_once)

    def _has_room_for(self, name: str, now: float) -> bool:
        if name in self._left or len(self._left) < self._names_max:
            return True
        self._left = {each: left for each, left in self._left.items() if self._left_of(each, now) < self._quota.at_once}
        return len(self._left) < self._names_max
