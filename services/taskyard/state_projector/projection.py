"""The projection: commits in, changes of rows out. Pure.

Status, verdict and times come from the one fold that every service shares; here they only become rows. What is folded
gathers until `take`, so that a task which came and went between two writes costs one row, not six.
"""

import logging
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast, get_args

import msgspec

from taskyard.contracts.events import (
    AnyEvent,
    AttemptFailed,
    AttemptLost,
    AttemptReleased,
    AttemptSucceeded,
    ForceStopped,
    NotDelivered,
    SlotAssigned,
    SlotCleared,
    TaskPlanned,
    TaskStarted,
    TaskSubmitted,
    UnknownEvent,
    WorkerLost,
    event_name,
    named_task,
    shown_event,
)
from taskyard.contracts.lifecycle import ATTEMPT_OPEN, ENDED, Phase, TaskRecord, Verdict
from taskyard.contracts.readable import plain_text
from taskyard.contracts.tasks import Change, TaskTable
from taskyard.contracts.values import Instant, Position, format_position, make_position
from taskyard.state_projector.rows import (
    NULL,
    SHOWN_STATUS,
    STATUSES,
    TASK_COLUMNS,
    AttemptRow,
    PoolRow,
    QueueRow,
    Row,
    WorkerRow,
    changing_values,
    task_row,
)
from taskyard.state_projector.surroundings import SURROUNDING_EVENTS, Surroundings

_OUTCOMES: dict[type, str] = {
    AttemptSucceeded: "succeeded",
    AttemptFailed: "failed",
    AttemptLost: "lost",
    NotDelivered: "not_delivered",
    TaskPlanned: "planned",
    WorkerLost: "lost",
    ForceStopped: "force_stopped",
    AttemptReleased: "released",
}
_Move = tuple[str, str, str, str, Phase | None, Phase]
"""Submitter, kind, pool and queue of a task, the phase that its row shows, and the phase it has now."""

_WITH_AUTHOR: frozenset[type] = frozenset(event for event in get_args(AnyEvent) if "by" in event.__struct_fields__)

_WITH_RAW: frozenset[type] = frozenset((AttemptSucceeded, AttemptFailed, UnknownEvent))
"""Events that hold what somebody said whom no decoder has looked at."""

_WITHOUT_EFFECT = (Change(record=None, before=None, held=None, verdict=Verdict.VOID),)

UNSHOWN = "{}"
"""What stands in a history for an event that cannot be shown at all."""

_encode = msgspec.json.Encoder().encode
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ReadState:
    """What the projection remembers: everything that a later event may change."""

    records: Iterable[TaskRecord] = ()
    attempts: Iterable[AttemptRow] = ()
    queues: Iterable[QueueRow] = ()
    pools: Iterable[PoolRow] = ()
    workers: Iterable[WorkerRow] = ()
    counts: dict[tuple[str, str, str], int] = field(default_factory=dict)
    unreadable: int = 0
    """Rows that could not be read back: what they tell of is not known here."""


class _HasRow(Protocol):
    def row(self) -> Row: ...


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
    refused_tasks: list[Row]
    counts: list[Row]


