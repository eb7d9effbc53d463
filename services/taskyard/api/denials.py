"""Who was refused at a door for want of credentials or of a right: told in the log and in the trace, but never in bulk."""

import logging
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from taskyard.contracts.audit import AccessDenied

TOLD_PER_MINUTE_MAX = 20
TOLD_OF_ONE_PER_MINUTE_MAX = 5
"""So many of one principal, or of one address where nobody was recognised: the others have room."""
STATUSES = frozenset((401, 403))
TEXT_CHARACTERS_MAX = 200

_log = logging.getLogger(__name__)


class Denials:
    """Tells of denials of one door, up to a number a minute; those beyond are counted and told with the next one.

    What is told stands in the log, and is given to `trace`.
    """

    def __init__(
        self, door: str, trace: Callable[[AccessDenied], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._door = door
        self._trace = trace
        self._clock = clock
        self._minute = -1
        self._told: Counter[str] = Counter()
        self._left_out = 0

    def note(self, status: int, *, who: str | None, where: str | None, what: str, reason: str) -> None:
        """An answer with this status was given: to a principal, if one was recognised, at an address, about `what`."""
        if status not in STATUSES:
            return
        minute = int(self._clock() // 60)
        if minute != self._minute:
            self._minute, self._told = minute, Counter()
        one = f"by {who}" if who is not None else f"at {where}"
        if self._told.total() >= TOLD_PER_MINUTE_MAX or self._told[one] >= TOLD_OF_ONE_PER_MINUTE_MAX:
            self._left_out += 1
            return
        self._told[one] += 1
        denied = AccessDenied(
            door=self._door,
            status=status,
            by=who,
            address=where,
            what=what[:TEXT_CHARACTERS_MAX],
            reason=reason[:TEXT_CHARACTERS_MAX],
            left_out=self._left_out,
        )
        self._left_out = 0
        _log.warning("access was denied", extra=msgspec.to_builtins(denied))
        self._trace(denied)
