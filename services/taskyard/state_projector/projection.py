"""The projection: commits in, changes of rows out. Pure.

Status, verdict and times come from the one fold that every service shares; here they only become rows. What is folded
gathers until `take`, so that a task which came and went between two writes costs one row, not six.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import get_args

import msgspec

from taskyard.contracts.events import (
    AnyEvent,
    AttemptFailed,
    AttemptLost,
    AttemptSucceeded,
    ForceStopped,
    NotDelivered,
    SlotAssigned,
    TaskPlanned,
    TaskStarted,
    TaskSubmitted,
    UnknownEvent,
    WorkerLost,
)
from taskyard.contracts.lifecycle import ATTEMPT_OPEN, ENDED, Phase, TaskRecord, Verdict
from taskyard.contracts.tasks import Change, TaskTable
from taskyard.contracts.values import Instant, Position, Status, make_position
from taskyard.state_projector.rows import (
    NULL,
    AttemptRow,
    PoolRow,
    QueueRow,
    Row,
    WorkerRow,
    changing_values,
    plain_text,
    task_row,
)
from taskyard.state_projector.surroundings import Surroundings

_OUTCOMES: dict[type, str] = {
    AttemptSucceeded: "succeeded",
    AttemptFailed: "failed",
    AttemptLost: "lost",
    NotDelivered: "not_delivered",
    TaskPlanned: "planned",
    WorkerLost: "lost",
    ForceStopped: "force_stopped",
}
_SHOWN_AS = {Phase.HELD: Status.RUNNING, Phase.STOPPING: Status.CANCELLING}
_STATUS = {phase: (_SHOWN_AS.get(phase) or Status(phase.value)).value for phase in Phase}

_WITH_AUTHOR: frozenset[type] = frozenset(event for event in get_args(AnyEvent) if "by" in event.__struct_fields__)

_WITHOUT_EFFECT = (Change(record=None, before=None, held=None, verdict=Verdict.VOID),)

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class ReadState:
    """What the projection remembers: everything that a later event may change."""

    records: Iterable[TaskRecord] = ()
    attempts: Iterable[AttemptRow] = ()
    queues: Iterable[QueueRow] = ()
    pools: Iterable[PoolRow] = ()
    workers: Iterable[WorkerRow] = ()
    counts: dict[tuple[str, str], int] = field(default_factory=dict)


@dataclass(slots=True)
class RowChanges:
    """The changes of rows since the last time: rows to add, and rows to change (key first, then what may change)."""

    new_tasks: list[Row]
    changed_tasks: list[Row]
    new_attempts: list[Row]
    changed_attempts: list[Row]
    history: list[Row]
    queues: list[Row]
    pools: list[Row]
    workers: list[Row]
    rejections: list[Row]
    counts: list[Row]


class Projection:
    """Folds commits, in log order and without gaps, into changes of rows."""

    def __init__(self, state: ReadState | None = None) -> None:
        state = state or ReadState()
        self._table = TaskTable(state.records)
        self._attempts = {attempt.task: attempt for attempt in state.attempts}
        self._surroundings = Surroundings(state.queues, state.pools, state.workers)
        self._counts = dict(state.counts)
        self._forget_changes()

    @property
    def live_tasks(self) -> int:
        """How many tasks have not ended."""
        return len(self._table.live)

    def fold(
        self,
        sequence: int,
        at: Instant,
        writer: str,
        events: Sequence[AnyEvent | UnknownEvent],
        known: Container[str] = (),
    ) -> None:
        """Fold the commit of `writer` at `sequence`, whose log time is `at`.

        `known` are those of the tasks that are submitted in it which had a row at the last `take`.
        """
        position = Position(make_position(sequence, 0) - 1)
        apply, fold_surroundings = self._table.apply, self._surroundings.fold
        history, touched = self._history, self._touched
        for event in events:
            position = Position(position + 1)
            is_repeated = isinstance(event, TaskSubmitted) and self._has_ended(event.task, known)
            changes = _WITHOUT_EFFECT if is_repeated else apply(event, at, position)
            if changes:
                name = type(event).__name__
                by = event.by if type(event) in _WITH_AUTHOR else None  # pyright: ignore[reportAttributeAccessIssue]
                text = _encode(event).decode()
                for change in changes:
                    record = change.record
                    verdict = change.verdict
                    task = record.id if record is not None else _named_task(event)
                    history.append((task, position, at, writer, name, by, verdict is not Verdict.EFFECTIVE, text))
                    if record is not None:
                        touched[task] = (record, position)
                        if verdict is Verdict.EFFECTIVE:
                            self._follow_change(event, change.before, record, at)
            fold_surroundings(event, at, position)

    def take(self) -> RowChanges:
        """The changes since the last call; they are forgotten here."""
        new, touched = self._new, self._touched
        new_attempts = self._new_attempts
        changes = RowChanges(
            new_tasks=[task_row(*touched[task]) for task in new],
            changed_tasks=[
                (task, *changing_values(record, position))
                for task, (record, position) in touched.items()
                if task not in new
            ],
            new_attempts=[attempt.row() for attempt in new_attempts.values()],
            changed_attempts=[
                attempt.row() for key, attempt in self._touched_attempts.items() if key not in new_attempts
            ],
            history=self._history,
            queues=self._surroundings.queue_rows(),
            pools=self._surroundings.pool_rows(),
            workers=self._surroundings.worker_rows(),
            rejections=self._surroundings.rejections,
            counts=[(*key, self._counts[key]) for key in self._touched_counts],
        )
        self._forget_changes()
        return changes

    def _forget_changes(self) -> None:
        # Dicts as ordered sets: the order of rows must not depend on hashes.
        self._new: dict[str, None] = {}
        self._touched: dict[str, tuple[TaskRecord, Position]] = {}
        self._new_attempts: dict[tuple[str, int], AttemptRow] = {}
        self._touched_attempts: dict[tuple[str, int], AttemptRow] = {}
        self._touched_counts: dict[tuple[str, str], None] = {}
        self._history: list[Row] = []
        self._surroundings.forget_changes()

    def _has_ended(self, task: str, known: Container[str]) -> bool:
        """Whether a task that is submitted was there before. Its row stays; a second one would break every write."""
        return (task in known or task in self._new) and task not in self._table.live

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def _follow_change(
        self, event: AnyEvent | UnknownEvent, before: Phase | None, record: TaskRecord, at: Instant
    ) -> None:
        phase = record.phase
        if before is None:
            self._new[record.id] = None
            record.input = NULL  # the history keeps it; no row and no later event needs it
        if before is not phase:
            self._count(record, before, phase)
        if isinstance(event, SlotAssigned):
            self._begin_attempt(record, at)
        elif before is not None and before in ATTEMPT_OPEN:
            self._follow_attempt(event, before, record, at)

    def _count(self, record: TaskRecord, before: Phase | None, phase: Phase) -> None:
        queue = self._surroundings.change_queue(record.pool, record.queue)
        counts, touched = self._counts, self._touched_counts
        if before is not None:
            key = (record.kind, _STATUS[before])
            counts[key] -= 1
            touched[key] = None
            if before is Phase.PENDING:
                queue.pending -= 1
            elif before is Phase.SCHEDULED:
                queue.scheduled -= 1
            else:
                queue.active -= 1
        key = (record.kind, _STATUS[phase])
        counts[key] = counts.get(key, 0) + 1
        touched[key] = None
        if phase is Phase.PENDING:
            queue.pending += 1
        elif phase is Phase.SCHEDULED:
            queue.scheduled += 1
        elif phase not in ENDED:
            queue.active += 1

    def _begin_attempt(self, record: TaskRecord, at: Instant) -> None:
        assert record.worker is not None, "an assigned task has a worker"
        assert record.slot is not None, "an assigned task has a slot"
        attempt = AttemptRow(record.id, record.attempt, record.worker, record.slot, at)
        self._attempts[record.id] = attempt
        self._new_attempts[record.id, record.attempt] = attempt

    def _follow_attempt(self, event: AnyEvent | UnknownEvent, before: Phase, record: TaskRecord, at: Instant) -> None:
        attempt = self._attempts[record.id]
        if isinstance(event, TaskStarted):
            attempt.started_at = at
        elif record.phase in ATTEMPT_OPEN:
            return
        else:
            attempt.finished_at = at
            # What stopped a task counts more than how its process took it, unless it succeeded all the same.
            is_stopped = before is Phase.STOPPING and record.phase is not Phase.COMPLETED
            outcome = record.phase.value if is_stopped else _OUTCOMES.get(type(event))
            attempt.outcome = _OUTCOMES[ForceStopped] if isinstance(event, ForceStopped) else outcome
            del self._attempts[record.id]
        self._touched_attempts[record.id, attempt.attempt] = attempt


def _named_task(event: AnyEvent | UnknownEvent) -> str:
    """The id in an event of one task that is not, or no longer, live."""
    return plain_text(str(getattr(event, "task", "")))
