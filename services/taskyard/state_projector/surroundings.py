"""The fold of what is not a task: settings of queues and pools, workers, and refused commands, as rows. Pure."""

from collections.abc import Iterable
from typing import assert_never, cast, get_args

from taskyard.contracts.events import (
    AnyEvent,
    CommandRejected,
    PoolConfigured,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    QueueUnlocked,
    UnknownEvent,
    WorkerDrainRequested,
    WorkerJoined,
    WorkerLost,
    WorkerRecovered,
    WorkerSuspected,
)
from taskyard.contracts.fleet import join_counts
from taskyard.contracts.values import Instant, Position
from taskyard.state_projector.rows import (
    PoolRow,
    QueueRow,
    Row,
    WorkerRow,
    json_text,
    plain_integer,
    plain_text,
)

_Folded = (
    CommandRejected
    | PoolConfigured
    | QueueConfigured
    | QueuePaused
    | QueueResumed
    | QueueLocked
    | QueueUnlocked
    | WorkerJoined
    | WorkerSuspected
    | WorkerRecovered
    | WorkerLost
    | WorkerDrainRequested
)
SURROUNDING_EVENTS: frozenset[type] = frozenset(get_args(_Folded))
"""The events that mean something here."""


class Surroundings:
    """Queues, pools and workers as the log tells them, and which of them changed since `forget_changes`."""

    def __init__(self, queues: Iterable[QueueRow], pools: Iterable[PoolRow], workers: Iterable[WorkerRow]) -> None:
        self._queues = {(queue.pool, queue.queue): queue for queue in queues}
        self._pools = {pool.pool: pool for pool in pools}
        self._workers = {worker.worker: worker for worker in workers}
        self.forget_changes()

    def fold(self, event: AnyEvent | UnknownEvent, at: Instant, position: Position) -> None:
        """Fold one event of SURROUNDING_EVENTS."""
        self._fold(cast("_Folded", event), at, position)

    def forget_changes(self) -> None:
        """Begin to gather changes anew."""
        # Dicts as ordered sets: the order of rows must not depend on hashes.
        self._touched_queues: dict[tuple[str, str], None] = {}
        self._touched_pools: dict[str, None] = {}
        self._touched_workers: dict[str, None] = {}
        self.rejections: list[Row] = []

    def queue_rows(self) -> list[Row]:
        """Queues that changed."""
        return [self._queues[key].row() for key in self._touched_queues]

    def pool_rows(self) -> list[Row]:
        """Pools that changed."""
        return [self._pools[key].row() for key in self._touched_pools]

    def worker_rows(self) -> list[Row]:
        """Workers that changed."""
        return [self._workers[key].row() for key in self._touched_workers]

    def _fold(self, event: _Folded, at: Instant, position: Position) -> None:
        match event:
            case CommandRejected():
                self._rejected(event, at, position)
            case PoolConfigured():
                self._pool_configured(event)
            case QueueConfigured():
                self._queue_configured(event)
            case QueuePaused():
                self._paused(event, at)
            case QueueResumed():
                self._resumed(event)
            case QueueLocked():
                self._locked(event, at)
            case QueueUnlocked():
                self._unlocked(event)
            case WorkerJoined():
                self._joined(event, at)
            case WorkerSuspected():
                self._suspected(event, at)
            case WorkerRecovered():
                self._recovered(event, at)
            case WorkerLost():
                self._lost(event, at)
            case WorkerDrainRequested():
                self._drain_requested(event, at)
            case _:
                assert_never(event)

    def _rejected(self, event: CommandRejected, at: Instant, position: Position) -> None:
        texts = (event.by, event.pool, event.verb, event.command)
        self.rejections.append(
            (
                position,
                at,
                *map(plain_text, texts),
                None if event.task is None else plain_text(event.task),
                event.status,
                plain_text(event.code),
                plain_text(event.message),
                json_text(event.errors),
            )
        )

    def _pool_configured(self, event: PoolConfigured) -> None:
        pool = self._change_pool(event.pool)
        if event.max_waiting is not None:
            pool.max_waiting = plain_integer(event.max_waiting)
        if event.approval_timeout_seconds is not None:
            pool.approval_timeout_seconds = event.approval_timeout_seconds
        if event.placement is not None:
            pool.placement = plain_text(event.placement)

    def _queue_configured(self, event: QueueConfigured) -> None:
        queue = self.change_queue(event.pool, event.queue)
        if event.max_running is not None:
            queue.max_running = plain_integer(event.max_running) or None

    def _paused(self, event: QueuePaused, at: Instant) -> None:
        paused = self._pausable(event)
        paused.paused_by, paused.paused_reason, paused.paused_at = event.by, plain_text(event.reason), at

    def _resumed(self, event: QueueResumed) -> None:
        paused = self._pausable(event)
        paused.paused_by = paused.paused_reason = paused.paused_at = None

    def _locked(self, event: QueueLocked, at: Instant) -> None:
        queue = self.change_queue(event.pool, event.queue)
        queue.locked_by, queue.locked_reason, queue.locked_at = event.by, plain_text(event.reason), at

    def _unlocked(self, event: QueueUnlocked) -> None:
        queue = self.change_queue(event.pool, event.queue)
        queue.locked_by = queue.locked_reason = queue.locked_at = None

    def _joined(self, event: WorkerJoined, at: Instant) -> None:
        self._change_pool(event.pool)
        known = self._workers.get(event.worker)
        if known is not None and not join_counts(event, incarnation=known.incarnation, is_lost=known.lost):
            return
        self._workers[event.worker] = WorkerRow(
            worker=event.worker,
            pool=event.pool,
            incarnation=event.incarnation,
            suspect=False,
            # One that comes back as it was is still to be drained.
            draining=known is not None and known.draining and known.incarnation == event.incarnation,
            lost=False,
            reason="",
            changed_at=at,
            labels=json_text(event.labels),
            slots=json_text(event.slots),
            kinds=json_text(event.kinds),
        )
        self._touched_workers[event.worker] = None

    def _suspected(self, event: WorkerSuspected, at: Instant) -> None:
        if worker := self._change_worker(event.worker, event.incarnation, at):
            worker.suspect, worker.reason = True, plain_text(event.reason)

    def _recovered(self, event: WorkerRecovered, at: Instant) -> None:
        if worker := self._change_worker(event.worker, event.incarnation, at):
            worker.suspect, worker.reason = False, ""

    def _lost(self, event: WorkerLost, at: Instant) -> None:
        if worker := self._change_worker(event.worker, event.incarnation, at):
            worker.lost, worker.reason = True, plain_text(event.reason)

    def _drain_requested(self, event: WorkerDrainRequested, at: Instant) -> None:
        known = self._workers.get(event.worker)
        if known is not None and (worker := self._change_worker(event.worker, known.incarnation, at)):
            worker.draining, worker.reason = True, plain_text(event.reason)

    # -- rows that an event touches ------------------------------------------------------------------------------------

    def change_queue(self, pool: str, queue: str) -> QueueRow:
        """The queue, to be changed; naming one makes it."""
        key = (pool, queue)
        self._touched_queues[key] = None
        row = self._queues.get(key)
        if row is None:
            row = self._queues[key] = QueueRow(pool, queue)
            self._change_pool(pool)
        return row

    def _change_pool(self, pool: str) -> PoolRow:
        self._touched_pools[pool] = None
        return self._pools.setdefault(pool, PoolRow(pool))

    def _pausable(self, event: QueuePaused | QueueResumed) -> QueueRow | PoolRow:
        return self._change_pool(event.pool) if event.queue is None else self.change_queue(event.pool, event.queue)

    def _change_worker(self, worker: str, incarnation: int, at: Instant) -> WorkerRow | None:
        """The worker, unless it has joined again under a later incarnation."""
        row = self._workers.get(worker)
        if row is None or row.incarnation != incarnation:
            return None
        row.changed_at = at
        self._touched_workers[worker] = None
        return row
