"""Why a waiting task waits, derived from the rows of the read model. Pure.

It mirrors how the scheduler chooses: a task must be due, its pool and queue open, its workspace free, its queue below
its limit; then tasks of a queue go by priority and submission; then it needs a slot of a worker that takes its kind.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from taskyard.api.views import PendingReason
from taskyard.contracts.events import SCHEDULER
from taskyard.contracts.lifecycle import Phase
from taskyard.contracts.queues import INTERNAL_ERROR
from taskyard.contracts.values import Instant, format_instant

DELIVERY_FAILED = "dispatch_failed"
"""The error code of a task whose delivery to a worker failed."""
SUSPECTS_TOLD_MAX = 3
OTHERS_TASK = "a task of somebody else"
"""Stands for the id of a task that whoever asks may not see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A task as its row shows it. `is_apply` says that its plan was confirmed, so that it waits on its own slot."""

    id: str
    kind: str
    pool: str
    queue: str
    phase: Phase
    due: Instant
    locks_queue: bool
    is_admitted: bool
    is_apply: bool
    worker: str | None
    slot: int | None
    error_code: str | None
    error_message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What stands around a waiting task. Each `*_by` is None where that is not so.

    `workspace_holder` is another task, of any pool, that has the queue for itself; `locked_pool` is where the lock was set;
    `admitted` counts tasks of the queue between scheduled and their end; `next_ahead` is the one just before this task;
    of both, OTHERS_TASK stands for one that may not be named.
    `aside_reason` is why looking for a slot for it is put off, where that raised.
    `has_worker` says that a worker which takes the kind is there; `suspects` in words, which ones would but are suspect.
    """

    queue_position: int | None = None
    next_ahead: str | None = None
    workspace_holder: str | None = None
    max_running: int | None = None
    admitted: int = 0
    queue_paused_by: str | None = None
    queue_paused_reason: str = ""
    queue_paused_at: Instant | None = None
    pool_paused_by: str | None = None
    pool_paused_reason: str = ""
    pool_paused_at: Instant | None = None
    locked_pool: str | None = None
    locked_by: str | None = None
    locked_reason: str = ""
    locked_at: Instant | None = None
    aside_reason: str | None = None
    has_worker: bool = False
    suspects: str = ""


NOTHING_AROUND = Around()


def needs_surroundings(phase: Phase, *, is_apply: bool) -> bool:
    """Whether the reason depends on more than the task's own row."""
    return phase in (Phase.PENDING, Phase.SCHEDULED) or (is_apply and phase is Phase.APPLY_PENDING)


def suspects_words(suspects: Iterable[tuple[str, str]]) -> str:
    """Workers that are suspect, with the reason of each: the first ones, and how many more there are."""
    told = [f"{name} takes nothing new ({reason})" for name, reason in sorted(suspects)]
    more = len(told) - SUSPECTS_TOLD_MAX
    return "; ".join(told[:SUSPECTS_TOLD_MAX]) + (f"; and {more} more" if more > 0 else "")


def pending_reason(task: Waiting, around: Around, now: Instant) -> PendingReason | None:
    """Why the task waits; None for one that does not wait."""
    match task.phase:
        case Phase.PENDING:
            return (
                _not_due(task, around, now) or _closed(task, around) or _taken(task, around) or _no_slot(task, around)
            )
        case Phase.APPLY_PENDING if task.is_apply:
            return _not_due(task, around, now) or _held_back(task, around) or _apply_goes_on(task, around)
        case Phase.SCHEDULED if task.is_apply:
            return _not_due(task, around, now) or _apply_goes_on(task, around)
        case Phase.SCHEDULED:
            return _no_slot(task, around)
        case Phase.APPLY_PENDING:
            return PendingReason(code="approval", message="the plan waits to be confirmed or discarded")
        case Phase.HELD:
            message = (
                f"worker {task.worker} is lost and a {task.kind} is never repeated by itself: waits for its return"
            )
            return PendingReason(code="worker_lost", message=message, blocker=task.worker)
        case _:
            return None


def waited_for(task: Waiting, around: Around, code: str) -> str:
    """What a task waits or waited for, to be read behind "waited 3 s": for each code of `pending_reason` its words."""
    queue, pool = f"queue {task.queue}", f"pool {task.pool}"
    match code:
        case "not_before":
            return f"until {format_instant(task.due)}, before which it was not to start"
        case "backoff" if task.error_code == DELIVERY_FAILED:
            return f"before it was sent out again, since {task.worker} could not be reached"
        case "backoff":
            return f"before trying again, since the attempt before had failed ({task.error_code})"
        case "paused":
            return waited_for(task, around, "pool_paused" if around.queue_paused_by is None else "queue_paused")
        case "internal_error":
            if around.queue_paused_by is None and around.pool_paused_by is None:
                return f"for a slot in {pool}, since looking for one failed"
            which = queue if around.queue_paused_by is not None else pool
            return f"while {which} was paused, since deciding on it failed"
        case "queue_paused":
            return _with(f"while {queue} was paused by {around.queue_paused_by}", around.queue_paused_reason)
        case "pool_paused":
            return _with(f"while {pool} was paused by {around.pool_paused_by}", around.pool_paused_reason)
        case "queue_locked" | "locked":
            return _with(f"while {queue} was locked by {around.locked_by}", around.locked_reason)
        case "workspace_busy":
            return f"for workspace {task.queue}, held by {around.workspace_holder}"
        case "queue_limit":
            return f"for a place in {queue}, of which {around.max_running} may run at a time"
        case "queue_order":
            return f"behind {around.next_ahead} in {queue}"
        case "no_worker":
            return f"for a worker in {pool} that takes {task.kind}"
        case "no_free_slot" if task.is_apply:
            return f"for its reserved slot {task.slot} of {task.worker}"
        case "no_free_slot":
            return f"for a free slot in {pool} that takes {task.kind}"
        case "approval":
            return "for an answer to its plan"
        case "worker_lost":
            return f"for worker {task.worker} to come back, since a {task.kind} is never repeated by itself"
        case _:
            return f"for {code}"


