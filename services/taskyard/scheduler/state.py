"""The scheduler's state: a fold of the log, and nothing else.

`apply` keeps tasks, workers, settings and known ids, and tells the agenda what a change touched. It never decides.
"""

from collections.abc import Sequence
from typing import cast, get_args

from msgspec import Struct

from taskyard.contracts.commands import Answer
from taskyard.contracts.events import (
    AnyEvent,
    ApplyConfirmed,
    ApplyDiscarded,
    CommandRejected,
    PoolConfigured,
    QueueUnlocked,
    RefusalsCounted,
    TaskSubmitted,
    UnknownEvent,
    WorkerDrainRequested,
)
from taskyard.contracts.fleet import Fleet, Worker
from taskyard.contracts.lifecycle import DISCARDED, ON_WORKER, Phase, TaskRecord, Verdict
from taskyard.contracts.queues import SETTINGS_EVENTS, SettingsEvent, SettingsTable
from taskyard.contracts.tasks import Change, TaskTable
from taskyard.contracts.values import POOL_DEFAULT, Instant, Position, TaskId, seconds
from taskyard.contracts.verbs import SUBMIT
from taskyard.scheduler.agenda import ANSWER_BY, DUE, START_BY, Agenda
from taskyard.scheduler.answers import Answers, answer_of
from taskyard.scheduler.counting import Counting, Shares
from taskyard.scheduler.known import KnownIds, SavedIds
from taskyard.scheduler.messages import UNAVAILABLE, lost_worker
from taskyard.scheduler.names import QueueNames
from taskyard.scheduler.pools import (
    Pool,
    Queue,
    SavedPool,
    SavedQueue,
    restore_pool,
    restore_queue,
    save_pool,
    save_queue,
)
from taskyard.scheduler.workspaces import Workspaces

_WITH_COMMAND = frozenset(event for event in get_args(AnyEvent) if "command" in event.__struct_fields__)


class Saved(Struct, frozen=True, kw_only=True):
    """The snapshot of the state, with the counts of pools and queues."""

    tasks: list[TaskRecord]
    workers: list[Worker]
    pools: list[SavedPool]
    queues: list[SavedQueue]
    known: SavedIds
    queue_names: list[tuple[str, str]] | None = None
    refusal_shares: dict[str, Instant] = {}


