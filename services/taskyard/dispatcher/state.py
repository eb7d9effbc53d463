"""The dispatcher's state: a fold of the log.

`apply` keeps live tasks, and tells the caches what has to be sent, and which deadlines run.
"""

from heapq import heapify, heappop, heappush, heapreplace
from typing import cast, get_args

from msgspec import Struct

from taskyard.contracts.events import (
    AnyEvent,
    AttemptFailed,
    AttemptLost,
    AttemptSucceeded,
    ForceStopped,
    SlotCleared,
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
from taskyard.machine.deadlines import Deadlines

TIMEOUT_SLACK_SECONDS = 2.0
"""The agent enforces the timeout first; the dispatcher does when it has heard nothing so much later."""

TIMEOUTS_SPARE = 1_000
"""Deadlines of attempts that are over which may be kept at least."""


CLOSING_MAX = 10_000
"""Tasks that were ended by force and are remembered until their workers have told their end; of more the first are forgotten."""

_OF_WORKERS = frozenset(get_args(OfWorker))


class Saved(Struct, frozen=True, kw_only=True):
    """The snapshot of the state; `folded` is the position of the last event."""

    tasks: list[TaskRecord]
    folded: Position
    closing: list[TaskRecord] = []
    workers: list[WorkerState] = []


class DispatcherState:
    """What the dispatcher knows from the log."""

    def __init__(self) -> None:
        self.tasks = TaskTable()
        self.deliveries = Deliveries(is_open=False, began=Position(0))
        self.timeouts: list[tuple[Instant, TaskId, int]] = []
        self.late_ends: dict[TaskId, set[int]] = {}
        """Earlier attempts of live tasks whose end was told too late, and need not be told again. A snapshot forgets them."""
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
        for change in self.tasks.apply(event, at, position):
            record = change.record
            if record is None or change.verdict is not Verdict.EFFECTIVE:
                if record is not None and isinstance(event, AttemptSucceeded | AttemptFailed | AttemptLost):
                    self.late_ends.setdefault(record.id, set()).add(event.attempt)
                continue
            kind = type(event)
            if kind is WorkerJoined:
                self._ask(record)
            elif record.phase is not change.before:
                self._phase_changed(record)
                if kind is ForceStopped and change.before in ATTEMPT_OPEN:
                    self._close(record)
        if type(event) in _OF_WORKERS:
            self._of_worker(cast("OfWorker", event))

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
        if phase not in ATTEMPT_OPEN:
            self.deliveries.settle(record.id)
            if record.has_ended:
                self.late_ends.pop(record.id, None)
        elif phase is Phase.ASSIGNED:
            self.deliveries.owe_assignment(record)
        elif phase in ON_WORKER:
            self.deliveries.settle_delivery(record.id)
            if phase is Phase.RUNNING:
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
        if not self._leads or record.started_at is None:
            return
        if len(self.timeouts) > 2 * len(self.tasks.live) + TIMEOUTS_SPARE:
            # Attempts end long before their deadline: what is over must not pile up until then.
            self.timeouts = [timeout for timeout in self.timeouts if self._is_current(timeout)]
            heapify(self.timeouts)
        deadline = record.started_at + seconds(record.timeout_seconds + TIMEOUT_SLACK_SECONDS)
        heappush(self.timeouts, (Instant(deadline), record.id, record.attempt))

    def _is_current(self, timeout: tuple[Instant, TaskId, int]) -> bool:
        record = self.tasks.live.get(timeout[1])
        return record is not None and record.attempt == timeout[2] and record.phase in ATTEMPT_OPEN

    def pop_timeout(self, now: Instant, deadlines: Deadlines) -> TaskRecord | None:
        """The next task whose attempt has run out of time, whatever its worker had said until then, taken off the list."""
        while self.timeouts and self.timeouts[0][0] <= now:
            _, task, attempt = self.timeouts[0]
            record = self.tasks.live.get(task)
            is_current = (
                record is not None and record.attempt == attempt and record.phase in (Phase.RUNNING, Phase.HELD)
            )
            if record is None or record.started_at is None or not is_current:
                heappop(self.timeouts)
                continue
            deadline = deadlines.after(record.started_at, record.timeout_seconds + TIMEOUT_SLACK_SECONDS)
            if deadline > now:  # the clock was set forward since it began
                heapreplace(self.timeouts, (deadline, task, attempt))
            elif deadlines.is_read(deadline):
                heappop(self.timeouts)
                return record
            else:
                return None
        return None

    def next_deadline(self, deadlines: Deadlines) -> Instant | None:
        """The next timeout, or the next message that has to be sent again."""
        sends = self.deliveries.next_deadline
        timeout = self.timeouts[0][0] if self.timeouts and not deadlines.waits else None
        if sends is None or timeout is None:
            return sends if timeout is None else timeout
        return min(sends, timeout)

    def stand_by(self) -> None:
        """Remember nothing to do."""
        self._leads = False
        self.timeouts = []
        self.deliveries = Deliveries(is_open=False, began=Position(0))

    def lead(self) -> None:
        """Look at everything once, as a new leader does: what is not answered in the log is sent again."""
        self.deliveries = Deliveries(is_open=True, began=self.folded)
        self._leads = True
        self.timeouts = []
        for record in self.tasks.live.values():
            self._ask(record)
            if record.phase in ATTEMPT_OPEN:
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
        )

    @classmethod
    def restored(cls, saved: Saved) -> "DispatcherState":
        """The state of a snapshot."""
        state = cls()
        state.tasks = TaskTable(saved.tasks)
        state.folded = saved.folded
        state.closing = {record.id: record for record in saved.closing}
        for worker in saved.workers:
            (state.gone if worker.is_lost else state.workers)[worker.name] = worker
        return state
