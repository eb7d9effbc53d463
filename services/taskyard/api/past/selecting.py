"""Which live tasks of a state a list shows: its filters, its order and its cursor, as the read model has them. Pure."""

from heapq import nlargest, nsmallest
from typing import NamedTuple

from taskyard.api.pages import Cursor, Placed, Sort
from taskyard.api.past.state import PastState
from taskyard.api.past.surroundings import Surroundings
from taskyard.api.past.views import task_view
from taskyard.api.read_model import TaskFilter
from taskyard.contracts.lifecycle import TaskRecord
from taskyard.contracts.values import Position


class _Found(NamedTuple):
    key: int
    submitted: Position
    record: TaskRecord


def live_tasks(state: PastState, wanted: TaskFilter, sort: Sort, cursor: Cursor | None) -> list[Placed]:
    """Those that lived then and fit, behind the cursor: one more than a page has, if there are so many."""
    fitting = [
        _Found(_key(record, sort), record.submitted, record)
        for record in state.tasks.live.values()
        if _fits(record, wanted)
    ]
    if cursor is not None:
        fitting = [each for each in fitting if cursor.is_before(sort, each.key, each.submitted)]
    first = nlargest if sort.descending else nsmallest
    found = first(wanted.limit + 1, fitting, key=lambda each: (each.key, each.submitted))
    around = Surroundings(state, state.at, wanted.sees_only, [each.record for each in found])
    return [
        Placed(
            key=each.key,
            submitted=each.submitted,
            task=task_view(each.record, state.positions[each.record.id], around.of(each.record), state.at),
        )
        for each in found
    ]


def _key(record: TaskRecord, sort: Sort) -> int:
    return sort.key(submitted=record.submitted, priority=record.priority, finished_at=record.finished_at)


def _fits(record: TaskRecord, wanted: TaskFilter) -> bool:
    return all(
        not possible or value in possible
        for value, possible in (
            (record.status, wanted.statuses),
            (record.kind, wanted.kinds),
            (record.queue, wanted.queues),
            (record.pool, wanted.pools),
            (record.submitted_by, wanted.submitters),
            (record.worker, wanted.workers),
            (record.submitted_by, () if wanted.sees_only is None else (wanted.sees_only,)),
        )
    ) and all(record.labels.get(key) == value for key, value in wanted.labels)
