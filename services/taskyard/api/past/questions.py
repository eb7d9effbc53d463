"""What the routes ask of the past: tasks, workers, queues and pools at a moment, each with the moment that it shows."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar, cast, get_args

from msgspec.structs import asdict

from taskyard.api.errors import Refusal, not_found
from taskyard.api.past.state import LogEvent, PastState
from taskyard.api.past.travel import TimeTravel
from taskyard.api.past.views import live_task_view, pool_views, queue_views, task_view, worker_views
from taskyard.api.read_model import ReadModel
from taskyard.api.reasons import NOTHING_AROUND
from taskyard.api.views import HistoryItem, PoolView, QueueView, TaskView, View, WorkerView
from taskyard.contracts.events import TaskSubmitted, WorkerJoined, WorkerLost
from taskyard.contracts.lifecycle import TaskEvent, TaskRecord, fold, new_record
from taskyard.contracts.values import (
    Instant,
    Position,
    TaskId,
    commit_sequence,
    format_instant,
    format_position,
    make_position,
    parse_position,
)
from taskyard.eventlog.commit import StoredCommit
from taskyard.eventlog.log import EventLog

TASK_COMMITS_MAX = 2_000
"""An ended task is folded from so many commits at most: one with more made progress for days."""

T = TypeVar("T")

_FOLDED = frozenset((*get_args(TaskEvent), WorkerLost, WorkerJoined))


class AsOf(View):
    """The moment that an answer shows: the last event that it reflects, and the log's time then."""

    position: str
    at: str


class TaskAsOf(TaskView):
    """A task as it was."""

    as_of: AsOf


class Past:
    """The past of the log, as far as answers show it. Every method raises as `TimeTravel.look`."""

    def __init__(self, travel: TimeTravel, log: EventLog[LogEvent], read_model: ReadModel) -> None:
        self.travel = travel
        self._log = log
        self._read_model = read_model

    async def workers(self, at: str) -> tuple[Position, AsOf, list[WorkerView]]:
        """All workers with their slots."""
        return await self._look(at, lambda state: worker_views(state, state.at))

    async def queues(self, at: str) -> tuple[Position, AsOf, list[QueueView]]:
        """All queues."""
        return await self._look(at, queue_views)

    async def pools(self, at: str) -> tuple[Position, AsOf, list[PoolView]]:
        """All pools."""
        return await self._look(at, pool_views)

    async def task(self, id: TaskId, at: str, *, sees_only: str | None) -> tuple[Position, TaskAsOf]:
        """One task. Raises 404 for one that is not there, or was not yet, or is of another than `sees_only`."""
        position, as_of, found = await self._look(at, lambda state: live_task_view(state, id, state.at))
        if found is None:
            found = await self._ended(id, position, as_of, sees_only)
        if sees_only is not None and found.submitted_by != sees_only:
            raise not_found("there is no such task")
        return position, TaskAsOf(**asdict(found), as_of=as_of)

    async def _look(self, at: str, read: Callable[[PastState], T]) -> tuple[Position, AsOf, T]:
        def show(state: PastState) -> tuple[Position, AsOf, T]:
            as_of = AsOf(position=format_position(state.last_event), at=format_instant(state.at))
            return state.last_event, as_of, read(state)

        return await self.travel.look(at, show)

    # -- tasks that had ended ------------------------------------------------------------------------------------------

    async def _ended(self, id: TaskId, position: Position, as_of: AsOf, sees_only: str | None) -> TaskView:
        """A task that did not live at the moment: it had ended, or did not exist. The read model knows where its events are."""
        task = await self._read_model.task(id, sees_only=sees_only)
        history = await self._read_model.history(id)
        before = [item for item in history if parse_position(item.position) <= position]
        if not before:
            raise Refusal(
                404,
                "not_submitted_yet",
                f"the task was submitted later, at {task.submitted_at} (position {history[0].position})"
                if history
                else f"the task was submitted later, at {task.submitted_at}",
            )
        record, last = await self._fold(id, before)
        return task_view(record, last, NOTHING_AROUND, record.finished_at or record.submitted_at)

    async def _fold(self, id: TaskId, history: Sequence[HistoryItem]) -> tuple[TaskRecord, Position]:
        """The record that the events at these places of the log make."""
        places = [parse_position(item.position) for item in history]
        sequences = sorted({commit_sequence(place) for place in places})
        if len(sequences) > TASK_COMMITS_MAX:
            raise Refusal(503, "too_long", f"the task has events in more than {TASK_COMMITS_MAX} commits")
        wanted = set(places)
        record: TaskRecord | None = None
        last = places[0]
        for sequence in sequences:
            async for position, at, event in self._events(sequence):
                if position not in wanted or (record is not None and record.has_ended):
                    continue  # what came after its end did not concern it any more
                last = position
                if record is None:
                    record = new_record(event, at, position) if isinstance(event, TaskSubmitted) else None
                elif type(event) in _FOLDED:
                    fold(record, cast("TaskEvent", event), at, position)
        if record is None:
            raise not_found(f"the log has no submission of {id} where the read model knows of one")
        return record, last

    async def _events(self, sequence: int) -> AsyncGenerator[tuple[Position, Instant, LogEvent], None]:
        """The events of one commit."""
        commits = cast("AsyncGenerator[StoredCommit[LogEvent], None]", self._log.read(sequence, sequence))
        async with aclosing(commits):
            async for stored in commits:
                for index, event in enumerate(stored.commit.events):
                    yield make_position(stored.sequence, index), stored.at, event
