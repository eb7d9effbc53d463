"""Which tasks a list shows and in which order, as SQL. Pure.

SQL is put together from the fixed texts here; everything that comes from outside is a parameter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from taskyard.api.pages import NOT_FINISHED, Cursor, FilterInvalid, Sort, read_cursor, read_sort
from taskyard.api.read_model import EndedBy, TaskFilter

_SORT_KEYS = {
    "submitted_at": "submitted",
    "priority": "priority",
    "finished_at": f"coalesce(finished_at, {NOT_FINISHED})",
}

Parameter = Callable[[Any], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list of tasks: conditions and order as SQL, their parameters, and how many tasks a page has."""

    conditions: str
    order: str
    parameters: tuple[Any, ...]
    limit: int
    sort: Sort


def make_listing(wanted: TaskFilter, ended_by: EndedBy | None = None) -> Listing:
    """The list that was asked for; with `ended_by` of tasks only that had ended then.

    Raises:
        FilterInvalid: the sort or the cursor is none.
    """
    sort = read_sort(wanted.sort)
    cursor = read_cursor(wanted.cursor, sort)
    if cursor is not None and cursor.moment is not None and ended_by is None:
        raise FilterInvalid("cursor", "belongs to a list of the past: give its `at` as well")
    values: list[Any] = []

    def parameter(value: Any) -> str:
        values.append(value)
        return f"${len(values)}"

    conditions = _conditions(wanted, parameter)
    if ended_by is not None:
        conditions += _had_ended(ended_by, sort, parameter)
    if cursor is not None:
        conditions.append(_behind(cursor, sort, parameter))
    return Listing(
        conditions=" AND ".join(conditions) or "true",
        order=_order(sort),
        parameters=tuple(values),
        limit=wanted.limit,
        sort=sort,
    )


def _conditions(wanted: TaskFilter, parameter: Parameter) -> list[str]:
    conditions: list[str] = []
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
    return conditions


def _had_ended(ended_by: EndedBy, sort: Sort, parameter: Parameter) -> list[str]:
    """Tasks that had ended at a moment. The last event that concerns a task is its end, so its place tells.

    The first condition follows from the second one. It lets every index that orders by submission begin at the moment:
    of what was submitted before, only those that lived then are passed over.
    """
    reached = parameter(ended_by.position)
    conditions = [f"submitted <= {reached}::bigint", f"position <= {reached}::bigint", "finished_at IS NOT NULL"]
    if sort.field == "finished_at":  # the same for the index by that time: nothing ends before the log's time then
        conditions.append(f"{_SORT_KEYS['finished_at']} <= {parameter(ended_by.at)}::bigint")
    return conditions


def _behind(cursor: Cursor, sort: Sort, parameter: Parameter) -> str:
    key = _SORT_KEYS[sort.field]
    beyond = "<" if sort.descending else ">"
    if key == "submitted":
        return f"submitted {beyond} {parameter(cursor.submitted)}::bigint"
    return f"({key}, submitted) {beyond} ({parameter(cursor.key)}::bigint, {parameter(cursor.submitted)}::bigint)"


def _order(sort: Sort) -> str:
    key = _SORT_KEYS[sort.field]
    direction = "DESC" if sort.descending else "ASC"
    return f"submitted {direction}" if key == "submitted" else f"{key} {direction}, submitted {direction}"
