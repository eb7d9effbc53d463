"""The read model of a run: real projections over tables in memory, which fail at every place, against the fold of the log.

Two instances write it by turns. One may be killed before its transaction commits, or before it hears that it has, or find
that the other was faster: then it begins again from the rows.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any

from taskyard.contracts.events import SlotCleared
from taskyard.contracts.lifecycle import ATTEMPT_OPEN, TaskRecord, Verdict
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import make_position
from taskyard.eventlog.commit import StoredCommit
from taskyard.simulation.tables import Tables
from taskyard.state_projector import advance as advancing
from taskyard.state_projector.errors import PositionMoved
from taskyard.state_projector.projection import Projection
from taskyard.state_projector.rows import ATTEMPT_COLUMNS, QUEUE_COLUMNS, TASK_CHANGING_COLUMNS, TASK_COLUMNS

WRITE_CHANCE = 0.3
CUT_CHANCE, DEAF_CHANCE, OTHER_CHANCE = 0.05, 0.05, 0.05
COMPARED = (
    "phase", "status", "attempt", "worker", "slot", "priority", "due", "confirmed", "holds_slot", "progress",
    "scheduled_at", "started_at", "finished_at",
)  # fmt: skip
"""Columns that are fields of a task's record under the same name."""

Commits = Sequence[StoredCommit[Any]]


class _Projector:
    """One instance, from its start to the first trouble."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        state, self._position = tables.load()
        self._projection = Projection(state)

    def write(self, log: Commits, head: int) -> None:
        """Bring the rows to a commit of the log, from where this instance is."""
        commits = log[self._position.sequence : head]
        if commits:
            tables: Any = self._tables
            stepping = advancing.advance(tables, self._projection, self._position, commits)
            try:
                stepping.send(None)
            except StopIteration as done:
                self._position = done.value


def project(log: Commits, seed: int) -> Tables:
    """The tables at the end of the log, written by two instances under faults."""
    random = Random(f"{seed}/projectors")
    tables = Tables()
    one, other = _Projector(tables), _Projector(tables)
    for head in range(1, len(log) + 1):
        if head < len(log) and random.random() > WRITE_CHANCE:
            continue
        tables.is_cut = random.random() < CUT_CHANCE
        try:
            one.write(log, head)
        except (PositionMoved, ConnectionError):
            one = _Projector(tables)
        tables.is_cut = False
        if random.random() < DEAF_CHANCE:  # it wrote and does not know
            one = _Projector(tables)
        if random.random() < OTHER_CHANCE:
            one, other = other, one
    for last in (one, _Projector(tables)):
        with suppress(PositionMoved):
            last.write(log, len(log))
    return tables


def compare_read_model(tables: Tables, log: Commits) -> list[str]:
    """Where the rows differ from the fold of the whole log."""
    table, records = TaskTable(), dict[str, TaskRecord]()
    void, shown = 0, 0
    for stored in log:
        for index, event in enumerate(stored.commit.events):
            shown += isinstance(event, SlotCleared)  # of a task that has ended, and changes it no more
            for change in table.apply(event, stored.at, make_position(stored.sequence, index)):
                shown += 1
                void += change.verdict is not Verdict.EFFECTIVE
                if change.record is not None:
                    records[change.record.id] = change.record
    return [*_differences(tables, records), *_sums(tables, records, shown, void)]


def _differences(tables: Tables, records: dict[str, TaskRecord]) -> list[str]:
    faults: list[str] = []
    if tables.tasks.keys() != records.keys():
        faults.append(f"rows of other tasks than the log has: {tables.tasks.keys() ^ records.keys()}")
    assert set(COMPARED) <= set(TASK_CHANGING_COLUMNS)
    for id in tables.tasks.keys() & records.keys():
        row = dict(zip(TASK_COLUMNS, tables.tasks[id], strict=True))
        told = tuple(row[name] for name in COMPARED)
        folded = tuple(getattr(records[id], name) for name in COMPARED)
        if told != folded:
            faults.append(f"{id} reads as {told} and folds to {folded}")
    return faults


def _sums(tables: Tables, records: dict[str, TaskRecord], shown: int, void: int) -> list[str]:
    faults: list[str] = []
    counts = Counter((record.submitted_by, record.kind, record.status.value) for record in records.values())
    told = {key: count for key, count in tables.counts.items() if count}
    if told != dict(counts):
        faults.append(f"the read model counts {told}, the log {dict(counts)}")
    if (len(tables.history), sum(row[6] for row in tables.history)) != (shown, void):
        faults.append(f"the history has {len(tables.history)} rows, the log {shown} changes ({void} void)")
    for key, row in tables.queues.items():
        queue = dict(zip(QUEUE_COLUMNS, row, strict=True))
        mine = [r for r in records.values() if (r.pool, r.queue) == key and not r.has_ended]
        pending = sum(r.phase.value == "pending" for r in mine)
        scheduled = sum(r.phase.value == "scheduled" for r in mine)
        expected = (pending, scheduled, len(mine) - pending - scheduled)
        if (queue["pending"], queue["scheduled"], queue["active"]) != expected:
            faults.append(f"queue {key} reads as {row}, its tasks are {expected}")
    finished = ATTEMPT_COLUMNS.index("finished_at")
    open_attempts = {key for key, row in tables.attempts.items() if row[finished] is None}
    running = {(r.id, r.attempt) for r in records.values() if r.phase in ATTEMPT_OPEN}
    if open_attempts != running:
        faults.append(f"attempts {open_attempts} read as open, open are {running}")
    return faults
