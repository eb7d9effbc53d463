"""Which tasks a list shows and in which order: filters, sorting, and the cursor of the next page, as SQL. Pure.

SQL is put together from the fixed texts here; everything that comes from outside is a parameter.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from taskyard.api.read_model import TaskFilter

SORT_DEFAULT = "-submitted_at"

_BIGINT_MAX = (1 << 63) - 1
_SORT_KEYS = {
    "submitted_at": "submitted",
    "priority": "priority",
    "finished_at": f"coalesce(finished_at, {_BIGINT_MAX})",
}
SORTS = tuple(sign + name for name in _SORT_KEYS for sign in ("", "-"))


class FilterInvalid(Exception):
    """A parameter of a list is not possible; `field` names it. Remedy: a known sort, or the cursor as it was given."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where a page ended: the sort, the last task's sort key and its place in the order of submission."""

    sort: str
    key: int
    submitted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list of tasks: conditions and order as SQL, their parameters, and how many tasks a page has."""

    conditions: str
    order: str
    parameters: tuple[Any, ...]
    limit: int
    sort: str

    def cursor_after(self, task: Mapping[str, Any]) -> str:
        """The cursor of what comes after this row."""
        match self.sort.removeprefix("-"):
            case "priority":
                key = task["priority"]
            case "finished_at":
                key = _BIGINT_MAX if task["finished_at"] is None else task["finished_at"]
            case _:
                key = task["submitted"]
        data = msgspec.json.encode(_Cursor(self.sort, key, task["submitted"]))
        return urlsafe_b64encode(data).decode().rstrip("=")


def make_listing(wanted: TaskFilter) -> Listing:
    """The list that was asked for.

    Raises:
        FilterInvalid: the sort or the cursor is none.
    """
    sort = SORT_DEFAULT if wanted.sort is None else wanted.sort
    if sort not in SORTS:
        raise FilterInvalid("sort", f"must be one of {', '.join(SORTS)}")
    values: list[Any] = []
    conditions: list[str] = []

    def parameter(value: Any) -> str:
        values.append(value)
        return f"${len(values)}"

    for column, possible in (
        ("status", wanted.statuses),
        ("kind", wanted.kinds),
        ("queue", wanted.queues),
        ("pool", wanted.pools),
        ("submitted_by", wanted.submitters),
        ("worker", wanted.workers),
    ):
        if len(possible) == 1:  # so that an index gives the order as well
            conditions.append(f"{column} = {parameter(possible[0])}")
        elif possible:
            conditions.append(f"{column} = ANY ({parameter(list(possible))}::text[])")
    for key, value in wanted.labels:
        label = msgspec.json.encode({key: value}).decode()
        # The second condition tells PostgreSQL that the index of labelled tasks holds all of these.
        conditions.append(f"labels @> {parameter(label)}::jsonb AND labels <> '{{}}'")
    if wanted.sees_only is not None:
        conditions.append(f"submitted_by = {parameter(wanted.sees_only)}")
    if wanted.cursor is not None:
        conditions.append(_behind(_read_cursor(wanted.cursor, sort), parameter))
    return Listing(
        conditions=" AND ".join(conditions) or "true",
        order=_order(sort),
        parameters=tuple(values),
        limit=wanted.limit,
        sort=sort,
    )


def _read_cursor(text: str, sort: str) -> _Cursor:
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        cursor = msgspec.json.decode(data, type=_Cursor)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise FilterInvalid("cursor", "is not a cursor") from None
    if cursor.sort != sort:
        raise FilterInvalid("cursor", "belongs to a list with another sort")
    if not (0 <= cursor.key <= _BIGINT_MAX and 0 <= cursor.submitted <= _BIGINT_MAX):
        raise FilterInvalid("cursor", "is not a cursor")
    return cursor


def _behind(cursor: _Cursor, parameter: Any) -> str:
    key = _SORT_KEYS[cursor.sort.removeprefix("-")]
    beyond = "<" if cursor.sort.startswith("-") else ">"
    if key == "submitted":
        return f"submitted {beyond} {parameter(cursor.submitted)}::bigint"
    return f"({key}, submitted) {beyond} ({parameter(cursor.key)}::bigint, {parameter(cursor.submitted)}::bigint)"


def _order(sort: str) -> str:
    key = _SORT_KEYS[sort.removeprefix("-")]
    direction = "DESC" if sort.startswith("-") else "ASC"
    return f"submitted {direction}" if key == "submitted" else f"{key} {direction}, submitted {direction}"
