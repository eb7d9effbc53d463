"""What a history means to today's code: the fold of every machine, and the rows of the read model. Pure."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from taskyard.contracts.events import AnyEvent, UnknownEvent, decode_event
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import format_position, make_position
from taskyard.dispatcher.machine import Dispatcher
from taskyard.eventlog.commit import CommitCodec, StoredCommit
from taskyard.eventlog.slices import SliceReader
from taskyard.scheduler.machine import Scheduler
from taskyard.slot_allocator.machine import SlotAllocator
from taskyard.state_projector.projection import Projection, RowChanges
from taskyard.state_projector.rows import (
    ATTEMPT_COLUMNS,
    COUNT_COLUMNS,
    HISTORY_COLUMNS,
    POOL_COLUMNS,
    QUEUE_COLUMNS,
    REJECTION_COLUMNS,
    TASK_COLUMNS,
    WORKER_COLUMNS,
)

CODEC: CommitCodec[AnyEvent | UnknownEvent] = CommitCodec(AnyEvent, decode_event)
Commits = Sequence[StoredCommit[AnyEvent | UnknownEvent]]


def read_history(path: Path) -> Commits:
    """The commits of an exported slice."""
    with path.open("rb") as file:
        return list(SliceReader(file).commits(CODEC))


def meaning(commits: Commits) -> dict[str, Any]:
    """All that the fold makes of a history, as plain JSON values."""
    found = {"tasks": _tasks(commits), "machines": machines(commits), "rows": rows(commits)}
    return msgspec.json.decode(msgspec.json.encode(found))


def machines(commits: Commits) -> dict[str, Any]:
    """The folded state of every machine."""
    folded = new_machines()
    for machine in folded:
        machine.stand_by()
        for stored in commits:
            for index, event in enumerate(stored.commit.events):
                machine.apply(event, stored.at, make_position(stored.sequence, index))
    return {machine.writer: msgspec.json.decode(machine.snapshot()) for machine in folded}


def new_machines() -> tuple[Scheduler, SlotAllocator, Dispatcher]:
    """The machines, which know nothing yet."""
    return Scheduler({}), SlotAllocator(10, 30), Dispatcher()


def _tasks(commits: Commits) -> dict[str, Any]:
    """Every task as it was last, and what each event meant to it: its verdict, and the phase after it."""
    table, tasks = TaskTable(), dict[str, Any]()
    for stored in commits:
        for index, event in enumerate(stored.commit.events):
            position = make_position(stored.sequence, index)
            for change in table.apply(event, stored.at, position):
                if change.record is None:
                    continue
                seen = tasks.setdefault(change.record.id, {"events": []})
                where = f"{format_position(position)} {type(event).__name__}"
                seen["events"].append(f"{where}: {change.verdict.value}, {change.record.phase.value}")
                seen["record"] = msgspec.structs.asdict(change.record)  # also what its stored form leaves out
    return tasks


def rows(commits: Commits) -> dict[str, Any]:
    """The rows of the read model after the whole history."""
    projection = Projection()
    for stored in commits:
        projection.fold(stored.sequence, stored.at, stored.commit.writer, stored.commit.events)
    return named_rows(projection.take())


def named_rows(changes: RowChanges) -> dict[str, Any]:
    """Rows with the names of their columns."""
    return {
        "tasks": _named(TASK_COLUMNS, changes.new_tasks),
        "attempts": _named(ATTEMPT_COLUMNS, changes.new_attempts),
        "history": _named(HISTORY_COLUMNS, changes.history),
        "queues": _named(QUEUE_COLUMNS, changes.queues),
        "pools": _named(POOL_COLUMNS, changes.pools),
        "workers": _named(WORKER_COLUMNS, changes.workers),
        "rejections": _named(REJECTION_COLUMNS, changes.rejections),
        # A count of none is the same as no row.
        "counts": sorted(_named(COUNT_COLUMNS, [row for row in changes.counts if row[3]]), key=str),
    }


def _named(columns: Sequence[str], found: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in found]
