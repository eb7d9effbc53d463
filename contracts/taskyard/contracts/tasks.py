"""The table of live tasks that every service folds: records by id, and which of them hold a slot of which worker.

It holds live tasks only: one that has ended is handed out with its last change and leaves.
"""

from collections.abc import Iterable, Sequence
from typing import get_args

from msgspec import Struct

from taskyard.contracts.events import AnyEvent, TaskSubmitted, UnknownEvent, WorkerJoined, WorkerLost
from taskyard.contracts.lifecycle import Phase, TaskEvent, TaskRecord, Verdict, fold, new_record
from taskyard.contracts.values import Instant, Position, TaskId

_TASK_EVENTS = frozenset(get_args(TaskEvent))


class Change(Struct, frozen=True, gc=False):
    """What one event did to one task.

    `record` is the record after it (None: no live task of that id); `before` the phase before it (None for a new task);
    `held` and `holds` the slot that the task had before and has now, as (worker, slot); `verdict` what the event meant.
    """

    record: TaskRecord | None
    before: Phase | None
    held: tuple[str, int] | None
    verdict: Verdict
    holds: tuple[str, int] | None = None

    @property
    def released(self) -> tuple[str, int] | None:
        """The slot that this change set free."""
        return self.held if self.holds is None else None


_NO_TASK = (Change(None, None, None, Verdict.VOID),)
_NO_CHANGES: tuple[Change, ...] = ()


class TaskTable:
    """Live tasks, folded from the log."""

    def __init__(self, records: Iterable[TaskRecord] = ()) -> None:
        self.live: dict[TaskId, TaskRecord] = {}
        # Dicts as ordered sets: what is iterated must not depend on hashes.
        self.on_worker: dict[str, dict[TaskId, None]] = {}
        for record in records:
            self.live[record.id] = record
            if record.held_slot is not None:
                self._index(record.held_slot[0], record.id)

    def apply(self, event: AnyEvent | UnknownEvent, at: Instant, position: Position) -> Sequence[Change]:
        """Fold one event; the changes of tasks that it meant, in the order of their submission."""
        if type(event) in _TASK_EVENTS:  # most events: told apart at once
            task_event: TaskEvent = event  # pyright: ignore[reportAssignmentType]
            record = self.live.get(task_event.task)
            return _NO_TASK if record is None else (self._fold(record, task_event, at, position),)
        match event:
            case TaskSubmitted():
                return (self._submitted(event, at, position),)
            case WorkerLost() | WorkerJoined():
                return self._of_worker(event, at, position)
            case _:
                return _NO_CHANGES

    def _submitted(self, event: TaskSubmitted, at: Instant, position: Position) -> Change:
        known = self.live.get(event.task)
        if known is not None:
            held = known.held_slot
            return Change(known, known.phase, held, Verdict.VOID, held)
        record = self.live[event.task] = new_record(event, at, position)
        return Change(record, None, None, Verdict.EFFECTIVE)

    def _of_worker(self, event: WorkerLost | WorkerJoined, at: Instant, position: Position) -> list[Change]:
        records = sorted((self.live[id] for id in self.on_worker.get(event.worker, ())), key=lambda r: r.submitted)
        changes = [self._fold(record, event, at, position) for record in records]
        return [change for change in changes if change.verdict is Verdict.EFFECTIVE]

    def _fold(
        self, record: TaskRecord, event: TaskEvent | WorkerLost | WorkerJoined, at: Instant, position: Position
    ) -> Change:
        before, held = record.phase, record.held_slot
        verdict = fold(record, event, at, position)
        if verdict is not Verdict.EFFECTIVE:
            return Change(record, before, held, verdict, held)
        holds = record.held_slot
        if held is None:
            if holds is not None:
                self._index(holds[0], record.id)
        elif holds is None:
            self._leave(held[0], record.id)
        if record.has_ended:
            del self.live[record.id]
        return Change(record, before, held, verdict, holds)

    def _index(self, worker: str, task: TaskId) -> None:
        self.on_worker.setdefault(worker, {})[task] = None

    def _leave(self, worker: str, task: TaskId) -> None:
        tasks = self.on_worker[worker]
        del tasks[task]
        if not tasks:
            del self.on_worker[worker]
