"""What a log came to: waiting times, slot use, order and makespan. The same for a recorded log and a replayed one. Pure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from taskyard.api.past.state import PastState, end_of
from taskyard.contracts.events import AttemptSucceeded, SlotAssigned, TaskPlanned, TaskStarted, TaskSubmitted
from taskyard.contracts.lifecycle import TaskRecord, Verdict
from taskyard.contracts.tasks import Change
from taskyard.contracts.values import SECOND, Instant, TaskId, make_position
from taskyard.eventlog.commit import StoredCommit

_STARTED = (TaskStarted, AttemptSucceeded, TaskPlanned)


class Waiting(Struct, frozen=True, kw_only=True):
    """How long tasks waited for their first start, in seconds; from when they were to start at the earliest."""

    tasks: int
    p50: float
    p95: float
    max: float


class SlotUse(Struct, frozen=True, kw_only=True):
    """Slots that accept the same: how many, and the share of their time in which a task held them."""

    accepts: str
    slots: int
    busy_seconds: float
    use: float


class Measures(Struct, frozen=True, kw_only=True):
    """What a log came to. `order` has the tasks in the order in which they first got a slot."""

    tasks: int
    started: int
    by_status: dict[str, int]
    waiting: Waiting
    waiting_by_kind: dict[str, Waiting]
    waiting_by_queue: dict[str, Waiting]
    slots: list[SlotUse]
    use: float
    makespan_seconds: float
    order: list[TaskId]


class _Times(Struct):
    kind: str
    queue: str
    ready: Instant
    started: Instant | None = None
    status: str = "live"


class Measurer:
    """Reads a log from the state before it on. `name_of` gives the name under which a task is compared, None to leave it out."""

    def __init__(self, before: PastState, name_of: Callable[[TaskId], TaskId | None]) -> None:
        self._state = before
        self._name_of = name_of
        self._times: dict[TaskId, _Times] = {}
        self._order: dict[TaskId, None] = {}
        self._taken: dict[tuple[str, int], Instant] = {}
        self._busy: dict[tuple[str, int], int] = {}
        self._began: Instant | None = None
        self._last_end = Instant(0)
        self._there: dict[str, Instant] = {}
        self._was_there: dict[str, int] = {}
        self._accepts: dict[tuple[str, int], str] = {}

    def see(self, stored: StoredCommit[Any]) -> None:
        """Read the next commit."""
        if self._began is None:
            self._began = stored.at
            for record in self._state.tasks.live.values():
                if record.held_slot is not None:
                    self._taken[record.held_slot] = stored.at
            self._look_at_workers(stored.at)
        for index, event in enumerate(stored.commit.events):
            changes = self._state.apply(event, stored.at, make_position(stored.sequence, index))
            for change in changes:
                if change.record is not None and change.verdict is Verdict.EFFECTIVE:
                    self._task_changed(event, stored.at, change, change.record)
            if type(event).__name__.startswith("Worker"):
                self._look_at_workers(stored.at)
        self._state.fold(stored, end_of(stored.sequence))

    def measures(self, kept: Callable[[TaskId], bool] = lambda _: True) -> Measures:
        """What was read came to; waiting times are of the tasks that are kept."""
        end = max(self._last_end, self._began or Instant(0))
        times = {name: each for name, each in self._times.items() if kept(name)}
        started = [each for each in times.values() if each.started is not None]
        slots = self._slot_use(end)
        there = sum(self._seconds_there(worker, end) for worker, _ in self._accepts)
        busy = sum(use.busy_seconds for use in slots)
        by_status: dict[str, int] = {}
        for each in times.values():
            by_status[each.status] = by_status.get(each.status, 0) + 1
        return Measures(
            tasks=len(times),
            started=len(started),
            by_status=dict(sorted(by_status.items())),
            waiting=_waiting(started),
            waiting_by_kind=_waiting_by(started, lambda each: each.kind),
            waiting_by_queue=_waiting_by(started, lambda each: each.queue),
            slots=slots,
            use=busy / there if there else 0.0,
            makespan_seconds=max(0, end - (self._began or end)) / SECOND,
            order=[name for name in self._order if kept(name)],
        )

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def _task_changed(self, event: Any, at: Instant, change: Change, record: TaskRecord) -> None:
        self._slot_changed(change, record, at)
        name = self._name_of(record.id)
        if name is None:
            return
        if isinstance(event, TaskSubmitted):
            ready = Instant(max(at, event.not_before or at))
            self._times[name] = _Times(kind=record.kind, queue=f"{record.pool}/{record.queue}", ready=ready)
        times = self._times.get(name)
        if times is None:
            return
        if isinstance(event, SlotAssigned):
            self._order.setdefault(name)
        if isinstance(event, _STARTED) and times.started is None:
            times.started = at
        if record.has_ended:
            times.status = record.status.value
            self._last_end = max(self._last_end, at)

    def _slot_changed(self, change: Change, record: TaskRecord, at: Instant) -> None:
        held = record.held_slot
        if change.held is not None and change.held != held:
            taken = self._taken.pop(change.held, at)
            self._busy[change.held] = self._busy.get(change.held, 0) + at - taken
        if held is not None and change.held != held:
            self._taken[held] = at

    # -- workers -------------------------------------------------------------------------------------------------------

    def _look_at_workers(self, at: Instant) -> None:
        for name, worker in self._state.workers.items():
            if worker.is_lost:
                since = self._there.pop(name, None)
                if since is not None:
                    self._was_there[name] = self._was_there.get(name, 0) + at - since
                continue
            self._there.setdefault(name, at)
            for slot, accepts in enumerate(worker.slots):
                self._accepts[name, slot] = "+".join(accepts)

    def _seconds_there(self, name: str, end: Instant) -> float:
        since = self._there.get(name)
        now = max(0, end - since) if since is not None else 0
        return (self._was_there.get(name, 0) + now) / SECOND

    def _slot_use(self, end: Instant) -> list[SlotUse]:
        uses: list[SlotUse] = []
        for accepts in sorted(set(self._accepts.values())):
            slots = [slot for slot, each in self._accepts.items() if each == accepts]
            busy = sum(self._busy.get(slot, 0) for slot in slots)
            busy += sum(max(0, end - self._taken[slot]) for slot in slots if slot in self._taken)
            there = sum(self._seconds_there(slot[0], end) for slot in slots)
            seconds = busy / SECOND
            uses.append(
                SlotUse(accepts=accepts, slots=len(slots), busy_seconds=seconds, use=seconds / there if there else 0.0)
            )
        return uses


def _waiting_by(times: Iterable[_Times], key: Callable[[_Times], str]) -> dict[str, Waiting]:
    groups: dict[str, list[_Times]] = {}
    for each in times:
        groups.setdefault(key(each), []).append(each)
    return {name: _waiting(group) for name, group in sorted(groups.items())}


def _waiting(times: Iterable[_Times]) -> Waiting:
    seconds = sorted(max(0, each.started - each.ready) / SECOND for each in times if each.started is not None)
    return Waiting(
        tasks=len(seconds),
        p50=percentile(seconds, 0.5),
        p95=percentile(seconds, 0.95),
        max=seconds[-1] if seconds else 0.0,
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that is not below `share` of all; 0 of none."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else 0.0
