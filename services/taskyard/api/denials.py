"""Who was refused at a door for want of credentials or of a right: told in the log, but never in bulk."""

import logging
import time
from collections.abc import Callable

LINES_PER_MINUTE_MAX = 20
STATUSES = frozenset((401, 403))
TEXT_CHARACTERS_MAX = 200

_log = logging.getLogger(__name__)


class Denials:
    """Logs denials of one door, up to a number a minute; those beyond are counted and told with the next line."""

    def __init__(self, door: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._door = door
        self._clock = clock
        self._minute = -1
        self._logged = 0
        self._left_out = 0

    def note(self, status: int, *, who: str | None, where: str | None, what: str, reason: str) -> None:
        """An answer with this status was given: to a principal, if one was recognised, at an address, about `what`."""
        if status not in STATUSES:
            return
        minute = int(self._clock() // 60)
        if minute != self._minute:
            self._minute, self._logged = minute, 0
        if self._logged >= LINES_PER_MINUTE_MAX:
            self._left_out += 1
            return
        self._logged += 1
        left_out, self._left_out = self._left_out, 0
        fields = {
            "door": self._door,
            "status": status,
            "by": who,
            "address": where,
            "what": what[:TEXT_CHARACTERS_MAX],
            "reason": reason[:TEXT_CHARACTERS_MAX],
            "left_out": left_out or None,
        }
        _log.warning("access was denied", extra={name: value for name, value in fields.items() if value is not None})
