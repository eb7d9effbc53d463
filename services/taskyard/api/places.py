"""Places of what costs the service something for as long as it goes on: so many in all, and for each principal."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from taskyard.api.errors import BeyondShare
from taskyard.api.principals import Caller
from taskyard.contracts.values import Role
from taskyard.quotas import Quota, Shares


class PlaceLimits(Struct, frozen=True, kw_only=True):
    """How many places there are. `each` is for one principal that is no admin: none of them keeps the others out.

    `for_admins` are those that only admins get, so that those who must look find one whoever else is there. `taking` bounds
    how often one principal may take one: that costs as well, however soon it is given back.
    """

    total: int
    each: int
    for_admins: int
    taking: Quota | None = None


STREAMS = PlaceLimits(total=200, each=50, for_admins=20, taking=Quota(at_once=100, per_second=10))
"""Readers of live streams: each has a consumer and a bounded buffer of its own."""
COMMANDS = PlaceLimits(total=2_000, each=500, for_admins=200)
"""Requests with a command: each waits for its verdict, for seconds where the scheduler is away."""
QUESTIONS = PlaceLimits(total=12, each=4, for_admins=4)
"""Questions about the past: one folds, the others wait."""


class Places:
    """The places for one thing; `what` names those who have one."""

    def __init__(self, what: str, limits: PlaceLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._limits = limits
        self._clock = clock
        self._taken: Counter[str] = Counter()
        self._taking = Shares(limits.taking) if limits.taking is not None else None

    def take(self, caller: Caller) -> Callable[[], None]:
        """Give the caller a place; what is returned gives it back. Raises `BeyondShare`: there is none."""
        limits, is_admin = self._limits, caller.role is Role.ADMIN
        if not is_admin and self._taken[caller.name] >= limits.each:
            raise BeyondShare(429, "too_many", f"{limits.each} {self._what} of yours are there already")
        if self._taken.total() >= limits.total - (0 if is_admin else limits.for_admins):
            raise BeyondShare(503, "unavailable", f"too many {self._what} are there already")
        if self._taking is not None and not is_admin and not self._taking.take(caller.name, 1, self._clock()):
            assert limits.taking is not None
            told = f"{self._what} of yours are opened too often: {limits.taking.per_second:g} a second may be"
            raise BeyondShare(429, "too_often", told)
        self._taken[caller.name] += 1

        def give_back() -> None:
            self._taken[caller.name] -= 1
            if not self._taken[caller.name]:
                del self._taken[caller.name]

        return give_back

    @contextmanager
    def held(self, caller: Caller) -> Iterator[None]:
        """A place of the caller for as long as this lasts. Raises as `take`."""
        give_back = self.take(caller)
        try:
            yield
        finally:
            give_back()
