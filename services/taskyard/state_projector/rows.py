"""The rows of the read model as values: which columns they have, and how the folded state becomes them.

Column names are those of `migrations/`. A row is a tuple in the order of its `*_COLUMNS`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw

from taskyard.contracts.fleet import WorkerState
from taskyard.contracts.lifecycle import STATUS_OF, Phase, TaskRecord
from taskyard.contracts.queues import Hold, PoolSettings, QueueSettings
from taskyard.contracts.readable import UNREADABLE_SHOWN, is_readable, plain_text
from taskyard.contracts.values import Incarnation, Instant, Position, Status, TaskId

Row = tuple[Any, ...]

TASK_FIXED_COLUMNS = (
    "id", "submitted", "kind", "pool", "queue", "locks_queue", "submitted_by", "submitted_at", "retry_of", "labels",
)  # fmt: skip
TASK_CHANGING_COLUMNS = (
    "priority", "phase", "status", "due", "attempt", "worker", "slot", "confirmed", "holds_slot", "progress",
    "scheduled_at", "started_at", "finished_at", "error", "result", "changes", "position", "record",
)  # fmt: skip
TASK_COLUMNS = TASK_FIXED_COLUMNS + TASK_CHANGING_COLUMNS
ATTEMPT_COLUMNS = ("task", "attempt", "worker", "slot", "assigned_at", "started_at", "finished_at", "outcome")
HISTORY_COLUMNS = ("task", "position", "at", "writer", "type", "by", "void", "event")
QUEUE_COLUMNS = (
    "pool", "queue", "max_running", "paused_by", "paused_reason", "paused_at", "locked_by", "locked_reason",
    "locked_at", "pending", "scheduled", "active",
)  # fmt: skip
POOL_COLUMNS = (
    "pool", "max_waiting", "approval_timeout_seconds", "placement", "paused_by", "paused_reason", "paused_at", "aside",
)  # fmt: skip
WORKER_COLUMNS = (
    "worker", "pool", "incarnation", "suspect", "draining", "lost", "reason", "changed_at", "joined_at", "labels", "slots",
    "kinds", "place", "replaced", "closing", "drain_reason",
)  # fmt: skip
REJECTION_COLUMNS = (
    "position", "at", "by", "pool", "verb", "command", "task", "status", "code", "message", "errors",
)  # fmt: skip
REFUSED_TASK_COLUMNS = ("task", "position", "status", "code", "message")
COUNT_COLUMNS = ("submitted_by", "kind", "status", "tasks")

BIGINT_MAX = (1 << 63) - 1
NULL = Raw(b"null")

STATUSES = tuple(status.value for status in Status)
SHOWN_STATUS = {phase: status.value for phase, status in STATUS_OF.items()}
"""What a phase is called in rows that people see."""
_PHASE_NAME = {phase: phase.value for phase in Phase}

_encode = msgspec.json.Encoder().encode
_decode_record = msgspec.json.Decoder(TaskRecord).decode


@dataclass(slots=True)
class AttemptRow:
    """One attempt; `outcome` says how it ended."""

    task: str
    attempt: int
    worker: str
    slot: int
    assigned_at: Instant
    started_at: Instant | None = None
    finished_at: Instant | None = None
    outcome: str | None = None

    def row(self) -> Row:
        """The row as it is now."""
        return (
            self.task, self.attempt, self.worker, self.slot, self.assigned_at, self.started_at, self.finished_at,
            self.outcome,
        )  # fmt: skip


class QueueRow(QueueSettings, kw_only=True):
    """A queue: its settings, and how many live tasks stand where (`active`: from a slot's assignment on)."""

    pending: int = 0
    scheduled: int = 0
    active: int = 0

    def row(self) -> Row:
        """The row as it is now."""
        return (
            self.pool, self.name, plain_integer(self.max_running), *_hold_values(self.paused),
            *_hold_values(self.locked), self.pending, self.scheduled, self.active,
        )  # fmt: skip


class PoolRow(PoolSettings, kw_only=True):
    """A pool and its settings."""

    def row(self) -> Row:
        """The row as it is now."""
        return (
            self.name, plain_integer(self.max_waiting), self.approval_timeout_seconds,
            None if self.placement is None else plain_text(self.placement), *_hold_values(self.paused),
            json_text(self.aside),
        )  # fmt: skip


class WorkerRow(WorkerState, kw_only=True):
    """A worker as its current incarnation is."""

    changed_at: Instant
    joined_at: Instant

    def row(self) -> Row:
        """The row as it is now."""
        return (
            self.name, self.pool, plain_text(str(self.incarnation)), self.is_suspect, self.is_draining, self.is_lost,
            plain_text(self.reason), self.changed_at, self.joined_at, json_text(self.labels), json_text(self.slots),
            json_text(self.kinds), plain_text(self.place), json_text(self.replaced), json_text(self.closing),
            plain_text(self.drain_reason),
        )  # fmt: skip


def restore_worker(row: Sequence[Any]) -> WorkerRow:
    """The worker of a row."""
    (
        name, pool, incarnation, is_suspect, is_draining, is_lost, reason, changed_at, joined_at, labels, slots, kinds,
        place, replaced, closing, drain_reason,
    ) = row  # fmt: skip
    return WorkerRow(
        name=name,
        pool=pool,
        # The first logs have numbers; a text of ours begins with a letter.
        incarnation=int(incarnation) if incarnation.isdecimal() else incarnation,
        is_suspect=is_suspect,
        is_draining=is_draining,
        is_lost=is_lost,
        reason=reason,
        drain_reason=drain_reason,
        changed_at=changed_at,
        joined_at=joined_at,
        labels=msgspec.json.decode(labels, type=dict[str, str]),
        slots=msgspec.json.decode(slots, type=tuple[tuple[str, ...], ...]),
        kinds=msgspec.json.decode(kinds, type=tuple[str, ...]),
        place=place,
        replaced=msgspec.json.decode(replaced, type=tuple[Incarnation, ...]),
        closing=msgspec.json.decode(closing, type=dict[int, TaskId]),
    )


def task_row(record: TaskRecord, position: Position) -> Row:
    """The row of a task that has none yet."""
    return (
        record.id, record.submitted, record.kind, record.pool, record.queue, record.locks_queue, record.submitted_by,
        record.submitted_at, record.retry_of, _labels(record.labels), *changing_values(record, position),
    )  # fmt: skip


def changing_values(record: TaskRecord, position: Position) -> Row:
    """What may change of a task's row."""
    phase, error, result, changes = record.phase, record.error, record.result, record.changes
    return (
        record.priority, _PHASE_NAME[phase], SHOWN_STATUS[phase], record.due, record.attempt, record.worker,
        record.slot, record.confirmed, record.holds_slot, record.progress, record.scheduled_at, record.started_at,
        record.finished_at,
        None if error is None else json_text(error),
        None if result == NULL else str(result if is_readable(result) else UNREADABLE_SHOWN, "utf-8"),
        None if changes is None else json_text(changes),
        position,
        None if record.finished_at is not None else json_text(record),
    )  # fmt: skip


def restore_record(text: str) -> TaskRecord:
    """The folded record that a live task's row keeps."""
    return _decode_record(text)


def restore_queue(row: Sequence[Any]) -> QueueRow:
    """The queue of a row."""
    pool, queue, max_running, *holds, pending, scheduled, active = row
    return QueueRow(
        pool=pool,
        name=queue,
        max_running=max_running,
        paused=_hold(*holds[:3]),
        locked=_hold(*holds[3:]),
        pending=pending,
        scheduled=scheduled,
        active=active,
    )


def restore_pool(row: Sequence[Any]) -> PoolRow:
    """The pool of a row."""
    pool, max_waiting, approval_timeout_seconds, placement, *paused, aside = row
    return PoolRow(
        name=pool,
        max_waiting=max_waiting,
        approval_timeout_seconds=approval_timeout_seconds,
        placement=placement,
        paused=_hold(*paused),
        aside=msgspec.json.decode(aside, type=dict[str, str]),
    )


def json_text(value: Any) -> str:
    """The value as JSON. What a `Raw` in it holds may be no text."""
    return _encode(value).decode(errors="replace")


def plain_integer(number: int | None) -> int | None:
    """The number as `bigint` can keep it."""
    return None if number is None else min(number, BIGINT_MAX)


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return "{}"
    return json_text({plain_text(key): plain_text(value) for key, value in labels.items()})


def _hold_values(hold: Hold | None) -> tuple[str | None, str | None, Instant | None]:
    return (None, None, None) if hold is None else (hold.by, plain_text(hold.reason), hold.at)


def _hold(by: str | None, reason: str | None, at: Instant | None) -> Hold | None:
    return None if by is None or reason is None or at is None else Hold(by=by, reason=reason, at=at)
