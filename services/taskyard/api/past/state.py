"""Everything that stood at one moment, folded from the log: live tasks, workers, queues, pools. Pure.

Like the read model it knows who paused and locked what, and like the machines it holds live tasks only: a task that has
ended is folded from its own events.
"""

import logging
from collections.abc import Sequence
from typing import Any, cast, get_args

import msgspec
from msgspec import Raw, Struct, structs

from taskyard.contracts.events import (
    AnyEvent,
    SlotCleared,
    TaskSubmitted,
    UnknownEvent,
    WorkerJoined,
    event_name,
)
from taskyard.contracts.fleet import OfWorker, WorkerState, joined
from taskyard.contracts.lifecycle import TaskRecord, Verdict
from taskyard.contracts.queues import (
    PLACING_EVENTS,
    SETTINGS_EVENTS,
    PlacingEvent,
    PoolSettings,
    QueueSettings,
    SettingsEvent,
    SettingsTable,
)
from taskyard.contracts.tasks import Change, TaskTable
from taskyard.contracts.values import (
    Instant,
    Position,
    TaskId,
    commit_sequence,
    format_position,
    make_position,
    seconds,
)
from taskyard.eventlog.commit import StoredCommit

FORMAT = 4
"""Of `SavedPast`: a state that was saved in another one is passed over."""
LOST_WORKERS_KEPT_SECONDS = 24 * 3600.0
"""Workers that were lost longer ago and hold nothing are forgotten when a state is saved; no answer shows them."""

NO_INPUT = Raw(b"null")

LogEvent = AnyEvent | UnknownEvent
_OF_WORKERS = frozenset(get_args(OfWorker))
_log = logging.getLogger(__name__)


class PastWorker(WorkerState, kw_only=True):
    """A worker as its current incarnation was."""

    changed_at: Instant
    joined_at: Instant


class SavedPast(Struct, frozen=True, kw_only=True):
    """The form in which a state is kept. `positions` are of the last event of each task, in the order of `tasks`.

    `hash` is of the last commit that was folded; a slice that an earlier version exported has none.
    """

    reached: Position
    at: Instant
    last_event: Position
    events: int
    hash: str = ""
    tasks: list[TaskRecord]
    positions: list[Position]
    pools: list[PoolSettings]
    queues: list[QueueSettings]
    workers: list[PastWorker]


