"""Words for people: ages, durations, clean text. Pure; `now` is seconds since the epoch."""

import re
import textwrap
from collections.abc import Mapping
from datetime import datetime

import msgspec

# A terminal obeys control characters; what agents and other people wrote must not command it.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_LINES = re.compile(r"[\r\n\t\u2028\u2029]+")

FOLD_WIDTH_MIN = 20
"""What is folded gets so much room at least, however narrow the terminal is."""


def clean(text: str) -> str:
    """The text without anything that a terminal would obey; line breaks stay."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\t", "    "))


def one_line(text: str) -> str:
    """The text, cleaned, on one line."""
    return clean(_LINES.sub(" ", text)).strip()


def folded(text: str, width: int | None, indent: int = 0) -> list[str]:
    """One line of text folded to `width` cells, later lines indented by `indent`; None for as long as it is."""
    if width is None:
        return [text]
    room = max(width, indent + FOLD_WIDTH_MIN)
    # An id or a path is not to be broken: it is copied.
    return textwrap.wrap(text, room, subsequent_indent=" " * indent, break_on_hyphens=False) or [""]


def seconds_of(text: str | None) -> float | None:
    """An RFC 3339 time as seconds since the epoch; None for none."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def age(text: str | None, now: float) -> str:
    """How long ago a time was, in one unit: `5s`, `3m`, `2h`, `4d`."""
    then = seconds_of(text)
    return "" if then is None else short(now - then)


def short(duration_seconds: float) -> str:
    """A duration in one unit."""
    whole = max(int(duration_seconds), 0)
    if whole < 120:
        return f"{whole}s"
    if whole < 120 * 60:
        return f"{whole // 60}m"
    if whole < 48 * 3600:
        return f"{whole // 3600}h"
    return f"{whole // 86_400}d"


def duration(duration_seconds: float) -> str:
    """A duration as people say it: `420ms`, `12.3s`, `3m12s`, `2h05m`."""
    if duration_seconds < 0.9995:
        return f"{max(round(duration_seconds * 1000), 0)}ms"
    if duration_seconds < 59.95:
        return f"{duration_seconds:.1f}s"
    whole = round(duration_seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def between(start: str | None, end: str | None) -> str:
    """How long it was from one time to another; empty where one is missing."""
    first, last = seconds_of(start), seconds_of(end)
    return "" if first is None or last is None else duration(last - first)


def moment(text: str | None) -> str:
    """A time as `2026-11-21 10:00:00.123`, in UTC as it came."""
    return "" if not text else one_line(text).replace("T", " ").removesuffix("Z")


def pairs(values: Mapping[str, object]) -> str:
    """`a=1 b=text`: the fields of something, values as JSON where they are no plain text."""
    return " ".join(f"{one_line(name)}={plain(value)}" for name, value in values.items())


def plain(value: object) -> str:
    """A value on one line: text as it is, anything else as JSON."""
    return one_line(value if isinstance(value, str) else msgspec.json.encode(value).decode())
