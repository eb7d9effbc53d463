"""The tables of the read model, as PostgreSQL keeps them: rows and position change together, or not at all."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from taskyard.contracts.values import Instant
from taskyard.state_projector.errors import PositionMoved
from taskyard.state_projector.projection import ReadState, RowChanges
from taskyard.state_projector.rows import (
    ATTEMPT_COLUMNS,
    TASK_COLUMNS,
    TASK_FIXED_COLUMNS,
    AttemptRow,
    Row,
    restore_pool,
    restore_queue,
    restore_record,
    restore_worker,
)
from taskyard.state_projector.store import LogPosition


class Tables:
    """What `taskyard.state_projector.store.Store` keeps. Its methods are those, and wait for nothing."""

    def __init__(self) -> None:
        self.tasks: dict[str, Row] = {}
        self.attempts: dict[tuple[str, int], Row] = {}
        self.history: list[Row] = []
        self.queues: dict[tuple[str, str], Row] = {}
        self.pools: dict[str, Row] = {}
        self.workers: dict[str, Row] = {}
        self.counts: dict[tuple[str, str, str], int] = {}
        self.position = LogPosition(sequence=0, hash="", log_time=Instant(0), generation="")
        self.is_cut = False
        """Whether the next transaction is undone, since the connection is lost before it commits."""

    async def existing(self, tasks: Sequence[str]) -> frozenset[str]:
        """Which of these ids have a row."""
        return frozenset(task for task in tasks if task in self.tasks)

    async def write(self, changes: RowChanges, *, before: LogPosition, after: LogPosition) -> Sequence[tuple[str, Row]]:
        """Write the changes and move the position. No row is refused.

        Raises:
            PositionMoved: the rows are not at `before`; nothing was written.
            ConnectionError: it was lost before the commit; nothing was written.
        """
        if self.position != before:
            raise PositionMoved(f"the rows are at {self.position.sequence}, not at {before.sequence}")
        if self.is_cut:
            raise ConnectionError("the connection was lost")
        self.position = replace(after)
        self.keep(changes)
        return ()

    def keep(self, changes: RowChanges) -> None:
        """Change the rows."""
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
        self.counts |= {(row[0], row[1], row[2]): row[3] for row in changes.counts}

    def load(self) -> tuple[ReadState, LogPosition]:
        """What a projection that begins anew reads."""
        finished, record = TASK_COLUMNS.index("finished_at"), TASK_COLUMNS.index("record")
        live = sorted((row for row in self.tasks.values() if row[finished] is None), key=_submitted)
        attempt, ended = TASK_COLUMNS.index("attempt"), ATTEMPT_COLUMNS.index("finished_at")
        current = (self.attempts.get((row[0], row[attempt])) for row in live)
        state = ReadState(
            records=[restore_record(row[record]) for row in live],
            attempts=[AttemptRow(*row) for row in current if row is not None and row[ended] is None],
            queues=[restore_queue(row) for row in self.queues.values()],
            pools=[restore_pool(row) for row in self.pools.values()],
            workers=[restore_worker(row) for row in self.workers.values()],
            counts=dict(self.counts),
        )
        return state, self.position


def _submitted(row: Row) -> Any:
    return row[TASK_COLUMNS.index("submitted")]
