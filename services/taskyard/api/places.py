"""Places of what costs the service something for as long as it goes on: so many in all, and for each principal."""

from collections import Counter
from collections.abc import Callable

from taskyard.api.errors import unavailable
from taskyard.api.principals import Caller
from taskyard.contracts.values import Role

PLACES_MAX = 200
"""Each has a consumer and a bounded buffer of its own."""
PLACES_EACH_MAX = 50
"""For one principal that is no admin: none of them keeps the others out."""
PLACES_FOR_ADMINS = 20
"""Places that only admins get, so that those who must look find one whoever else is there."""


class Places:
    """The places for one thing; `what` names those who have one."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._taken: Counter[str] = Counter()

    def take(self, caller: Caller) -> Callable[[], None]:
        """Give the caller a place; what is returned gives it back. Raises `Refusal`: there is none."""
        is_admin = caller.role is Role.ADMIN
        if not is_admin and self._taken[caller.name] >= PLACES_EACH_MAX:
            raise unavailable(f"{PLACES_EACH_MAX} {self._what} of yours are there already")
        if self._taken.total() >= PLACES_MAX - (0 if is_admin else PLACES_FOR_ADMINS):
            raise unavailable(f"too many {self._what} are there already")
        self._taken[caller.name] += 1

        def give_back() -> None:
            self._taken[caller.name] -= 1
            if not self._taken[caller.name]:
                del self._taken[caller.name]

        return give_back
