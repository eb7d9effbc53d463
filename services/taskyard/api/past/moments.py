"""A moment of the past, as `?at=` names it: a position of the log, or a time. Pure."""

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from taskyard.contracts.values import Instant, Position, from_datetime, parse_position


class Moment(Struct, frozen=True, kw_only=True):
    """After the event at `position`, or after the last event whose log time is not later than `at`: one is given."""

    position: Position | None = None
    at: Instant | None = None


_SHOWN = 1_000
"""Answers show times in whole milliseconds (`format_instant`), this many units of `Instant`."""


def parse_moment(text: str) -> Moment:
    """The moment that a text names.

    Raises:
        ValueError: it is neither a position nor a time with a zone.
    """
    try:
        return Moment(position=parse_position(text))
    except ValueError:
        pass
    try:
        # In a query an unescaped `+` means a space.
        when = datetime.fromisoformat(text.strip().replace(" +", "+"))
        if when.tzinfo is None:
            raise ValueError("it has no zone")
        return Moment(at=from_datetime(when))
    except (ValueError, OverflowError) as error:
        raise ValueError("must be a position of the log, or an RFC 3339 time with a zone") from error


def with_its_millisecond(moment: Moment) -> Moment:
    """A time as answers show it, with the rest of its millisecond: what is shown to have happened then had happened."""
    if moment.at is None or moment.at % _SHOWN:
        return moment
    return replace(moment, at=Instant(moment.at + _SHOWN - 1))
