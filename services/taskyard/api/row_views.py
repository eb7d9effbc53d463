"""Rows of the read model as answers. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from msgspec import Raw

from taskyard.api.reasons import OTHERS_TASK, Around, Waiting, pending_reason, suspects_words
from taskyard.api.views import (
    POOL_SCOPE,
    QUEUE_SCOPE,
    HistoryItem,
    QueuePause,
    Rejection,
    SlotView,
    TaskView,
    TimesView,
    WorkerView,
)
from taskyard.contracts.events import FieldError, TaskError
from taskyard.contracts.fleet import ANY_KIND
from taskyard.contracts.lifecycle import Phase
from taskyard.contracts.queues import Hold
from taskyard.contracts.readable import UNREADABLE, UNREADABLE_SHOWN, is_readable
from taskyard.contracts.values import SECOND, Instant, format_instant, format_position

if TYPE_CHECKING:
    import asyncpg

Row: TypeAlias = "asyncpg.Record"

_decode_error = msgspec.json.Decoder(TaskError).decode
_decode_event = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_errors = msgspec.json.Decoder(list[FieldError]).decode
_decode_slots = msgspec.json.Decoder(list[list[str]]).decode
_decode_kinds = msgspec.json.Decoder(list[str]).decode
_decode_aside = msgspec.json.Decoder(dict[str, str]).decode
_decode_closing = msgspec.json.Decoder(dict[int, str]).decode
_decode_held = msgspec.json.Decoder(list[tuple[int, str | None, bool]]).decode


def waiting_task(row: Row) -> Waiting:
    """What a task's own row tells about its waiting."""
    error = None if row["error"] is None else _decode_error(row["error"])
    return Waiting(
        id=row["id"],
        kind=row["kind"],
        pool=row["pool"],
        queue=row["queue"],
        phase=Phase(row["phase"]),
        due=row["due"],
        locks_queue=row["locks_queue"],
        is_admitted=row["scheduled_at"] is not None,
        is_apply=row["confirmed"],
        worker=row["worker"],
        slot=row["slot"],
        error_code=None if error is None else error.code,
        error_message="" if error is None else error.message,
    )