class PastState:
    """What stood after the event at `reached`, whose log time was `at`; `events` were folded since the log began.

    `hash` is that of the last commit folded: it tells of which log this is. `of_queue` has the live tasks of each queue, in
    the order of their submission; `holders` those that have a queue for themselves, by its name in whatever pool.
    """

    def __init__(self) -> None:
        self.reached = Position(0)
        self.at = Instant(0)
        self.last_event = Position(0)
        self.events = 0
        self.hash = ""
        self.tasks = TaskTable()
        self.positions: dict[TaskId, Position] = {}
        self.of_queue: dict[tuple[str, str], dict[TaskId, None]] = {}
        self.holders: dict[str, dict[TaskId, None]] = {}
        self.settings = SettingsTable(PoolSettings, QueueSettings)
        self.workers: dict[str, PastWorker] = {}

    def fold(self, stored: StoredCommit[Any], until: Position) -> None:
        """Fold what is new of a commit, up to the event at `until`; one that is later is left alone."""
        if until < make_position(stored.sequence, 0):
            return
        self.at, self.hash = stored.at, stored.hash
        for index, event in enumerate(stored.commit.events):
            position = make_position(stored.sequence, index)
            if self.reached < position <= until:
                self.apply(event, stored.at, position)
        self.reached = min(until, end_of(stored.sequence))

    def apply(self, event: LogEvent, at: Instant, position: Position) -> Sequence[Change]:
        """Fold one event; what it did to tasks. One that cannot be folded is told, and hides nothing of what is behind it."""
        self.at, self.reached, self.last_event = at, position, position
        self.events += 1
        try:
            return self._apply(event, at, position)
        except Exception as error:  # noqa: BLE001 - one event must not hide the past behind it
            fields = {"position": format_position(position), "type": event_name(event), "error": repr(error)}
            _log.error("an event could not be folded and was passed over", extra=fields)
            return ()

    def _apply(self, event: LogEvent, at: Instant, position: Position) -> Sequence[Change]:
        changes = self.tasks.apply(event, at, position)
        for change in changes:
            if change.record is not None:
                self._task_changed(change.record, change, position)
                if change.held is not None and change.held[0] in self.workers:
                    self.workers[change.held[0]].close(event, change)
        if type(event) in SETTINGS_EVENTS:
            self.settings.apply(cast("SettingsEvent", event), at)
        elif type(event) in PLACING_EVENTS:
            self.settings.apply_placing(cast("PlacingEvent", event))
        elif type(event) in _OF_WORKERS:
            self._worker(cast("OfWorker", event), at)
        elif isinstance(event, TaskSubmitted):
            self.settings.queue(event.pool, event.queue)
        return changes

    def _task_changed(self, record: TaskRecord, change: Change, position: Position) -> None:
        if change.before is None:
            record.input = NO_INPUT  # no answer shows it
            self.of_queue.setdefault((record.pool, record.queue), {})[record.id] = None
        if not record.has_ended:
            self.positions[record.id] = position
            if record.holds_workspace:
                self.holders.setdefault(record.queue, {})[record.id] = None
        elif change.verdict is Verdict.EFFECTIVE:
            self.positions.pop(record.id, None)
            tasks = self.of_queue[record.pool, record.queue]
            tasks.pop(record.id, None)
            if not tasks:
                del self.of_queue[record.pool, record.queue]
            holders = self.holders.get(record.queue, {})
            holders.pop(record.id, None)
            if not holders:
                self.holders.pop(record.queue, None)

    # -- workers -------------------------------------------------------------------------------------------------------

    def _worker(self, event: OfWorker, at: Instant) -> None:
        worker = self.workers.get(event.worker)
        if isinstance(event, WorkerJoined):
            self.settings.pool(event.pool)
            if (state := joined(event, worker)) is not None:
                self.workers[event.worker] = PastWorker(**structs.asdict(state), changed_at=at, joined_at=at)
        elif isinstance(event, SlotCleared):
            if worker is not None and worker.clear(event):
                worker.changed_at = at
        elif worker is not None and worker.change(event):
            worker.changed_at = at

    # -- keeping -------------------------------------------------------------------------------------------------------

    def save(self) -> bytes:
        """The state as JSON."""
        since = self.at - seconds(LOST_WORKERS_KEPT_SECONDS)
        tasks = list(self.tasks.live.values())
        saved = SavedPast(
            reached=self.reached,
            at=self.at,
            last_event=self.last_event,
            events=self.events,
            hash=self.hash,
            tasks=tasks,
            positions=[self.positions[record.id] for record in tasks],
            pools=list(self.settings.pools.values()),
            queues=list(self.settings.queues.values()),
            workers=[
                worker
                for worker in self.workers.values()
                if not worker.is_lost or worker.changed_at >= since or self.tasks.on_worker.get(worker.name)
            ],
        )
        return msgspec.json.encode(saved)

    @classmethod
    def restored(cls, data: bytes) -> "PastState":
        """The state that `save` gave.

        Raises:
            msgspec.DecodeError: it is none of this version.
        """
        saved = _decode(data)
        state = cls()
        state.reached, state.at, state.last_event = saved.reached, saved.at, saved.last_event
        state.events, state.hash = saved.events, saved.hash
        for record in saved.tasks:
            record.input, record.result = record.input.copy(), record.result.copy()
            state.of_queue.setdefault((record.pool, record.queue), {})[record.id] = None
            if record.holds_workspace:
                state.holders.setdefault(record.queue, {})[record.id] = None
        state.tasks = TaskTable(saved.tasks)
        state.positions = {record.id: at for record, at in zip(saved.tasks, saved.positions, strict=True)}
        state.settings = SettingsTable(PoolSettings, QueueSettings, saved.pools, saved.queues)
        state.workers = {worker.name: worker for worker in saved.workers}
        return state

    @property
    def pools(self) -> dict[str, PoolSettings]:
        """Every pool that was named."""
        return self.settings.pools

    @property
    def queues(self) -> dict[tuple[str, str], QueueSettings]:
        """Every queue that was named, by its pool and name."""
        return self.settings.queues

    @property
    def sequence(self) -> int:
        """The commit that the last event stands in."""
        return commit_sequence(self.reached)


def end_of(sequence: int) -> Position:
    """The position behind which nothing of the commit at `sequence` is left."""
    return Position(make_position(sequence + 1, 0) - 1)


_decode = msgspec.json.Decoder(SavedPast).decode
