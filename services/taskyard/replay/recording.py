"""Reads off a log what was asked for and when, who was there, and how long everything took. Pure."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from msgspec import Struct

from taskyard.api.past.state import PastState, end_of
from taskyard.contracts.events import (
    ApplyConfirmed,
    ApplyDiscarded,
    AttemptFailed,
    AttemptReleased,
    AttemptSucceeded,
    Changes,
    ForceStopped,
    PoolConfigured,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    QueueUnlocked,
    SlotAssigned,
    TaskPlanned,
    TaskReprioritised,
    TaskStarted,
    TaskStopRequested,
    TaskSubmitted,
    WorkerDrainRequested,
    WorkerJoined,
    WorkerLost,
)
from taskyard.contracts.lifecycle import ON_WORKER, Phase, TaskRecord, Verdict
from taskyard.contracts.tasks import Change
from taskyard.contracts.values import SECOND, Instant, TaskId, make_position
from taskyard.eventlog.commit import StoredCommit
from taskyard.replay.recorded import (
    Asked,
    Outcome,
    RecordedTask,
    RecordedWorker,
    Recording,
    Run,
    Setting,
    carried_over,
    submitted,
)

SETTINGS = (
    PoolConfigured,
    QueueConfigured,
    QueuePaused,
    QueueResumed,
    QueueLocked,
    QueueUnlocked,
    WorkerDrainRequested,
)

HOP_SECONDS_MAX = 1.0
"""A hop that took longer tells of trouble, or of a pool that was full, and not of how fast decisions are."""
_NO_CHANGES = Changes()


class _Open(Struct):
    """The attempt of a task that is under way."""

    assigned: Instant
    started: Instant | None = None


class Recorder:
    """Reads a log from the state before it on, commit by commit."""

    def __init__(self, before: PastState) -> None:
        self.state = before
        self._tasks: dict[TaskId, RecordedTask] = {}
        self._open: dict[TaskId, _Open] = {}
        self._planned: dict[TaskId, Instant] = {}
        self._settings: list[Setting] = []
        self._workers: dict[str, RecordedWorker] = {}
        self._began: Instant | None = None
        self._hops: list[int] = []
        self._carried = list(before.tasks.live.values())

    def see(self, stored: StoredCommit[Any]) -> None:
        """Read the next commit."""
        if self._began is None:
            self._begin(stored.at)
        for index, event in enumerate(stored.commit.events):
            before = self._phase(event)
            changes = self.state.apply(event, stored.at, make_position(stored.sequence, index))
            self._take(event, stored.at, before, changes)
        self.state.fold(stored, end_of(stored.sequence))

    def recording(self) -> Recording:
        """What was read."""
        for task, attempt in self._open.items():
            if attempt.started is not None:  # it ran on when the stretch ended
                self._ran(task, attempt, self.state.at, None, is_cut=True)
        return Recording(
            began=self._began or self.state.at,
            ended=self.state.at,
            tasks=sorted(self._tasks.values(), key=lambda task: task.order),
            settings=self._settings,
            workers=list(self._workers.values()),
            typical=_typical(self._tasks.values()),
            hop_seconds=min(median(self._hops) / SECOND, HOP_SECONDS_MAX) if self._hops else 0.0,
        )

    # -- the state before the stretch ----------------------------------------------------------------------------------

    def _begin(self, at: Instant) -> None:
        self._began = at
        for name, worker in self.state.workers.items():
            if not worker.is_lost:
                self._workers[name] = RecordedWorker(
                    name=name, pool=worker.pool, slots=worker.slots, kinds=worker.kinds, joined=at
                )
        # Those that had a slot already come first, since they had it: the others in the order of their submission.
        for record in sorted(self._carried, key=lambda record: (not record.holds_slot, record.submitted)):
            self._tasks[record.id] = carried_over(record, at, len(self._tasks))
            if record.phase in ON_WORKER:
                self._open[record.id] = _Open(at, at)
            elif record.phase is Phase.APPLY_PENDING:
                self._planned[record.id] = at
                planned = TaskPlanned(task=record.id, attempt=1, changes=record.changes or _NO_CHANGES)
                self._tasks[record.id].runs.append(Run(start_seconds=0.0, run_seconds=0.0, outcome=planned))
        self._settings += [Setting(at=at, event=event) for event in settings_of(self.state)]

    # -- events --------------------------------------------------------------------------------------------------------

    def _phase(self, event: Any) -> Phase | None:
        record = self.state.tasks.live.get(TaskId(getattr(event, "task", None) or ""))
        return None if record is None else record.phase

    def _take(self, event: Any, at: Instant, before: Phase | None, changes: Sequence[Change]) -> None:
        if isinstance(event, SETTINGS):
            self._settings.append(Setting(at=at, event=event))
        elif isinstance(event, WorkerJoined):
            self._joined(event, at)
        elif isinstance(event, WorkerLost) and (worker := self._workers.get(event.worker)) is not None:
            worker.left = at
        for change in changes:
            if change.record is not None and change.verdict is Verdict.EFFECTIVE:
                self._task_changed(event, at, before, change.record)

    def _joined(self, event: WorkerJoined, at: Instant) -> None:
        known = self._workers.get(event.worker)
        self._workers[event.worker] = RecordedWorker(
            name=event.worker,
            pool=event.pool,
            slots=event.slots,
            kinds=event.kinds,
            joined=known.joined if known is not None else at,
        )

    def _task_changed(self, event: Any, at: Instant, before: Phase | None, record: TaskRecord) -> None:
        id = record.id
        match event:
            case TaskSubmitted():
                self._tasks[id] = submitted(event, at, len(self._tasks))
            case SlotAssigned():
                self._open[id] = _Open(at)
                if not record.confirmed and record.scheduled_at is not None:
                    self._hops.append(at - record.scheduled_at)
            case TaskStarted():
                if (attempt := self._open.get(id)) is not None:
                    attempt.started = at
            case TaskPlanned() | AttemptSucceeded() | AttemptFailed():
                if isinstance(event, TaskPlanned):
                    self._planned[id] = at
                if (attempt := self._open.pop(id, None)) is not None:
                    self._ran(id, attempt, at, None if before is Phase.STOPPING else event)
            case TaskStopRequested(cause="cancel") | ForceStopped() | AttemptReleased():
                # A replay loses nobody: what was given up then is ended by force.
                verb = "cancel" if isinstance(event, TaskStopRequested) else "force-stop"
                self._asked(id, verb, event.by, at, before)
                self._stopped(id, at)
            case TaskStopRequested():
                self._stopped(id, at)
            case ApplyConfirmed() | ApplyDiscarded() if event.by != "auto":
                self._asked(id, "confirm" if isinstance(event, ApplyConfirmed) else "discard", event.by, at, before)
            case TaskReprioritised():
                self._tasks[id].asked.append(
                    Asked(verb="reprioritise", by=event.by, since="", seconds=0.0, at=at, priority=event.priority)
                )
            case _:
                if record.phase is Phase.PENDING or record.has_ended:
                    self._open.pop(id, None)  # lost or not delivered: it tells nothing of how long the work takes

    def _stopped(self, id: TaskId, at: Instant) -> None:
        attempt = self._open.pop(id, None)
        if attempt is not None:
            self._ran(id, attempt, at, None)

    def _ran(self, id: TaskId, attempt: _Open, at: Instant, outcome: Outcome | None, *, is_cut: bool = False) -> None:
        started = attempt.started if attempt.started is not None else at
        run = Run(
            start_seconds=max(0, started - attempt.assigned) / SECOND,
            run_seconds=max(0, at - started) / SECOND,
            outcome=outcome,
            is_cut=is_cut,
            has_started=attempt.started is not None,
        )
        self._tasks[id].runs.append(run)

    def _asked(self, id: TaskId, verb: str, by: str, at: Instant, before: Phase | None) -> None:
        since, origin = "", at
        attempt = self._open.get(id)
        if before is Phase.APPLY_PENDING and id in self._planned:
            since, origin = "plan", self._planned[id]
        elif attempt is not None and attempt.started is not None:
            since, origin = "start", attempt.started
        self._tasks[id].asked.append(Asked(verb=verb, by=by, since=since, seconds=(at - origin) / SECOND, at=at))


def settings_of(state: PastState) -> Iterable[Any]:
    """The events that would make the settings of a state."""
    for pool in state.pools.values():
        yield PoolConfigured(
            pool=pool.name,
            by="replay",
            max_waiting=pool.max_waiting,
            approval_timeout_seconds=pool.approval_timeout_seconds,
            placement=pool.placement,
        )
        if pool.paused is not None:
            yield QueuePaused(pool=pool.name, by=pool.paused.by, reason=pool.paused.reason)
    for queue in state.queues.values():
        if queue.max_running is not None:
            yield QueueConfigured(pool=queue.pool, queue=queue.name, by="replay", max_running=queue.max_running)
        if queue.paused is not None:
            yield QueuePaused(pool=queue.pool, queue=queue.name, by=queue.paused.by, reason=queue.paused.reason)
        if queue.locked is not None:
            yield QueueLocked(pool=queue.pool, queue=queue.name, by=queue.locked.by, reason=queue.locked.reason)


def _typical(tasks: Iterable[RecordedTask]) -> dict[str, float]:
    runs: dict[str, list[float]] = {}
    for task in tasks:
        for run in task.runs:
            if run.outcome is not None:
                runs.setdefault(task.kind, []).append(run.run_seconds)
    return {kind: median(seconds) for kind, seconds in runs.items()}