class Takers:
    """Who takes which kinds in which pools: rows of `what_workers_accept`."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._active: set[tuple[str, str]] = set()
        self._suspects: dict[tuple[str, str], set[tuple[str, str]]] = {}
        for row in rows:
            slots, kinds = _decode_slots(row["slots"]), _decode_kinds(row["kinds"])
            taken = {(row["pool"], kind) for slot in slots for kind in kinds if ANY_KIND in slot or kind in slot}
            if row["suspect"] is None:
                self._active |= taken
            else:
                for key in taken:
                    self._suspects.setdefault(key, set()).add((row["suspect"], row["reason"]))

    def has_active(self, pool: str, kind: str) -> bool:
        """Whether a worker takes the kind now."""
        return (pool, kind) in self._active

    def suspects(self, pool: str, kind: str) -> str:
        """In words, who would take it, but is suspect."""
        return suspects_words(self._suspects.get((pool, kind), ()))


def tasks_around(row: Row) -> Iterable[str]:
    """The tasks that a row of `what_tasks_wait_for` names."""
    return (id for id in (row["holder"], row["next_ahead"]) if id is not None)


def surroundings(row: Row, task: Waiting, takers: Takers, own: set[str] | None) -> Around:
    """What stands around a waiting task: a row of `what_tasks_wait_for`. Of other tasks only `own` are named, None for all."""

    def named(id: str | None) -> str | None:
        return id if id is None or own is None or id in own else OTHERS_TASK

    return Around(
        queue_position=None if row["ahead"] is None else row["ahead"] + 1,
        next_ahead=named(row["next_ahead"]),
        workspace_holder=named(row["holder"]),
        max_running=row["max_running"],
        admitted=row["admitted"] or 0,
        queue_paused_by=row["queue_paused_by"],
        queue_paused_reason=row["queue_paused_reason"] or "",
        queue_paused_at=row["queue_paused_at"],
        pool_paused_by=row["pool_paused_by"],
        pool_paused_reason=row["pool_paused_reason"] or "",
        pool_paused_at=row["pool_paused_at"],
        locked_pool=row["locked_pool"],
        locked_by=row["locked_by"],
        locked_reason=row["locked_reason"] or "",
        locked_at=row["locked_at"],
        aside_reason=_decode_aside(row["aside"] or "{}").get(task.id if task.is_apply else task.kind),
        has_worker=takers.has_active(task.pool, task.kind),
        suspects=takers.suspects(task.pool, task.kind),
    )


def task_view(row: Row, task: Waiting, around: Around, now: Instant) -> TaskView:
    """A task with the reason why it waits."""
    return TaskView(
        id=row["id"],
        kind=row["kind"],
        pool=row["pool"],
        queue=row["queue"],
        priority=row["priority"],
        status=row["status"],
        attempt=row["attempt"],
        worker=row["worker"],
        slot=row["slot"],
        progress=row["progress"],
        error=None if row["error"] is None else _decode_error(row["error"]),
        pending_reason=pending_reason(task, around, now),
        submitted_by=row["submitted_by"],
        submitted_at=format_instant(row["submitted_at"]),
        scheduled_at=time_text(row["scheduled_at"]),
        started_at=time_text(row["started_at"]),
        finished_at=time_text(row["finished_at"]),
        result=_result(row),
        labels=Raw(row["labels"]),
        retry_of=row["retry_of"],
        parent=None,
        position=format_position(row["position"]),
    )


def _result(row: Row) -> Raw | None:
    if row["result"] is not None:
        result = Raw(row["result"])
        return result if is_readable(result) else UNREADABLE_SHOWN
    return None if row["changes"] is None else Raw(f'{{"changes":{row["changes"]}}}')


def history_item(row: Row) -> HistoryItem:
    """One event of a task."""
    try:
        data = _decode_event(row["event"])
    except UNREADABLE:  # a row of a version that did not look into what it stored
        data = _decode_event(UNREADABLE_SHOWN)
    for shown in ("type", "task", "by"):
        data.pop(shown, None)
    return HistoryItem(
        position=format_position(row["position"]),
        at=format_instant(row["at"]),
        type=row["type"],
        by=row["by"] or row["writer"],
        void=row["void"],
        data=data,
    )


def rejection(row: Row) -> Rejection:
    """A refused command."""
    return Rejection(
        position=format_position(row["position"]),
        at=format_instant(row["at"]),
        by=row["by"],
        verb=row["verb"],
        command=row["command"],
        status=row["status"],
        code=row["code"],
        message=row["message"],
        errors=_decode_errors(row["errors"]),
    )


def closing_tasks(row: Row) -> Iterable[str]:
    """The tasks that have ended, and something of which may still live on the worker."""
    return _decode_closing(row["closing"]).values()


def worker_view(row: Row, own: set[str] | None) -> WorkerView:
    """A worker with its slots and the tasks that hold them; of those that have ended only `own`, None for all."""
    closing = _decode_closing(row["closing"])
    held: dict[int, tuple[str | None, bool]] = {
        slot: (task if own is None or task in own else None, False) for slot, task in closing.items()
    }
    held |= {slot: (task, is_reserved) for slot, task, is_reserved in _decode_held(row["held"] or "[]")}
    states = (("lost", "lost"), ("suspect", "suspect"), ("draining", "draining"))
    return WorkerView(
        id=row["worker"],
        pool=row["pool"],
        status=next((name for column, name in states if row[column]), "active"),
        incarnation=row["incarnation"],
        joined_at=format_instant(row["joined_at"]),
        reason=row["reason"],
        labels=Raw(row["labels"]),
        slots=[_slot(number, accepts, held) for number, accepts in enumerate(_decode_slots(row["slots"]))],
    )


def _slot(number: int, accepts: list[str], held: Mapping[int, tuple[str | None, bool]]) -> SlotView:
    if number not in held:
        return SlotView(id=number, status="idle", accepts=accepts, task=None)
    task, is_reserved = held[number]
    return SlotView(id=number, status="reserved" if is_reserved else "running", accepts=accepts, task=task)


def queue_pause(own: Hold | None, of_pool: Hold | None) -> QueuePause:
    """What pauses a queue, as answers show it: its own pause, or else that of its pool."""
    hold = own or of_pool
    if hold is None:
        return QueuePause(paused=False, paused_scope=None, paused_by=None, paused_reason=None, paused_at=None)
    scope = QUEUE_SCOPE if own is not None else POOL_SCOPE
    return QueuePause(
        paused=True,
        paused_scope=scope,
        paused_by=hold.by,
        paused_reason=hold.reason,
        paused_at=format_instant(hold.at),
    )


def times_view(mean: float | None, percentiles: Sequence[float] | None) -> TimesView:
    """A mean and two percentiles, measured in microseconds."""
    if mean is None or percentiles is None:
        return TimesView(mean=None, p50=None, p95=None)
    return TimesView(mean=mean / SECOND, p50=percentiles[0] / SECOND, p95=percentiles[1] / SECOND)


def time_text(at: Instant | None) -> str | None:
    """An instant as answers show it."""
    return None if at is None else format_instant(at)
