"""Pages of a list of tasks: how it is sorted, which tasks a page has, and the cursor that names where it ended. Pure."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from typing import TypeVar

import msgspec
from msgspec import Struct

from taskyard.api.views import TaskPage, TaskView
from taskyard.contracts.values import Instant, Position

SORT_DEFAULT = "-submitted_at"
SORT_FIELDS = ("submitted_at", "priority", "finished_at")
SORTS = tuple(sign + field for field in SORT_FIELDS for sign in ("", "-"))

NOT_FINISHED = (1 << 63) - 1
"""The time at which a task that has not ended is sorted: behind all that have."""

KEY_MAX = (1 << 63) - 1

C = TypeVar("C", bound=Struct)


class FilterInvalid(Exception):
    """A parameter of a list is not possible; `field` names it. Remedy: a known sort, or the cursor as it was given."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class Sort(Struct, frozen=True):
    """The order of a list. Tasks with equal keys stand in the order of their submission."""

    field: str
    descending: bool

    def __str__(self) -> str:
        return f"-{self.field}" if self.descending else self.field

    def key(self, *, submitted: Position, priority: int, finished_at: Instant | None) -> int:
        """What a task is sorted by."""
        match self.field:
            case "priority":
                return priority
            case "finished_at":
                return NOT_FINISHED if finished_at is None else finished_at
            case _:
                return submitted


class ShownMoment(Struct, frozen=True, array_like=True):
    """The moment of the past that all pages of one list show: after the event at `reached`.

    `asked` is the time by which it was named, None where it was named by its position.
    """

    reached: Position
    asked: Instant | None


class Cursor(Struct, frozen=True, array_like=True):
    """Where a page ended: the sort, the last task's key and its place in the order of submission, and the moment shown."""

    sort: str
    key: int
    submitted: int
    moment: ShownMoment | None = None

    def is_before(self, sort: Sort, key: int, submitted: int) -> bool:
        """Whether a task with this place in the list comes after the page."""
        here, there = (self.key, self.submitted), (key, submitted)
        return there < here if sort.descending else there > here


class Placed(Struct, frozen=True, kw_only=True):
    """A task with its place in a sorted list."""

    key: int
    submitted: int
    task: TaskView

    @property
    def place(self) -> tuple[int, int]:
        """What orders the list."""
        return self.key, self.submitted


def read_sort(text: str | None) -> Sort:
    """The order that was asked for. Raises `FilterInvalid`."""
    text = SORT_DEFAULT if text is None else text
    if text not in SORTS:
        raise FilterInvalid("sort", f"must be one of {', '.join(SORTS)}")
    return Sort(field=text.removeprefix("-"), descending=text.startswith("-"))


def read_cursor(text: str | None, sort: Sort) -> Cursor | None:
    """The cursor that was given, None for the first page. Raises `FilterInvalid`."""
    if text is None:
        return None
    cursor = decode_cursor(text, Cursor)
    if cursor.sort != str(sort):
        raise FilterInvalid("cursor", "belongs to a list with another sort")
    numbers = (cursor.key, cursor.submitted, *((cursor.moment.reached,) if cursor.moment else ()))
    if not all(0 <= number <= KEY_MAX for number in numbers):
        raise FilterInvalid("cursor", "is not a cursor")
    return cursor


def make_page(found: Iterable[Placed], sort: Sort, limit: int, moment: ShownMoment | None = None) -> TaskPage:
    """The page of these tasks, of which there are more than `limit` if there is another page."""
    tasks = sorted(found, key=lambda each: each.place, reverse=sort.descending)
    shown = tasks[:limit]
    if len(tasks) == len(shown):
        return TaskPage(items=[each.task for each in shown], next_cursor=None)
    cursor = Cursor(str(sort), shown[-1].key, shown[-1].submitted, moment)
    return TaskPage(items=[each.task for each in shown], next_cursor=encode_cursor(cursor))


def encode_cursor(cursor: Struct) -> str:
    """A cursor as text, which says nothing to who gets it."""
    return urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def decode_cursor(text: str, kind: type[C]) -> C:
    """The cursor of a text. Raises `FilterInvalid`."""
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(data, type=kind)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise FilterInvalid("cursor", "is not a cursor") from None
