"""The table of live tasks that every service folds: records by id, and which of them hold a slot of which worker.

It holds live tasks only: one that has ended is handed out with its last change and leaves.
"""

from collections.abc import Iterable
from typing import NamedTuple, cast, get_args

from taskyard.contracts.events import AnyEvent, TaskSubmitted, UnknownEvent, WorkerJoined, WorkerLost
from taskyard.contracts.lifecycle import Phase, TaskEvent, TaskRecord, Verdict, fold, new_record
from taskyard.contracts.values import Instant, Position, TaskId

_TASK_EVENTS = frozenset(get_args(TaskEvent))


class Change(NamedTuple):
    """What one event did to one task.

    `record` is the record after it (None: no live task of that id); `before` the phase before it (None for a new task);
    `held` the slot that the task held before as (worker, slot); `verdict` what the event meant.
    """

    record: TaskRecord | None
    before: Phase | None
    held: tuple[str, int] | None
    verdict: Verdict

    @property
    def released(self) -> tuple[str, int] | None:
        """The slot that this change set free."""
        return self.held if self.record is not None and not self.record.holds_slot else None


class TaskTable:
    """Live tasks, folded from the log."""

    def __init__(self, records: Iterable[TaskRecord] = ()) -> None:
        self.live: dict[TaskId, TaskRecord] = {}
        # Dicts as ordered sets: what is iterated must not depend on hashes.
        self.on_worker: dict[str, dict[TaskId, None]] = {}
        for record in records:
            self.live[record.id] = record
            self._index(record)

    def apply(self, event: AnyEvent | UnknownEvent, at: Instant, position: Position) -> list[Change]:
        """Fold one event; the changes of tasks that it meant, in the order of their submission."""
        if type(event) in _TASK_EVENTS:
            task_event = cast("TaskEvent", event)
            record = self.live.get(task_event.task)
            if record is None:
                return [Change(None, None, None, Verdict.VOID)]
            return [self._fold(record, task_event, at, position)]
        match event:
            case TaskSubmitted():
                return [self._submitted(event, at, position)]
            case WorkerLost() | WorkerJoined():
                return self._of_worker(event, at, position)
            case _:
                return []

    def _submitted(self, event: TaskSubmitted, at: Instant, position: Position) -> Change:
        if event.task in self.live:
            return Change(self.live[event.task], self.live[event.task].phase, None, Verdict.VOID)
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
        if verdict is Verdict.EFFECTIVE:
            if held is None:
                self._index(record)
            elif not record.holds_slot:
                del self.on_worker[held[0]][record.id]
            if record.has_ended:
                del self.live[record.id]
        return Change(record, before, held, verdict)

    def _index(self, record: TaskRecord) -> None:
        holds = record.held_slot
        if holds is not None:
            self.on_worker.setdefault(holds[0], {})[record.id] = None
