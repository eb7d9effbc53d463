"""The scheduler's state: a fold of the log, and nothing else.

`apply` keeps tasks, workers, settings and known ids, and tells the agenda what a change touched. It never decides.
"""

from collections.abc import Sequence
from typing import get_args

from msgspec import Struct

from taskyard.contracts.commands import Answer
from taskyard.contracts.events import (
    AnyEvent,
    ApplyConfirmed,
    CommandRejected,
    PoolConfigured,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    QueueUnlocked,
    TaskSubmitted,
    UnknownEvent,
)
from taskyard.contracts.fleet import Fleet, Worker
from taskyard.contracts.lifecycle import DISCARDED, ON_WORKER, Phase, TaskRecord, Verdict
from taskyard.contracts.tasks import Change, TaskTable
from taskyard.contracts.values import Instant, Position, TaskId, seconds
from taskyard.scheduler.agenda import ANSWER_BY, DUE, START_BY, Agenda
from taskyard.scheduler.answers import Answers, answer_of
from taskyard.scheduler.known import KnownIds, SavedIds

APPROVAL_TIMEOUT_SECONDS = 24 * 3600.0
WAITING_MAX = 1_000_000

_WITH_COMMAND = frozenset(event for event in get_args(AnyEvent) if "command" in event.__struct_fields__)
_SETTINGS = frozenset((PoolConfigured, QueueConfigured, QueuePaused, QueueResumed, QueueLocked, QueueUnlocked))


class Pool(Struct, kw_only=True):
    """Settings of a pool, and counts of its live tasks.

    `waiting` counts tasks without a slot; `scheduled` those of each kind among them that may already run.
    """

    name: str
    max_waiting: int = WAITING_MAX
    approval_timeout_seconds: float = APPROVAL_TIMEOUT_SECONDS
    is_paused: bool = False
    waiting: int = 0
    scheduled: dict[str, int] = {}


class Queue(Struct, kw_only=True):
    """Settings of a queue; `admitted` counts its tasks between scheduled and end, `holder` is its exclusive task."""

    pool: str
    name: str
    max_running: int = 0
    is_paused: bool = False
    is_locked: bool = False
    admitted: int = 0
    holder: TaskId | None = None

    @property
    def is_plain(self) -> bool:
        """Whether nothing would be lost by forgetting it."""
        return not (self.max_running or self.is_paused or self.is_locked or self.admitted or self.holder)


class Saved(Struct, frozen=True, kw_only=True):
    """The snapshot of the state, with the counts of pools and queues."""

    tasks: list[TaskRecord]
    workers: list[Worker]
    pools: list[Pool]
    queues: list[Queue]
    known: SavedIds


