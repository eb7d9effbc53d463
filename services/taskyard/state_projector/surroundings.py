"""The fold of what is not a task: settings of queues and pools, workers, and refused commands, as rows. Pure."""

from collections.abc import Iterable
from typing import cast, get_args

from msgspec import structs

from taskyard.contracts.events import (
    AnyEvent,
    CommandRejected,
    PoolConfigured,
    QueueUnlocked,
    SlotCleared,
    UnknownEvent,
    WorkerJoined,
    refused_ids,
)
from taskyard.contracts.fleet import OfWorker, joined
from taskyard.contracts.queues import PLACING_EVENTS, SETTINGS_EVENTS, PlacingEvent, SettingsEvent, SettingsTable
from taskyard.contracts.readable import plain_text
from taskyard.contracts.tasks import Change
from taskyard.contracts.values import Instant, Position
from taskyard.state_projector.rows import (
    PoolRow,
    QueueRow,
    Row,
    WorkerRow,
    json_text,
)

SURROUNDING_EVENTS: frozenset[type] = (
    SETTINGS_EVENTS | PLACING_EVENTS | frozenset((CommandRejected, *get_args(OfWorker)))
)
"""The events that mean something here."""


class Surroundings:
    """Queues, pools and workers as the log tells them, and which of them changed since `forget_changes`."""

    def __init__(self, queues: Iterable[QueueRow], pools: Iterable[PoolRow], workers: Iterable[WorkerRow]) -> None:
        self._settings = SettingsTable(PoolRow, QueueRow, pools, queues)
        self._workers = {worker.name: worker for worker in workers}
        self.forget_changes()

    def fold(self, event: AnyEvent | UnknownEvent, at: Instant, position: Position) -> None:
        """Fold one event of SURROUNDING_EVENTS."""
        if type(event) in SETTINGS_EVENTS:
            self._configure(cast("SettingsEvent", event), at)
        elif type(event) in PLACING_EVENTS:
            placing = cast("PlacingEvent", event)
            self._change_pool(placing.pool)
            self._settings.apply_placing(placing)
        elif isinstance(event, CommandRejected):
            self._rejected(event, at, position)
        else:
            self._change_of_worker(cast("OfWorker", event), at)

    def forget_changes(self) -> None:
        """Begin to gather changes anew."""
        # Dicts as ordered sets: the order of rows must not depend on hashes.
        self._touched_queues: dict[tuple[str, str], None] = {}
        self._touched_pools: dict[str, None] = {}
        self._touched_workers: dict[str, None] = {}
        self.rejections: list[Row] = []
        self.refused_tasks: list[Row] = []

    @property
    def changed_queues(self) -> list[QueueRow]:
        """Queues that changed."""
        return [self._settings.queues[key] for key in self._touched_queues]

    @property
    def changed_pools(self) -> list[PoolRow]:
        """Pools that changed."""
        return [self._settings.pools[key] for key in self._touched_pools]

    @property
    def changed_workers(self) -> list[WorkerRow]:
        """Workers that changed."""
        return [self._workers[key] for key in self._touched_workers]

    def close_slot(self, event: AnyEvent | UnknownEvent, change: Change) -> None:
        """A task was ended by force: its slot may be taken until the worker says that nothing lives there."""
        worker = self._workers.get(change.held[0]) if change.held is not None else None
        if worker is not None and worker.close(event, change):
            self._touched_workers[worker.name] = None

    def _configure(self, event: SettingsEvent, at: Instant) -> None:
        if isinstance(event, PoolConfigured) or event.queue is None:
            self._change_pool(event.pool)
        else:
            self.change_queue(event.pool, event.queue)
            for pool in self._settings.unlocked_by(event) if isinstance(event, QueueUnlocked) else ():
                self.change_queue(pool, event.queue)
        self._settings.apply(event, at)

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
        # An id may stand twice in a batch.
        refused = {plain_text(task): how for task, how in refused_ids(event)}
        self.refused_tasks += [
            (task, position, how.status, plain_text(how.code), plain_text(how.message)) for task, how in refused.items()
        ]

    # -- workers -------------------------------------------------------------------------------------------------------

    def _change_of_worker(self, event: OfWorker, at: Instant) -> None:
        known = self._workers.get(event.worker)
        if isinstance(event, WorkerJoined):
            self._change_pool(event.pool)
            if (state := joined(event, known)) is None:
                return
            self._workers[event.worker] = WorkerRow(**structs.asdict(state), changed_at=at, joined_at=at)
        elif isinstance(event, SlotCleared):
            if known is None or not known.clear(event):
                return
        elif known is not None and known.change(event):
            known.changed_at = at
        else:
            return
        self._touched_workers[event.worker] = None

    # -- rows that an event touches ------------------------------------------------------------------------------------

    def change_queue(self, pool: str, queue: str) -> QueueRow:
        """The queue, to be changed; naming one makes it."""
        key = (pool, queue)
        self._touched_queues[key] = None
        if key not in self._settings.queues:
            self._touched_pools[pool] = None  # it may come to be with its first queue
        return self._settings.queue(pool, queue)

    def _change_pool(self, pool: str) -> None:
        self._touched_pools[pool] = None
        self._settings.pool(pool)
