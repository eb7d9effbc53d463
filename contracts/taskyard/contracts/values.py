"""Values that every part of Taskyard shares: names, ids, instants, positions, roles.

An `Instant` is microseconds since the Unix epoch, UTC. A `Position` names one event of the log: the sequence of its
commit in the stream and its index inside the commit, packed into one ordered integer; people and programs see it as
the opaque text of `format_position`.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum, StrEnum
from hashlib import blake2b
from itertools import count
from typing import Annotated, NewType, cast
from uuid import UUID

from msgspec import Meta

TaskId = NewType("TaskId", str)
CommandId = NewType("CommandId", str)
Instant = NewType("Instant", int)
Position = NewType("Position", int)
Incarnation = int | str
"""A run of a worker's agent: see incarnations.py."""

SECOND: int = 1_000_000
"""One second in the unit of `Instant`."""

# `$` alone would let a line break through at the end, and with it a second line of the NATS protocol.
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$(?!\n)"
QUEUE_PATTERN = r"^[a-z0-9][a-z0-9_./-]{0,127}$(?!\n)"
NO_NUL_PATTERN = r"^[^\x00]*$"
UUID7_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$(?!\n)"

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
"""A pool, worker or principal: it becomes one token of a subject."""
QueueName = Annotated[str, Meta(pattern=QUEUE_PATTERN)]
Uuid7 = Annotated[str, Meta(pattern=UUID7_PATTERN)]
Priority = Annotated[int, Meta(ge=1, le=10)]
Reason = Annotated[str, Meta(max_length=1024, pattern=NO_NUL_PATTERN)]
Labels = dict[
    Annotated[str, Meta(min_length=1, max_length=63, pattern=NO_NUL_PATTERN)],
    Annotated[str, Meta(max_length=255, pattern=NO_NUL_PATTERN)],
]

PRIORITY_DEFAULT = 5
QUEUE_DEFAULT = "default"
POOL_DEFAULT = "default"
EVENTS_PER_COMMIT_MAX = 1_000
_INDEX_BITS = 10

_name = re.compile(NAME_PATTERN)
_uuid7 = re.compile(UUID7_PATTERN)


class Role(StrEnum):
    """What a principal may do: a viewer reads; an operator also commands tasks of their own; an admin everything."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class Status(StrEnum):
    """The status of a task as people see it."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    ASSIGNED = "assigned"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    APPLY_PENDING = "apply_pending"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


def bind_members(kind: type[Enum]) -> None:
    """Make `kind.MEMBER` a plain attribute, as it is from Python 3.12 on: 3.11 calls a Python function each time.

    For enumerations that the fold of every event looks at.
    """
    for name, member in kind.__members__.items():
        type.__setattr__(kind, name, member)  # an Enum refuses to assign members by itself


def is_name(text: str) -> bool:
    """Whether `text` may name a pool, worker or principal."""
    return _name.match(text) is not None


def is_uuid7(text: str) -> bool:
    """Whether `text` is a UUIDv7 in its canonical lower-case form."""
    return _uuid7.match(text) is not None


def make_uuid7(at: Instant, random: int) -> str:
    """The UUIDv7 of `at` (millisecond precision) with 74 random bits taken from `random` (RFC 9562, 5.7)."""
    milliseconds = (at // 1000) & ((1 << 48) - 1)
    high, low = (random >> 62) & 0xFFF, random & ((1 << 62) - 1)
    return str(UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low))


def digest_bits(text: str) -> int:
    """74 bits that follow from a text: in place of random ones where the same id has to be made again."""
    return int.from_bytes(blake2b(text.encode(), digest_size=10).digest()) >> 6


def derive_uuid7(parent: str, part: str) -> str:
    """The id of a part of something with an id, of the parent's time: the same whenever it is derived."""
    return make_uuid7(uuid7_instant(parent), digest_bits(f"{parent}/{part}"))


def uuid7_instant(text: str) -> Instant:
    """The instant that a UUIDv7 bears; `text` must be one."""
    return Instant(int(text[:8] + text[9:13], 16) * 1000)


def make_position(sequence: int, index: int) -> Position:
    """The position of event `index` of the commit stored at `sequence`."""
    return Position(sequence << _INDEX_BITS | index)


def positions_of(sequence: int) -> Iterator[Position]:
    """The positions of the events of the commit stored at `sequence`, one after the other."""
    return cast("Iterator[Position]", count(make_position(sequence, 0)))


def commit_sequence(position: Position) -> int:
    """The stream sequence of the commit that holds `position`."""
    return position >> _INDEX_BITS


def format_position(position: Position) -> str:
    """The text of a position, for answers and SSE ids: `<sequence>.<index>`."""
    return f"{position >> _INDEX_BITS}.{position & (1 << _INDEX_BITS) - 1}"


def parse_position(text: str) -> Position:
    """The position that `format_position` wrote; a bare sequence means the last event of that commit.

    Raises:
        ValueError: the text is not a position.
    """
    sequence, dot, index = text.partition(".")
    if not (sequence.isascii() and sequence.isdigit() and len(sequence) < 16):
        raise ValueError(f"not a position: {text[:40]!r}")
    if not dot:
        return make_position(int(sequence), EVENTS_PER_COMMIT_MAX - 1)
    if not (index.isascii() and index.isdigit() and len(index) < 5 and int(index) < EVENTS_PER_COMMIT_MAX):
        raise ValueError(f"not a position: {text[:40]!r}")
    return make_position(int(sequence), int(index))


def to_datetime(at: Instant) -> datetime:
    """The instant as an aware datetime in UTC."""
    return datetime.fromtimestamp(at / SECOND, UTC)


def from_datetime(when: datetime) -> Instant:
    """The instant of an aware datetime."""
    return Instant(round(when.timestamp() * SECOND))


def format_instant(at: Instant) -> str:
    """RFC 3339 with milliseconds, as answers show it."""
    return to_datetime(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(duration_seconds: float) -> int:
    """A duration in the unit of `Instant`."""
    return round(duration_seconds * SECOND)
