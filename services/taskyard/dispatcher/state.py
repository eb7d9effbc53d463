"""The dispatcher's state: a fold of the log.

`apply` keeps live tasks, and tells the caches what has to be sent, and which deadlines run.
"""

from heapq import heapify, heappop, heappush
from typing import cast, get_args

from msgspec import Struct

from taskyard.contracts.agent_protocol import START_SECONDS_MAX
from taskyard.contracts.events import (
    AnyEvent,
    AttemptFailed,
    AttemptLost,
    AttemptSucceeded,
    ForceStopped,
    NotDelivered,
    SlotAssigned,
    SlotCleared,
    TaskPlanned,
    UnknownEvent,
    WorkerJoined,
    WorkerLost,
)
from taskyard.contracts.fleet import GONE_KEPT_MAX, OfWorker, WorkerState, joined
from taskyard.contracts.incarnations import continues
from taskyard.contracts.lifecycle import ATTEMPT_OPEN, ON_WORKER, Phase, TaskRecord, Verdict
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import Instant, Position, TaskId, seconds
from taskyard.dispatcher.delivery import Deliveries
from taskyard.machine.aside import ASIDE_SECONDS
from taskyard.machine.deadlines import Deadlines
from taskyard.machine.machine import Fault

TIMEOUT_SLACK_SECONDS = 2.0
"""The agent enforces the timeout first; the dispatcher does when it has heard nothing so much later."""

TIMEOUTS_SPARE = 1_000
"""Deadlines of attempts that are over which may be kept at least."""


CLOSING_MAX = 10_000
"""Tasks that were ended by force and are remembered until their workers have told their end; of more the first are forgotten."""

_OF_WORKERS = frozenset(get_args(OfWorker))
Told = AttemptSucceeded | AttemptFailed | AttemptLost | NotDelivered | TaskPlanned
_TOLD = frozenset(get_args(Told))

Timeout = tuple[Instant, TaskId, int, bool]
"""When an attempt has run out of time, and whether it had begun: to begin and to end have deadlines of their own."""


class Saved(Struct, frozen=True, kw_only=True):
    """The snapshot of the state; `folded` is the position of the last event."""

    tasks: list[TaskRecord]
    folded: Position
    closing: list[TaskRecord] = []
    workers: list[WorkerState] = []
    untold: dict[TaskId, dict[int, str]] = {}