class SchedulerState:
    """What the scheduler knows from the log."""

    def __init__(self) -> None:
        self.tasks = TaskTable()
        self.fleet = Fleet()
        self.settings = SettingsTable(Pool, Queue)
        self.workspaces = Workspaces()
        self.queue_names = QueueNames()
        self.known = KnownIds()
        self.refusal_shares = Shares()
        self.agenda = Agenda(is_open=False)
        self.answers = Answers()
        self.counting = Counting()

    def apply(self, event: AnyEvent | UnknownEvent, at: Instant, position: Position) -> None:
        """Fold one event."""
        changes = self.tasks.apply(event, at, position)
        worker = self.fleet.apply(event, changes)
        if worker is not None and worker in self.fleet.workers:
            pool = self.settings.pool(self.fleet.workers[worker].pool)  # it comes to be with its first worker
            self.agenda.touch(pool.name)
        for change in changes:
            if change.record is not None and change.verdict is Verdict.EFFECTIVE:
                self._task_changed(change, change.record)
        kind = type(event)
        if kind in _WITH_COMMAND:  # few of the events of a task
            self._remember(event, changes, at, position)
            if kind in SETTINGS_EVENTS:
                self._configure(cast("SettingsEvent", event), at)
        elif kind is RefusalsCounted:
            self.answers.settle_counted(cast("RefusalsCounted", event).by)

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def _task_changed(self, change: Change, record: TaskRecord) -> None:
        if change.before in ON_WORKER and record.phase in ON_WORKER:
            return  # delivered or started: it changes nothing of what may run
        settings = self.settings
        pool, queue = settings.pool(record.pool), settings.queue(record.pool, record.queue)
        if record.holds_workspace:
            self.workspaces.take(record)
        self._count(pool, queue, record, change)
        if change.before is None:
            self._must_start(record)
        if record.phase is Phase.PENDING:  # also with another priority, which is another place
            self._pending(record)
        elif record.is_apply_waiting:
            self._confirmed(record)
        elif record.phase is Phase.APPLY_PENDING:
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

    def _pending(self, record: TaskRecord) -> None:
        if record.due:
            self.agenda.set_timer(record.due, DUE, record.id)
        else:
            self.agenda.wait(record)

    def _confirmed(self, record: TaskRecord) -> None:
        if record.due:
            self.agenda.set_timer(record.due, DUE, record.id)
        else:
            self.agenda.offer_apply(record)

    def _must_start(self, record: TaskRecord) -> None:
        limit = record.schedule_to_start_timeout_seconds
        if limit is not None and record.attempt == 0:
            self.agenda.set_timer(Instant(record.submitted_at + seconds(limit)), START_BY, record.id)

    def _planned(self, record: TaskRecord, pool: Pool) -> None:
        if record.auto_confirm:
            self.agenda.confirm_by_itself(record.id)
        elif record.planned_at is not None:
            expires = Instant(record.planned_at + seconds(pool.approval_seconds))
            self.agenda.set_timer(expires, ANSWER_BY, record.id)

    def _ended(self, record: TaskRecord, queue: Queue) -> None:
        if self.workspaces.leave(record):
            self._reopen_workspace(record.queue)
        self._forget_if_plain(queue)
        was_discarded = record.error is not None and record.error.code == DISCARDED
        self.known.tasks.ended(record.id, record.status, was_discarded=was_discarded)

    # -- ids and outcomes ----------------------------------------------------------------------------------------------

    def _remember(
        self, event: AnyEvent | UnknownEvent, changes: Sequence[Change], at: Instant, position: Position
    ) -> None:
        if isinstance(event, TaskSubmitted):
            self.queue_names.add(event.pool, event.queue)
            self.known.tasks.remember(event.task, digest=event.digest, by=event.by, position=position, at=at)
            if event.command is not None and event.asked is not None:  # a retry
                made = Answer(code=202, id=event.task, position=position)
                self.known.commands.remember(event.command, made, at, by=event.by, asked=event.asked)
            if self.answers.is_awaited(event.task):
                self.answers.settle(event.task, Answer(code=202, id=event.task, position=position))
            return
        if isinstance(event, ApplyConfirmed | ApplyDiscarded) and changes[0].verdict is Verdict.EFFECTIVE:
            confirmed = event.attempt if isinstance(event, ApplyConfirmed) else 0
            self.known.tasks.plan_confirmed(event.task, confirmed)
        command = getattr(event, "command", None)
        if command is None:
            return
        answer = answer_of(event, changes, self.known.tasks, position)
        if isinstance(event, WorkerDrainRequested) and not self._is_drained(event.worker):
            answer = lost_worker(event.worker).answer()
        if isinstance(event, CommandRejected):
            self.refusal_shares.wrote(event, at)
            # Who sent it was told; another may have sent it again, corrected.
            # A refused submission may be sent again under its id when the reason is gone, and so may what had to wait.
            if event.verb != SUBMIT and event.code != UNAVAILABLE:
                self.known.commands.remember_rejected(command, answer, at, by=event.by, asked=event.asked)
            return
        by, asked = getattr(event, "by", ""), getattr(event, "asked", None)
        self.known.commands.remember(command, answer, at, by=by, asked=asked)
        self.answers.settle(command, answer)

    def _is_drained(self, name: str) -> bool:
        worker = self.fleet.workers.get(name)
        return worker is not None and worker.is_draining

    # -- settings ------------------------------------------------------------------------------------------------------

    def _configure(self, event: SettingsEvent, at: Instant) -> None:
        unlocked = self.settings.unlocked_by(event) if isinstance(event, QueueUnlocked) else ()
        self.settings.apply(event, at)
        if not isinstance(event, PoolConfigured) and event.queue is not None:
            self.queue_names.add(event.pool, event.queue)
        if isinstance(event, PoolConfigured):
            if event.approval_timeout_seconds is not None:
                self._watch_approvals(self.settings.pool(event.pool))
        elif event.queue is None:
            self.agenda.touch(event.pool)
        else:
            self.agenda.reopen(event.pool, event.queue)
            self._reopen_workspace(event.queue)
            for pool in (event.pool, *unlocked):
                self._forget_if_plain(self.queue(pool, event.queue))

    def _reopen_workspace(self, name: str) -> None:
        """What held back the tasks that lock this queue may be over, an apply that was confirmed among them."""
        self.agenda.reopen_workspace(name)
        holder = self.tasks.live.get(self.workspaces.holder(name) or TaskId(""))
        if holder is not None and holder.is_apply_waiting:
            self.agenda.offer_apply(holder)

    def _forget_if_plain(self, queue: Queue) -> None:
        if queue.is_plain:
            self.settings.queues.pop((queue.pool, queue.name), None)

    def _watch_approvals(self, pool: Pool) -> None:
        """Plans that wait may now expire earlier than their timers say."""
        for record in self.tasks.live.values():
            if record.phase is Phase.APPLY_PENDING and not record.confirmed and record.pool == pool.name:
                self._planned(record, pool)

    # -- reading -------------------------------------------------------------------------------------------------------

    @property
    def pools(self) -> dict[str, Pool]:
        """Every pool that an event has named."""
        return self.settings.pools

    def has_pool(self, name: str) -> bool:
        """Whether the pool exists: somebody has configured it or a worker of it has joined; the default one always does."""
        return name == POOL_DEFAULT or name in self.settings.pools

    @property
    def queues(self) -> dict[tuple[str, str], Queue]:
        """Queues by pool and name; one about which there is nothing to know is forgotten."""
        return self.settings.queues

    def pool(self, name: str) -> Pool:
        """The pool of this name; as any that begins, if no event has named it."""
        return self.settings.pools.get(name) or Pool(name=name)

    def queue(self, pool: str, name: str) -> Queue:
        """The queue of this name in the pool; as any that begins, if there is nothing to know about it."""
        return self.settings.queues.get((pool, name)) or Queue(pool=pool, name=name)

    # -- leading and snapshots -----------------------------------------------------------------------------------------

    def stand_by(self) -> None:
        """Remember nothing to decide."""
        self.agenda = Agenda(is_open=False)
        self.answers = Answers()
        self.counting = Counting()

    def lead(self) -> None:
        """Look at everything once; nobody waits yet."""
        self.answers = Answers()
        self.counting.look_anew()
        self._make_agenda()

    def look_again(self) -> None:
        """The last decision does not stand: look at everything once more. Who waited before it still does."""
        self.answers.take_back()
        self.counting.take_back()
        self._make_agenda()

    def _make_agenda(self) -> None:
        self.agenda = Agenda(is_open=True)
        for record in self.tasks.live.values():
            self._must_start(record)
            if record.phase is Phase.PENDING:
                self._pending(record)
            elif record.is_apply_waiting:
                self._confirmed(record)
            elif record.phase is Phase.APPLY_PENDING:
                self._planned(record, self.pool(record.pool))
        for pool in self.pools:
            self.agenda.touch(pool)

    def saved(self) -> Saved:
        """The state for a snapshot."""
        return Saved(
            tasks=list(self.tasks.live.values()),
            workers=list(self.fleet.workers.values()),
            pools=[save_pool(pool) for pool in self.pools.values()],
            queues=[save_queue(queue) for queue in self.queues.values()],
            known=self.known.saved(),
            queue_names=self.queue_names.saved(),
            refusal_shares=self.refusal_shares.whole_at,
        )

    @classmethod
    def restored(cls, saved: Saved) -> "SchedulerState":
        """The state of a snapshot. Raises `ValueError` if it is none."""
        state = cls()
        state.tasks = TaskTable(saved.tasks)
        state.workspaces = Workspaces(saved.tasks)
        state.fleet = Fleet(saved.workers)
        state.known = KnownIds.restored(saved.known)
        state.refusal_shares = Shares(saved.refusal_shares)
        pools, queues = map(restore_pool, saved.pools), map(restore_queue, saved.queues)
        state.settings = SettingsTable(Pool, Queue, pools, queues)
        for worker in saved.workers:  # a snapshot of an earlier version lacks pools that workers alone have named
            state.settings.pool(worker.pool)
        if saved.queue_names is None:
            live = ((record.pool, record.queue) for record in saved.tasks)
            state.queue_names = QueueNames([*state.settings.queues, *live])
        else:
            state.queue_names = QueueNames(saved.queue_names)
        return state
