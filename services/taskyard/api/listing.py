"""Which tasks a list shows and in which order: filters, sorting, and the cursor of the next page, as SQL. Pure.

SQL is put together from the fixed texts here; everything that comes from outside is a parameter.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from taskyard.contracts.values import Status

LIMIT_DEFAULT = 50
LIMIT_MAX = 500
VALUES_MAX = 50
"""How often one filter may be repeated."""
SORT_DEFAULT = "-submitted_at"

_BIGINT_MAX = (1 << 63) - 1
_ALIASES = {"canceled": Status.CANCELLED.value}
_COLUMNS = {
    "status": "status",
    "kind": "kind",
    "queue": "queue",
    "pool": "pool",
    "submitted_by": "submitted_by",
    "worker": "worker",
}
_SORT_KEYS = {
    "submitted_at": "submitted",
    "priority": "priority",
    "finished_at": f"coalesce(finished_at, {_BIGINT_MAX})",
}
SORTS = tuple(sign + name for name in _SORT_KEYS for sign in ("", "-"))
FIELDS = (*_COLUMNS, "label", "sort", "limit", "cursor")


class FilterInvalid(Exception):
    """A parameter of a list cannot be understood. `field` names it."""

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


def read_listing(parameters: Mapping[str, Sequence[str]], *, submitted_by: str | None = None) -> Listing:
    """The list that the parameters of a request ask for; with `submitted_by`, of that principal's tasks only.

    A parameter that is repeated means any of its values, but `label` means all of them.

    Raises:
        FilterInvalid: a parameter is unknown, or its value is not possible.
    """
    for field, values in parameters.items():
        _check(field, values)
    sort = _one(parameters, "sort") or SORT_DEFAULT
    if sort not in SORTS:
        raise FilterInvalid("sort", f"must be one of {', '.join(SORTS)}")
    values: list[Any] = []
    conditions = ["true"]

    def parameter(value: Any) -> str:
        values.append(value)
        return f"${len(values)}"

    for field, column in _COLUMNS.items():
        if wanted := parameters.get(field):
            wanted = _statuses(wanted) if field == "status" else list(wanted)
            conditions.append(f"{column} = ANY ({parameter(wanted)}::text[])")
    if submitted_by is not None:
        conditions.append(f"submitted_by = {parameter(submitted_by)}")
    if labels := parameters.get("label"):
        conditions.append(f"labels @> {parameter(_labels(labels))}::jsonb AND labels <> '{{}}'")
    if (cursor := _one(parameters, "cursor")) is not None:
        conditions.append(_behind(_read_cursor(cursor, sort), parameter))
    return Listing(
        conditions=" AND ".join(conditions),
        order=_order(sort),
        parameters=tuple(values),
        limit=_limit(_one(parameters, "limit")),
        sort=sort,
    )


def _check(field: str, values: Sequence[str]) -> None:
    if field not in FIELDS:
        raise FilterInvalid(field, f"is no parameter of this list; there are {', '.join(FIELDS)}")
    if len(values) > VALUES_MAX:
        raise FilterInvalid(field, f"is repeated more than {VALUES_MAX} times")
    if any("\x00" in value for value in values):
        raise FilterInvalid(field, "holds a NUL character")


def _one(parameters: Mapping[str, Sequence[str]], field: str) -> str | None:
    values = parameters.get(field, ())
    if len(values) > 1:
        raise FilterInvalid(field, "is given more than once")
    return values[0] if values else None


def _statuses(wanted: Sequence[str]) -> list[str]:
    statuses = [_ALIASES.get(value, value) for value in wanted]
    for status in statuses:
        if status not in Status.__members__.values():
            raise FilterInvalid("status", f"must be one of {', '.join(Status)}")
    return statuses


def _labels(wanted: Sequence[str]) -> str:
    labels: dict[str, str] = {}
    for text in wanted:
        key, colon, value = text.partition(":")
        if not colon or not key:
            raise FilterInvalid("label", "must have the form key:value")
        if labels.setdefault(key, value) != value:
            raise FilterInvalid("label", f"asks for two values of {key[:63]}")
    return msgspec.json.encode(labels).decode()


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT_DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= LIMIT_MAX):
        raise FilterInvalid("limit", f"must be a number from 1 to {LIMIT_MAX}")
    return int(text)


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