class Projection:
    """Folds commits, in log order and without gaps, into changes of rows.

    `unreadable` counts events that are not shown whole, and rows that could not be made, written or read back.
    """

    def __init__(self, state: ReadState | None = None) -> None:
        state = state or ReadState()
        self.unreadable = state.unreadable
        self._table = TaskTable(state.records)
        self._attempts = {attempt.task: attempt for attempt in state.attempts}
        self._surroundings = Surroundings(state.queues, state.pools, state.workers)
        self._counts = dict(state.counts)
        self._rowless: set[str] = set()
        """Live tasks that have none, since it could not be made or written."""
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
        for event in events:
            position = Position(position + 1)
            try:
                self._fold_one(event, position, at, writer, known)
            except Exception as error:  # noqa: BLE001 - one event must not stop the projection
                self._stand_aside(event, position, at, writer, error)

    def _stand_aside(
        self, event: AnyEvent | UnknownEvent, position: Position, at: Instant, writer: str, error: Exception
    ) -> None:
        """An event that cannot be folded has no effect here; it is told and counted, and stands in its task's history."""
        self.unreadable += 1
        fields = {"position": format_position(position), "type": event_name(event), "error": repr(error)}
        _log.error("an event could not be folded and was passed over", extra=fields)
        task = plain_text(named_task(event))
        if task and (not self._history or self._history[-1][1] != position):
            name = plain_text(event_name(event))
            self._history.append((task, position, at, writer, name, None, True, self._text(event)))

    def _fold_one(
        self, event: AnyEvent | UnknownEvent, position: Position, at: Instant, writer: str, known: Container[str]
    ) -> None:
        apply, fold_surroundings = self._table.apply, self._surroundings.fold
        history, touched = self._history, self._touched
        kind = type(event)
        is_repeated = kind is TaskSubmitted and self._has_ended(cast("TaskSubmitted", event).task, known)
        changes = _WITHOUT_EFFECT if is_repeated else apply(event, at, position)
        if changes:
            by = event.by if kind in _WITH_AUTHOR else None  # pyright: ignore[reportAttributeAccessIssue]
            text = self._text(event)
            for change in changes:
                record, verdict = change.record, change.verdict
                is_void = verdict is not Verdict.EFFECTIVE
                task = record.id if record is not None else _named_task(event)
                history.append((task, position, at, writer, kind.__name__, by, is_void, text))
                if record is not None:
                    first = touched.get(task)
                    touched[task] = (record, position, change.before if first is None else first[2])
                    if not is_void:
                        self._follow_change(kind, change.before, record, at)
                        if kind is ForceStopped:
                            self._surroundings.close_slot(event, change)
        elif kind is SlotCleared:
            text = _encode(event).decode()
            task = cast("SlotCleared", event).task
            history.append((task, position, at, writer, kind.__name__, None, False, text))
        elif kind is UnknownEvent:
            self._show_unknown(cast("UnknownEvent", event), position, at, writer)
        if kind in SURROUNDING_EVENTS:
            fold_surroundings(event, at, position)

    def take(self) -> RowChanges:
        """The changes since the last call; they are forgotten here."""
        new_tasks: list[Row] = []
        changed_tasks: list[Row] = []
        moves: Counter[_Move] = Counter()
        for task, (record, position, before) in self._touched.items():
            is_new = before is None or task in self._rowless
            try:
                row = task_row(record, position) if is_new else (task, *changing_values(record, position))
            except Exception as error:  # noqa: BLE001 - one row must not stop the projection
                self._row_stands_aside(error, task=task, position=format_position(position))
                if is_new and not record.has_ended:
                    self._rowless.add(task)
            else:
                self._rowless.discard(task)
                (new_tasks if is_new else changed_tasks).append(row)
            if before is not record.phase:
                moves[record.submitted_by, record.kind, record.pool, record.queue, before, record.phase] += 1
        for move, tasks in moves.items():
            try:
                self._count(move, tasks)
            except Exception as error:  # noqa: BLE001 - one count must not stop the projection
                self._row_stands_aside(error, counted=move[:4], tasks=tasks)
        new_attempts = self._new_attempts
        changes = RowChanges(
            new_tasks=new_tasks,
            changed_tasks=changed_tasks,
            new_attempts=self._rows(new_attempts.values()),
            changed_attempts=self._rows(
                attempt for key, attempt in self._touched_attempts.items() if key not in new_attempts
            ),
            history=self._history,
            queues=self._rows(self._surroundings.changed_queues),
            pools=self._rows(self._surroundings.changed_pools),
            workers=self._rows(self._surroundings.changed_workers),
            rejections=self._surroundings.rejections,
            refused_tasks=self._surroundings.refused_tasks,
            counts=[(*key, self._counts[key]) for key in self._touched_counts],
        )
        self._forget_changes()
        return changes

    def refused(self, rows: Sequence[tuple[str, Row]]) -> None:
        """PostgreSQL cannot keep these rows, each with its table: they stay as they were until they change once more."""
        self.unreadable += len(rows)
        for table, row in rows:
            if table == "tasks" and len(row) == len(TASK_COLUMNS) and row[0] in self._table.live:
                self._rowless.add(row[0])

    def _rows(self, changed: Iterable[_HasRow]) -> list[Row]:
        rows: list[Row] = []
        for one in changed:
            try:
                rows.append(one.row())
            except Exception as error:  # noqa: BLE001 - one row must not stop the projection
                self._row_stands_aside(error, of=repr(one))
        return rows

    def _row_stands_aside(self, error: Exception, **fields: object) -> None:
        """A row stays as it was, or is not there, until it changes once more: it is told and counted."""
        self.unreadable += 1
        _log.error("a row could not be made and was left as it was", extra=fields | {"error": repr(error)})

    def _forget_changes(self) -> None:
        # Dicts as ordered sets: the order of rows must not depend on hashes.
        self._touched: dict[str, tuple[TaskRecord, Position, Phase | None]] = {}
        """Tasks with the position of their last event, and the phase that their rows show: none have no row yet."""
        self._new_attempts: dict[tuple[str, int], AttemptRow] = {}
        self._touched_attempts: dict[tuple[str, int], AttemptRow] = {}
        self._touched_counts: dict[tuple[str, str, str], None] = {}
        self._history: list[Row] = []
        self._surroundings.forget_changes()

    def _has_ended(self, task: str, known: Container[str]) -> bool:
        """Whether a task that is submitted was there before. Its row stays; a second one would break every write."""
        return (task in known or task in self._touched) and task not in self._table.live

    def _show_unknown(self, event: UnknownEvent, position: Position, at: Instant, writer: str) -> None:
        """An event of a newer version stands in the history of the task that it names; it has no effect here."""
        if task := plain_text(named_task(event)):
            name = plain_text(event_name(event))
            self._history.append((task, position, at, writer, name, None, True, self._text(event)))

    def _text(self, event: AnyEvent | UnknownEvent) -> str:
        """The event as its history shows it."""
        try:
            shown = event
            if type(event) in _WITH_RAW:
                shown, is_whole = shown_event(event)
                self.unreadable += not is_whole
            return _encode(shown).decode()
        except Exception as error:  # noqa: BLE001 - what it does counts though it cannot be shown
            self.unreadable += 1
            _log.error("an event could not be shown", extra={"type": event_name(event), "error": repr(error)})
            return UNSHOWN

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def _follow_change(self, kind: type, before: Phase | None, record: TaskRecord, at: Instant) -> None:
        if kind is SlotAssigned:
            self._begin_attempt(record, at)
        elif before is None:
            record.input = NULL  # the history keeps it; no row and no later event needs it
        elif before in ATTEMPT_OPEN:
            self._follow_attempt(kind, before, record, at)

    def _count(self, move: _Move, tasks: int) -> None:
        """Count the tasks that were in one phase at the last `take` and are in another now."""
        by, kind, pool, queue_name, before, after = move
        queue = self._surroundings.change_queue(pool, queue_name)
        if before is None:
            # A submitter's kind has a row for each status from its first task on, however its events are gathered.
            for status in STATUSES:
                self._counts.setdefault((by, kind, status), 0)
                self._touched_counts[by, kind, status] = None
        for phase, change in ((before, -tasks), (after, tasks)):
            if phase is None:
                continue
            key = (by, kind, SHOWN_STATUS[phase])
            self._counts[key] += change
            self._touched_counts[key] = None
            if phase is Phase.PENDING:
                queue.pending += change
            elif phase is Phase.SCHEDULED:
                queue.scheduled += change
            elif phase not in ENDED:
                queue.active += change

    def _begin_attempt(self, record: TaskRecord, at: Instant) -> None:
        assert record.worker is not None, "an assigned task has a worker"
        assert record.slot is not None, "an assigned task has a slot"
        attempt = AttemptRow(record.id, record.attempt, record.worker, record.slot, at)
        self._attempts[record.id] = attempt
        self._new_attempts[record.id, record.attempt] = attempt

    def _follow_attempt(self, kind: type, before: Phase, record: TaskRecord, at: Instant) -> None:
        if kind is TaskStarted:
            attempt = self._attempts[record.id]
            attempt.started_at = at
        elif record.phase in ATTEMPT_OPEN:
            return
        else:
            attempt = self._attempts.pop(record.id)
            attempt.finished_at = at
            # What stopped a task counts more than how its process took it, unless it succeeded all the same.
            is_stopped = before is Phase.STOPPING and record.phase is not Phase.COMPLETED
            outcome = record.phase.value if is_stopped else _OUTCOMES.get(kind)
            attempt.outcome = _OUTCOMES[ForceStopped] if kind is ForceStopped else outcome
        self._touched_attempts[record.id, attempt.attempt] = attempt


def _named_task(event: AnyEvent | UnknownEvent) -> str:
    """The id in an event of one task that is not, or no longer, live."""
    return plain_text(str(getattr(event, "task", "")))
