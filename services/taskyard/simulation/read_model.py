"""The read model of a run: the real projection, begun again from its own rows now and then, against the fold of the log."""

from collections import Counter
from random import Random
from typing import Any

from taskyard.contracts.events import AnyEvent, TaskSubmitted, decode_event
from taskyard.contracts.lifecycle import TaskRecord, Verdict
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import Instant, make_position
from taskyard.eventlog.commit import Commit, CommitCodec
from taskyard.simulation.evidence import Logged
from taskyard.state_projector.projection import Projection, ReadState, RowChanges
from taskyard.state_projector.rows import (
    ATTEMPT_COLUMNS,
    QUEUE_COLUMNS,
    TASK_CHANGING_COLUMNS,
    TASK_COLUMNS,
    TASK_FIXED_COLUMNS,
    AttemptRow,
    PoolRow,
    QueueRow,
    Row,
    WorkerRow,
    restore_record,
)

_codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)


class _Rows:
    """The tables, as PostgreSQL would keep them."""

    def __init__(self) -> None:
        self.tasks: dict[str, Row] = {}
        self.attempts: dict[tuple[str, int], Row] = {}
        self.history: list[Row] = []
        self.queues: dict[tuple[str, str], Row] = {}
        self.pools: dict[str, Row] = {}
        self.workers: dict[str, Row] = {}
        self.counts: dict[tuple[str, str], int] = {}

    def write(self, changes: RowChanges) -> None:
        fixed = len(TASK_FIXED_COLUMNS)
        for row in changes.new_tasks:
            assert row[0] not in self.tasks, "a task has one row"
            self.tasks[row[0]] = row
        for row in changes.changed_tasks:
            self.tasks[row[0]] = self.tasks[row[0]][:fixed] + row[1:]
        for row in changes.new_attempts:
            assert (row[0], row[1]) not in self.attempts, "an attempt has one row"
            self.attempts[row[0], row[1]] = row
        for row in changes.changed_attempts:
            assert (row[0], row[1]) in self.attempts, "an attempt that changes is there"
            self.attempts[row[0], row[1]] = row
        self.history += changes.history
        self.queues |= {(row[0], row[1]): row for row in changes.queues}
        self.pools |= {row[0]: row for row in changes.pools}
        self.workers |= {row[0]: row for row in changes.workers}
        self.counts |= {(row[0], row[1]): row[2] for row in changes.counts}

    def state(self) -> ReadState:
        """What a projection that begins anew reads."""
        finished, record = TASK_COLUMNS.index("finished_at"), TASK_COLUMNS.index("record")
        live = sorted((row for row in self.tasks.values() if row[finished] is None), key=lambda row: row[1])
        attempt = TASK_COLUMNS.index("attempt")
        ended = ATTEMPT_COLUMNS.index("finished_at")
        current = (self.attempts.get((row[0], row[attempt])) for row in live)
        return ReadState(
            records=[restore_record(row[record]) for row in live],
            attempts=[AttemptRow(*row) for row in current if row is not None and row[ended] is None],
            queues=[QueueRow(*row) for row in self.queues.values()],
            pools=[PoolRow(*row) for row in self.pools.values()],
            workers=[WorkerRow(*row) for row in self.workers.values()],
            counts=dict(self.counts),
        )


def compare_read_model(log: list[Logged], seed: int) -> list[str]:
    """Where the rows differ from the fold of the whole log."""
    random = Random(seed)
    rows, projection = _Rows(), Projection()
    table, records = TaskTable(), dict[str, TaskRecord]()
    void, shown, at = 0, 0, Instant(0)
    for logged in log:
        sequence, at = logged.sequence, Instant(max(at, logged.at))
        commit: Commit[Any] = _codec.decode(logged.data)
        if random.random() < 0.3:
            rows.write(projection.take())
            if random.random() < 0.1:
                projection = Projection(rows.state())
        known = {event.task for event in commit.events if isinstance(event, TaskSubmitted)} & rows.tasks.keys()
        projection.fold(sequence, at, commit.writer, commit.events, known)
        for index, event in enumerate(commit.events):
            for change in table.apply(event, at, make_position(sequence, index)):
                shown += 1
                void += change.verdict is not Verdict.EFFECTIVE
                if change.record is not None:
                    records[change.record.id] = change.record
    rows.write(projection.take())
    return [*_differences(rows, records), *_sums(rows, records, shown, void)]


def _differences(rows: _Rows, records: dict[str, TaskRecord]) -> list[str]:
    faults: list[str] = []
    if rows.tasks.keys() != records.keys():
        faults.append(f"rows of other tasks than the log has: {rows.tasks.keys() ^ records.keys()}")
    compared = (
        "phase",
        "status",
        "attempt",
        "worker",
        "slot",
        "priority",
        "due",
        "confirmed",
        "holds_slot",
        "progress",
    )
    compared += ("scheduled_at", "started_at", "finished_at")
    assert set(compared) <= set(TASK_CHANGING_COLUMNS)
    for id in rows.tasks.keys() & records.keys():
        row = dict(zip(TASK_COLUMNS, rows.tasks[id], strict=True))
        told = tuple(row[name] for name in compared)
        folded = tuple(getattr(records[id], name) for name in compared)
        if told != folded:
            faults.append(f"{id} reads as {told} and folds to {folded}")
    return faults


def _sums(rows: _Rows, records: dict[str, TaskRecord], shown: int, void: int) -> list[str]:
    faults: list[str] = []
    counts = Counter((record.kind, record.status.value) for record in records.values())
    told = {key: count for key, count in rows.counts.items() if count}
    if told != dict(counts):
        faults.append(f"the read model counts {told}, the log {dict(counts)}")
    if (len(rows.history), sum(row[6] for row in rows.history)) != (shown, void):
        faults.append(f"the history has {len(rows.history)} rows, the log {shown} changes ({void} void)")
    for key, row in rows.queues.items():
        queue = dict(zip(QUEUE_COLUMNS, row, strict=True))
        mine = [r for r in records.values() if (r.pool, r.queue) == key and not r.has_ended]
        pending = sum(r.phase.value == "pending" for r in mine)
        scheduled = sum(r.phase.value == "scheduled" for r in mine)
        expected = (pending, scheduled, len(mine) - pending - scheduled)
        if (queue["pending"], queue["scheduled"], queue["active"]) != expected:
            faults.append(f"queue {key} reads as {row}, its tasks are {expected}")
    open_attempts = [key for key, row in rows.attempts.items() if row[ATTEMPT_COLUMNS.index("finished_at")] is None]
    running = {(r.id, r.attempt) for r in records.values() if r.phase.value in _OPEN}
    if set(open_attempts) != running:
        faults.append(f"attempts {open_attempts} read as open, open are {running}")
    return faults


_OPEN = frozenset(("assigned", "dispatched", "running", "held", "stopping"))