class DispatcherState:
    """What the dispatcher knows from the log."""

    def __init__(self) -> None:
        self.tasks = TaskTable()
        self.deliveries = Deliveries(is_open=False, began=Position(0))
        self.timeouts: list[Timeout] = []
        """A heap; what is over is taken off when it comes first, or when there is too much of it."""
        self.to_begin: dict[TaskId, Timeout] = {}
        """Those of attempts that have yet to begin, in order: all have the same time for that."""
        self.untold: dict[TaskId, dict[int, str]] = {}
        """Which worker was given which attempt of a live task, as long as nobody has told its end."""
        self.closing: dict[TaskId, TaskRecord] = {}
        """Tasks that were ended by force, whose workers have not told yet that nothing of them lives."""
        self.workers: dict[str, WorkerState] = {}
        """Workers that are not lost."""
        self.gone: dict[str, WorkerState] = {}
        """Those that are, the last one last: who takes the name of one has replaced it."""
        self._leads = False
        self.folded = Position(0)

    def record(self, task: TaskId) -> TaskRecord | None:
        """The record of a task that lives, or of which something may live."""
        return self.tasks.live.get(task) or self.closing.get(task)

    def worker(self, name: str) -> WorkerState | None:
        """The worker of that name, or the last one of it that was lost."""
        return self.workers.get(name) or self.gone.get(name)

    def apply(self, event: AnyEvent | UnknownEvent, at: Instant, position: Position) -> None:
        """Fold one event."""
        self.folded = position
        kind = type(event)
        for change in self.tasks.apply(event, at, position):
            record = change.record
            if kind in _TOLD:
                self._told(cast("Told", event))
            if record is None or change.verdict is not Verdict.EFFECTIVE:
                continue
            if kind is SlotAssigned:
                assigned = cast("SlotAssigned", event)
                self.untold.setdefault(record.id, {})[assigned.attempt] = assigned.worker
            if kind is WorkerJoined:
                self._ask(record)
            elif record.phase is not change.before:
                self._phase_changed(record)
                if kind is ForceStopped and change.before in ATTEMPT_OPEN:
                    self._close(record)
        if kind in _OF_WORKERS:
            self._of_worker(cast("OfWorker", event))

    def _told(self, event: Told) -> None:
        untold = self.untold.get(event.task)
        if untold is not None:
            untold.pop(event.attempt, None)

    def _close(self, record: TaskRecord) -> None:
        known = self.workers.get(record.worker or "")
        if known is not None and known.incarnation != record.incarnation:
            return  # it was on another host of that name, which has to go anyway
        self.closing[record.id] = record
        self.deliveries.owe_stop(record)
        while len(self.closing) > CLOSING_MAX:
            self._closed(next(iter(self.closing)))

    def _closed(self, task: TaskId) -> None:
        if self.closing.pop(task, None) is not None:
            self.deliveries.settle(task)

    def _of_worker(self, event: OfWorker) -> None:
        known = self.worker(event.worker)
        if isinstance(event, SlotCleared):
            self._closed(event.task)
        elif not isinstance(event, WorkerJoined):
            if known is not None and known.change(event) and isinstance(event, WorkerLost):
                self._lost(known)
        elif (state := joined(event, known)) is not None:
            self.gone.pop(event.worker, None)
            self.workers[event.worker] = state
            for record in [one for one in self.closing.values() if one.worker == event.worker]:
                if continues(event, record.incarnation):
                    record.incarnation = event.incarnation
                    self.deliveries.owe_stop(record)
                else:  # another host has nothing of it
                    self._closed(record.id)

    def _lost(self, worker: WorkerState) -> None:
        self.workers.pop(worker.name, None)
        self.gone[worker.name] = worker
        if len(self.gone) > GONE_KEPT_MAX:
            del self.gone[next(iter(self.gone))]

    def _phase_changed(self, record: TaskRecord) -> None:
        phase = record.phase
        self.to_begin.pop(record.id, None)
        if phase not in ATTEMPT_OPEN:
            self.deliveries.settle(record.id)
            if record.has_ended:
                self.untold.pop(record.id, None)
        elif phase is Phase.ASSIGNED:
            self.deliveries.owe_assignment(record)
        elif phase in ON_WORKER:
            self.deliveries.settle_delivery(record.id)
            self._watch(record)
        elif phase is Phase.STOPPING:
            self.deliveries.owe_stop(record)
        # What is held stays owed: what became of an assignment that is on its way may still show.

    def _ask(self, record: TaskRecord) -> None:
        """What became of an attempt is not certain: ask its worker, whose memory answers."""
        if record.phase in ON_WORKER:
            self.deliveries.owe_again(record)
        elif record.phase is Phase.STOPPING:
            self.deliveries.owe_stop(record)

    def _watch(self, record: TaskRecord) -> None:
        limit = _limit(record)
        if not self._leads or limit is None:
            return
        if len(self.timeouts) > 2 * len(self.tasks.live) + TIMEOUTS_SPARE:
            # Attempts end long before their deadline: what is over must not pile up until then.
            self.timeouts = [timeout for timeout in self.timeouts if self._is_current(timeout)]
            heapify(self.timeouts)
        since, duration_seconds = limit
        deadline = Instant(since + seconds(duration_seconds))
        if _has_begun(record):
            heappush(self.timeouts, (deadline, record.id, record.attempt, True))
        else:
            self.to_begin[record.id] = (deadline, record.id, record.attempt, False)

    def _is_current(self, timeout: Timeout) -> bool:
        _, task, attempt, has_begun = timeout
        record = self.tasks.live.get(task)
        if record is None or record.attempt != attempt or record.phase not in ATTEMPT_OPEN:
            return False
        return _has_begun(record) == has_begun

    def _first_timeout(self) -> Timeout | None:
        first = self.timeouts[0] if self.timeouts else None
        to_begin = next(iter(self.to_begin.values()), None)
        return min(first, to_begin) if first and to_begin else first or to_begin

    def _drop(self, first: Timeout) -> None:
        """Take the first timeout off its list."""
        if self.to_begin.get(first[1]) == first:
            del self.to_begin[first[1]]
        else:
            heappop(self.timeouts)

    def _put_off(self, first: Timeout, deadline: Instant) -> None:
        self._drop(first)
        heappush(self.timeouts, (deadline, *first[1:]))

    def pop_timeout(self, now: Instant, deadlines: Deadlines) -> TaskRecord | None:
        """The next task whose attempt has run out of time, whatever its worker had said until then, taken off the list."""
        while (first := self._first_timeout()) is not None and first[0] <= now:
            record = self.tasks.live.get(first[1])
            limit = _limit(record) if record is not None and self._is_current(first) else None
            if record is None or limit is None or record.phase is Phase.STOPPING:
                self._drop(first)
                continue
            deadline = deadlines.after(*limit)
            if deadline > now:  # the clock was set forward since it began
                self._put_off(first, deadline)
            elif deadlines.is_read(deadline):
                self._drop(first)
                return record
            else:
                return None
        return None

    def put_off_timeout(self, now: Instant, error: Exception) -> Fault:
        """Looking at the next timeout raised: it stands aside for a while."""
        first = self._first_timeout()
        assert first is not None
        self._put_off(first, Instant(now + seconds(ASIDE_SECONDS)))
        _, task, attempt, _ = first
        return Fault(f"deadline of attempt {attempt} of task {task}", error)

    def next_deadline(self, deadlines: Deadlines) -> Instant | None:
        """The next timeout, or the next message that has to be sent again."""
        sends = self.deliveries.next_deadline
        while self.timeouts and not self._is_current(self.timeouts[0]):
            heappop(self.timeouts)
        first = None if deadlines.waits else self._first_timeout()
        timeout = first[0] if first is not None else None
        if sends is None or timeout is None:
            return sends if timeout is None else timeout
        return min(sends, timeout)

    def stand_by(self) -> None:
        """Remember nothing to do."""
        self._leads = False
        self.timeouts, self.to_begin = [], {}
        self.deliveries = Deliveries(is_open=False, began=Position(0))

    def lead(self) -> None:
        """Look at everything once, as a new leader does: what is not answered in the log is sent again."""
        self.deliveries = Deliveries(is_open=True, began=self.folded)
        self._leads = True
        self.timeouts, self.to_begin = [], {}
        for record in self.tasks.live.values():
            self._ask(record)
        is_open = [record for record in self.tasks.live.values() if record.phase in ATTEMPT_OPEN]
        for record in sorted(is_open, key=lambda record: record.dispatched_at or 0):
            self._watch(record)
        for record in self.closing.values():
            self.deliveries.owe_stop(record)

    def saved(self) -> Saved:
        """The state for a snapshot."""
        return Saved(
            tasks=list(self.tasks.live.values()),
            folded=self.folded,
            closing=list(self.closing.values()),
            workers=[*self.workers.values(), *self.gone.values()],
            untold=self.untold,
        )

    @classmethod
    def restored(cls, saved: Saved) -> "DispatcherState":
        """The state of a snapshot."""
        state = cls()
        state.tasks = TaskTable(saved.tasks)
        state.folded = saved.folded
        state.untold = saved.untold
        state.closing = {record.id: record for record in saved.closing}
        for worker in saved.workers:
            (state.gone if worker.is_lost else state.workers)[worker.name] = worker
        return state


def _has_begun(record: TaskRecord) -> bool:
    return record.started_at is not None


def _limit(record: TaskRecord) -> tuple[Instant, float] | None:
    """Since when the attempt has how many seconds, to begin or to end; None: its time does not run."""
    if record.started_at is not None:
        return record.started_at, record.timeout_seconds + TIMEOUT_SLACK_SECONDS
    if record.phase is Phase.DISPATCHED and record.dispatched_at is not None:
        return record.dispatched_at, START_SECONDS_MAX
    return None