class SchedulerState:
    """What the scheduler knows from the log."""

    def __init__(self) -> None:
        self.tasks = TaskTable()
        self.fleet = Fleet()
        self.pools: dict[str, Pool] = {}
        self.queues: dict[tuple[str, str], Queue] = {}
        self.known = KnownIds()
        self.agenda = Agenda(is_open=False)
        self.answers = Answers()

    def apply(self, event: AnyEvent | UnknownEvent, at: Instant, position: Position) -> None:
        """Fold one event."""
        changes = self.tasks.apply(event, at, position)
        worker = self.fleet.apply(event, changes)
        if worker is not None and worker in self.fleet.workers:
            self.agenda.touch(self.fleet.workers[worker].pool)
        for change in changes:
            if change.record is not None and change.verdict is Verdict.EFFECTIVE:
                self._task_changed(change, change.record)
        kind = type(event)
        if kind in _WITH_COMMAND:  # few of the events of a task
            self._remember(event, changes, at, position)
            if kind in _SETTINGS:
                self._configure(event)

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def _task_changed(self, change: Change, record: TaskRecord) -> None:
        if change.before in ON_WORKER and record.phase in ON_WORKER:
            return  # delivered or started: it changes nothing of what may run
        pool, queue = self.pool(record.pool), self.queue(record.pool, record.queue)
        self._count(pool, queue, record, change)
        if change.before is None:
            self._must_start(record)
        if record.phase is Phase.PENDING:  # also with another priority, which is another place
            self._pending(record)
        elif record.phase is Phase.APPLY_PENDING and change.before is not Phase.APPLY_PENDING:
            self._planned(record, pool)
        elif record.has_ended:
            self._ended(record, queue)
        self.agenda.touch(record.pool)

    def _count(self, pool: Pool, queue: Queue, record: TaskRecord, change: Change) -> None:
        before, after = change.before, record.phase
        # A scheduled task that holds a slot is an apply: it waits for its own reserved slot and for no other.
        was_scheduled = before is Phase.SCHEDULED and change.held is None
        is_scheduled = after is Phase.SCHEDULED and not record.confirmed
        if was_scheduled != is_scheduled:
            pool.scheduled[record.kind] = pool.scheduled.get(record.kind, 0) + is_scheduled - was_scheduled
        was_waiting = was_scheduled or before is Phase.PENDING
        pool.waiting += (is_scheduled or after is Phase.PENDING) - was_waiting
        was_admitted = before is not None and before is not Phase.PENDING
        is_admitted = after is not Phase.PENDING and not record.has_ended
        queue.admitted += is_admitted - was_admitted
        if was_admitted and not is_admitted and queue.max_running:
            self.agenda.reopen(record.pool, record.queue)
        if queue.holder is None and record.holds_workspace:
            queue.holder = record.id

    def _pending(self, record: TaskRecord) -> None:
        if record.due:
            self.agenda.set_timer(record.due, DUE, record.id)
        else:
            self.agenda.wait(record)

    def _must_start(self, record: TaskRecord) -> None:
        limit = record.schedule_to_start_timeout_seconds
        if limit is not None and record.attempt == 0:
            self.agenda.set_timer(Instant(record.submitted_at + seconds(limit)), START_BY, record.id)

    def _planned(self, record: TaskRecord, pool: Pool) -> None:
        if record.auto_confirm:
            self.agenda.confirm_by_itself(record.id)
        elif record.planned_at is not None:
            expires = Instant(record.planned_at + seconds(pool.approval_timeout_seconds))
            self.agenda.set_timer(expires, ANSWER_BY, record.id)

    def _ended(self, record: TaskRecord, queue: Queue) -> None:
        if queue.holder == record.id:
            queue.holder = None
            self.agenda.reopen(queue.pool, queue.name)
        if queue.is_plain:
            self.queues.pop((queue.pool, queue.name), None)
        was_discarded = record.error is not None and record.error.code == DISCARDED
        self.known.tasks.ended(record.id, record.status, was_discarded=was_discarded)

    # -- ids and outcomes ----------------------------------------------------------------------------------------------

    def _remember(
        self, event: AnyEvent | UnknownEvent, changes: Sequence[Change], at: Instant, position: Position
    ) -> None:
        if isinstance(event, TaskSubmitted):
            self.known.tasks.remember(event.task, digest=event.digest, by=event.by, position=position, at=at)
            if self.answers.is_awaited(event.task):
                self.answers.settle(event.task, Answer(code=202, id=event.task, position=position))
            return
        if isinstance(event, ApplyConfirmed) and changes[0].verdict is Verdict.EFFECTIVE:
            self.known.tasks.plan_confirmed(event.task, event.attempt)
        command = getattr(event, "command", None)
        if command is None:
            return
        answer = answer_of(event, changes, self.known.tasks, position)
        # A refused submission may be sent again under its id when the reason is gone.
        if not (isinstance(event, CommandRejected) and event.verb == "submit"):
            self.known.commands.remember(command, answer, at)
        if not isinstance(event, CommandRejected):  # who sent it was told; another may have sent it again, corrected
            self.answers.settle(command, answer)

    # -- settings ------------------------------------------------------------------------------------------------------

    def _configure(self, event: AnyEvent | UnknownEvent) -> None:
        match event:
            case PoolConfigured():
                pool = self.pool(event.pool)
                if event.max_waiting is not None:
                    pool.max_waiting = event.max_waiting
                if event.approval_timeout_seconds is not None:
                    pool.approval_timeout_seconds = event.approval_timeout_seconds
                    self._watch_approvals(pool)
            case QueueConfigured():
                if event.max_running is not None:
                    self.queue(event.pool, event.queue).max_running = event.max_running
                    self.agenda.reopen(event.pool, event.queue)
            case QueuePaused() | QueueResumed():
                self._pause(event.pool, event.queue, is_paused=isinstance(event, QueuePaused))
            case QueueLocked() | QueueUnlocked():
                self.queue(event.pool, event.queue).is_locked = isinstance(event, QueueLocked)
                self.agenda.reopen(event.pool, event.queue)
            case _:
                pass

    def _watch_approvals(self, pool: Pool) -> None:
        """Plans that wait may now expire earlier than their timers say."""
        for record in self.tasks.live.values():
            if record.phase is Phase.APPLY_PENDING and record.pool == pool.name:
                self._planned(record, pool)

    def _pause(self, pool: str, queue: str | None, *, is_paused: bool) -> None:
        if queue is None:
            self.pool(pool).is_paused = is_paused
            self.agenda.touch(pool)
        else:
            self.queue(pool, queue).is_paused = is_paused
            self.agenda.reopen(pool, queue)

    # -- reading -------------------------------------------------------------------------------------------------------

    def pool(self, name: str) -> Pool:
        """The pool of this name; it comes to be when it is first named."""
        pool = self.pools.get(name)
        if pool is None:
            pool = self.pools[name] = Pool(name=name)
        return pool

    def queue(self, pool: str, name: str) -> Queue:
        """The queue of this name in the pool; it comes to be when it is first named."""
        queue = self.queues.get((pool, name))
        if queue is None:
            queue = self.queues[(pool, name)] = Queue(pool=pool, name=name)
        return queue

    # -- leading and snapshots -----------------------------------------------------------------------------------------

    def stand_by(self) -> None:
        """Remember nothing to decide."""
        self.agenda = Agenda(is_open=False)
        self.answers = Answers()

    def make_agenda(self) -> None:
        """Look at everything once, as a new leader does."""
        self.agenda = Agenda(is_open=True)
        self.answers = Answers()
        for record in self.tasks.live.values():
            self._must_start(record)
            if record.phase is Phase.PENDING:
                self._pending(record)
            elif record.phase is Phase.APPLY_PENDING:
                self._planned(record, self.pool(record.pool))
        for pool in self.pools:
            self.agenda.touch(pool)

    def saved(self) -> Saved:
        """The state for a snapshot."""
        return Saved(
            tasks=list(self.tasks.live.values()),
            workers=list(self.fleet.workers.values()),
            pools=list(self.pools.values()),
            queues=list(self.queues.values()),
            known=self.known.saved(),
        )

    @classmethod
    def restored(cls, saved: Saved) -> "SchedulerState":
        """The state of a snapshot. Raises `ValueError` if it is none."""
        state = cls()
        state.tasks = TaskTable(saved.tasks)
        state.fleet = Fleet(saved.workers)
        state.known = KnownIds.restored(saved.known)
        state.pools = {pool.name: pool for pool in saved.pools}
        state.queues = {(queue.pool, queue.name): queue for queue in saved.queues}
        return state