def _not_due(task: Waiting, around: Around, now: Instant) -> PendingReason | None:
    if task.due <= now:
        return None
    when = format_instant(task.due)
    if task.error_code is None:
        return _reason(around, "not_before", f"is to start at {when} at the earliest")
    if task.error_code == DELIVERY_FAILED:
        failed = _with(f"delivery to {task.worker} failed", task.error_message)
        return _reason(around, "backoff", f"{failed}; goes on at {when}")
    return _reason(around, "backoff", f"the last attempt failed ({task.error_code}); tried again at {when}")


def _closed(task: Waiting, around: Around) -> PendingReason | None:
    if around.queue_paused_by == SCHEDULER and around.queue_paused_reason.startswith(INTERNAL_ERROR):
        message = f"deciding on queue {task.queue} failed, and it was paused: {around.queue_paused_reason}"
        return _reason(around, INTERNAL_ERROR, message)
    if around.queue_paused_by is not None:
        message = f"queue {task.queue} was paused by {around.queue_paused_by}{_since(around.queue_paused_at)}"
        return _reason(around, "queue_paused", _with(message, around.queue_paused_reason), around.queue_paused_by)
    if around.pool_paused_by == SCHEDULER and around.pool_paused_reason.startswith(INTERNAL_ERROR):
        message = f"deciding on pool {task.pool} failed, and it was paused: {around.pool_paused_reason}"
        return _reason(around, INTERNAL_ERROR, message)
    if around.pool_paused_by is not None:
        message = f"pool {task.pool} was paused by {around.pool_paused_by}{_since(around.pool_paused_at)}"
        return _reason(around, "pool_paused", _with(message, around.pool_paused_reason), around.pool_paused_by)
    if around.locked_by is not None:
        where = "" if around.locked_pool in (None, task.pool) else f" of pool {around.locked_pool}"
        message = f"queue {task.queue}{where} was locked by {around.locked_by}{_since(around.locked_at)}"
        return _reason(around, "queue_locked", _with(message, around.locked_reason), around.locked_by)
    return None


def _held_back(task: Waiting, around: Around) -> PendingReason | None:
    """What holds back an apply that was confirmed: nothing but a closed pool or queue does."""
    reason = _closed(task, around)
    if reason is None:
        return None
    code = "locked" if reason.code == "queue_locked" else "paused"
    return PendingReason(code=code, message=f"the apply is confirmed; {reason.message}", blocker=reason.blocker)


def _apply_goes_on(task: Waiting, around: Around) -> PendingReason:
    if around.aside_reason is not None:
        return _stands_aside(task, around)
    message = f"the apply waits for its reserved slot {task.slot} of {task.worker}"
    return PendingReason(code="no_free_slot", message=message)


def _taken(task: Waiting, around: Around) -> PendingReason | None:
    holder = around.workspace_holder
    if task.locks_queue and not task.is_admitted and holder is not None:
        return _reason(around, "workspace_busy", f"waits for {holder} in {task.queue}", holder)
    if around.max_running and around.admitted >= around.max_running:
        message = f"{around.admitted} of at most {around.max_running} tasks of queue {task.queue} are running"
        return _reason(around, "queue_limit", message)
    if around.next_ahead is not None:
        message = f"{around.next_ahead} goes before it in queue {task.queue}"
        return _reason(around, "queue_order", message, around.next_ahead)
    return None


def _stands_aside(task: Waiting, around: Around) -> PendingReason:
    what = "its apply" if task.is_apply else task.kind
    message = f"looking for a slot for {what} in pool {task.pool} failed, and is tried again every minute"
    return _reason(around, INTERNAL_ERROR, _with(message, around.aside_reason or ""))


def _no_slot(task: Waiting, around: Around) -> PendingReason:
    if around.aside_reason is not None:
        return _stands_aside(task, around)
    if not around.has_worker:
        message = f"no active worker in pool {task.pool} takes {task.kind}"
        return _reason(around, "no_worker", _with(message, around.suspects))
    return _reason(around, "no_free_slot", f"waits for a free slot in pool {task.pool} that takes {task.kind}")


def _reason(around: Around, code: str, message: str, blocker: str | None = None) -> PendingReason:
    shown = None if blocker == OTHERS_TASK else blocker
    return PendingReason(code=code, message=message, blocker=shown, queue_position=around.queue_position)


def _since(at: Instant | None) -> str:
    return "" if at is None else f" at {format_instant(at)}"


def _with(message: str, reason: str) -> str:
    return f"{message}: {reason}" if reason else message
