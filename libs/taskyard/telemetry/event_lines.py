"""Log lines of what a leader decided: each event where somebody debugs, refused commands always but never in bulk."""

from typing import Any

import structlog

from taskyard.contracts.events import CommandRejected, RefusalsCounted, event_name
from taskyard.contracts.values import SECOND, Instant, Position, format_position
from taskyard.machine.core import Apply

REJECTIONS_PER_MINUTE_MAX = 20
MINUTE = 60 * SECOND


class EventLines:
    """Logs each own event of a leader at the level `debug`."""

    def __init__(self, service: str) -> None:
        self._logger = structlog.get_logger(service=service)

    def lead(self) -> None:
        """Nothing is remembered."""

    def applying(self, apply: Apply, *, is_own: bool) -> Apply:
        """Fold with `apply`, and log what is own."""
        return self._logging(apply) if is_own else apply

    def _logging(self, apply: Apply) -> Apply:
        def watched(event: Any, at: Instant, position: Position) -> None:
            apply(event, at, position)
            found = {name: getattr(event, name, None) for name in ("task", "attempt", "worker", "slot", "by")}
            fields = {name: value for name, value in found.items() if value is not None}
            self._logger.debug("decided", type=event_name(event), position=format_position(position), **fields)

        return watched


class RejectionLines:
    """Logs refused commands, up to a number a minute; those beyond are counted and told with the next line."""

    def __init__(self, service: str) -> None:
        self._logger = structlog.get_logger(service=service)
        self._minute = 0
        self._logged = 0
        self._left_out = 0

    def rejected(self, event: CommandRejected, at: Instant) -> None:
        """A command was refused at `at`."""
        if not self._has_room(at):
            self._left_out += 1
            return
        fields = self._fields()
        if event.task is not None:
            fields["task"] = event.task
        self._logger.info(
            "rejected a command",
            command=event.command,
            verb=event.verb,
            by=event.by,
            pool=event.pool,
            status=event.status,
            code=event.code,
            reason=event.message,
            **fields,
        )

    def counted(self, event: RefusalsCounted, at: Instant) -> None:
        """So many commands were refused until `at` and only counted."""
        if not self._has_room(at):
            self._left_out += event.count
            return
        self._logger.info(
            "rejected commands beyond what is written of each",
            by=event.by,
            count=event.count,
            codes=event.codes,
            **self._fields(),
        )

    def _has_room(self, at: Instant) -> bool:
        minute = at // MINUTE
        if minute != self._minute:
            self._minute, self._logged = minute, 0
        if self._logged >= REJECTIONS_PER_MINUTE_MAX:
            return False
        self._logged += 1
        return True

    def _fields(self) -> dict[str, object]:
        left_out, self._left_out = self._left_out, 0
        return {"left_out": left_out} if left_out else {}
