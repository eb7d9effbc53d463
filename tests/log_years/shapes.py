"""What is left of a history when names are taken away: two that differ in names only have the same shape."""

from typing import Any

from folding import Commits

from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import make_position


def shape(commits: Commits, before: TaskTable | None = None) -> list[tuple[Any, ...]]:
    """What happened to whom, without names: what every event did to every task, and what was free and taken then."""
    table, seen = before or TaskTable(), list[tuple[Any, ...]]()
    for stored in commits:
        for index, event in enumerate(stored.commit.events):
            for change in table.apply(event, stored.at, make_position(stored.sequence, index)):
                record = change.record
                told = () if record is None else (
                    record.id, record.kind, record.phase, record.attempt, record.tries, record.due, record.slot,
                    record.priority, record.progress, record.confirmed, record.scheduled_at, record.started_at,
                    record.finished_at, record.changes, record.timeout_seconds, record.error and record.error.code,
                    len(record.input), len(record.labels),
                )  # fmt: skip
                seen.append((type(event).__name__, change.verdict, change.before, told))
    return seen


def structure(value: Any) -> Any:
    """A JSON value without what it says."""
    match value:
        case dict():
            return sorted(str(structure(each)) for each in value.values())
        case list():
            return [structure(each) for each in value]
        case str():
            return "text"
        case bool() | None:
            return value
        case _:
            return "number"
