"""What a task waited for, and when: a watcher looks at the state of the past while it is folded. Pure."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from taskyard.api.past.state import PastState
from taskyard.api.past.surroundings import Surroundings, may_name, takes_kind
from taskyard.api.past.views import waiting_of
from taskyard.api.reasons import OTHERS_TASK, pending_reason, waited_for
from taskyard.contracts.events import SlotAssigned
from taskyard.contracts.lifecycle import Phase, TaskRecord
from taskyard.contracts.tasks import Change
from taskyard.contracts.values import Instant, TaskId

LOOKS_MAX = 1_000
"""About so many times is looked at one window: looking costs as much as the queue is long."""
SPANS_TOLD_MAX = 8
"""More than these are told as sums, one for each code."""
FIRST_FIT, KEEP_SLOT_0 = "first-fit", "keep-slot-0"

_MOVING = frozenset(("queue_order", "queue_limit", "no_free_slot", "no_worker"))
"""Codes whose blocker changes all the time: it is one wait all the same."""


class Wait(Struct, frozen=True, kw_only=True):
    """A task waited from `since` to `until` (None: it still does) for what `words` say. `times` counts summed ones."""

    code: str
    words: str
    since: Instant
    until: Instant | None
    total: int
    blocker: str | None = None
    times: int = 1


class Watcher:
    """Looks at one waiting task from the moment it began to wait until it stopped, at `end` if that is known.

    It tells of tasks of others than `sees_only` without naming them.
    """

    def __init__(self, task: TaskId, since: Instant, end: Instant, sees_only: str | None) -> None:
        self._sees_only = sees_only
        self.placement = ""
        self._task = task
        self._spacing = (end - since) // LOOKS_MAX
        self._spans: list[Wait] = []
        self._is_stale = True
        self._looked = Instant(0)
        self._due = Instant(0)

    def before(self, state: PastState, event: Any) -> None:
        """An event is about to be folded."""
        if isinstance(event, SlotAssigned) and event.task == self._task:
            record = state.tasks.live.get(self._task)
            if record is not None and record.phase is Phase.SCHEDULED:
                self.placement = placement_words(state, record, event, self._sees_only)

    def after(self, state: PastState, event: Any, changes: Sequence[Change]) -> None:
        """An event was folded."""
        record = state.tasks.live.get(self._task)
        if record is None or self._is_stale:
            return
        mine = any(change.record is not None and _concerns(change.record, record) for change in changes)
        # What is about no task is about workers and settings: rare, and told at once.
        self._is_stale = mine or getattr(event, "task", None) is None
        if getattr(event, "task", None) in (None, self._task):
            self._looked = Instant(0)

    def committed(self, state: PastState) -> None:
        """A commit was folded as a whole."""
        record = state.tasks.live.get(self._task)
        if record is None:
            return
        if self._looked < self._due <= state.at:
            self._is_stale = True
        if self._is_stale and state.at >= self._looked + self._spacing:
            self._look(state, record)

    def waits(self, until: Instant, *, is_over: bool) -> list[Wait]:
        """What it waited for until then, summed where there is much of it."""
        spans = self._spans
        if spans and is_over:
            spans = [*spans[:-1], _closed(spans[-1], until)]
        elif spans:
            spans = [*spans[:-1], replace(spans[-1], total=max(0, until - spans[-1].since))]
        spans = [span for span in spans if span.total > 0 or span.until is None]
        return spans if len(spans) <= SPANS_TOLD_MAX else _summed(spans)

    def _look(self, state: PastState, record: TaskRecord) -> None:
        self._is_stale, self._looked = False, state.at
        task, around = waiting_of(record), Surroundings(state, state.at, self._sees_only).of(record)
        reason = pending_reason(task, around, state.at)
        since = state.at
        if self._spans and 0 < self._due <= state.at:
            since = max(self._due, self._spans[-1].since)  # its delay ran out without an event
        self._due = record.due if record.due > state.at else Instant(0)
        if reason is None:
            self._close(since)
            return
        code, blocker = reason.code, reason.blocker
        last = self._spans[-1] if self._spans else None
        if last is not None and last.until is None and last.code == code:
            if last.blocker == blocker:
                return
            if code in _MOVING:
                self._spans[-1] = replace(last, blocker=blocker, words=waited_for(task, around, code))
                return
        self._close(since)
        words = waited_for(task, around, code)
        self._spans.append(Wait(code=code, words=words, since=since, until=None, total=0, blocker=blocker))

    def _close(self, until: Instant) -> None:
        if self._spans and self._spans[-1].until is None:
            self._spans[-1] = _closed(self._spans[-1], until)


def _concerns(other: TaskRecord, record: TaskRecord) -> bool:
    """Whether what happens to another task may change why this one waits: they share a queue, or a workspace."""
    return other.queue == record.queue and (other.pool == record.pool or other.locks_queue)


def _closed(span: Wait, until: Instant) -> Wait:
    return span if span.until is not None else replace(span, until=until, total=max(0, until - span.since))


def _summed(spans: Sequence[Wait]) -> list[Wait]:
    """One for each code, in the order in which they came first; of what it waited for, the last is named."""
    sums: dict[str, Wait] = {}
    for span in spans:
        known = sums.get(span.code)
        if known is None:
            sums[span.code] = span
        else:
            sums[span.code] = replace(
                span, since=known.since, total=known.total + span.total, times=known.times + span.times
            )
    return list(sums.values())


def placement_words(state: PastState, record: TaskRecord, event: SlotAssigned, sees_only: str | None) -> str:
    """Why a task got the slot that it got, by what stood just before."""
    where = f"slot {event.slot} of {event.worker}"
    worker = state.workers.get(event.worker)
    pool = state.pools.get(record.pool)
    policy = (pool.placement if pool else None) or FIRST_FIT
    if worker is None:
        return f"{where} by {policy}"
    busy = {state.tasks.live[id].slot: id for id in state.tasks.on_worker.get(event.worker, ())}
    unfit: dict[tuple[str, ...], list[int]] = {}
    taken: list[str] = []
    for slot, accepts in enumerate(worker.slots):
        if slot == event.slot:
            continue
        if not takes_kind(worker, slot, record.kind):
            unfit.setdefault(accepts, []).append(slot)
        elif slot in busy:
            told = busy[slot] if may_name(state, busy[slot], sees_only) else OTHERS_TASK
            taken.append(f"slot {slot} had {told}")
    since = [_slots_take(slots, accepts) for accepts, slots in unfit.items()] + taken
    how = ", which takes the most specialised idle slot," if policy == KEEP_SLOT_0 else ""
    return f"{where} by {policy}{how}" + (f" since {', '.join(since)}" if since else "")


def _slots_take(slots: Sequence[int], accepts: Sequence[str]) -> str:
    numbers = ", ".join(map(str, slots))
    kinds = " and ".join(accepts) or "nothing"
    return f"slot {numbers} takes {kinds} only" if len(slots) == 1 else f"slots {numbers} take {kinds} only"
