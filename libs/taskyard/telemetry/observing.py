"""What observers of a machine's fold share: which live tasks an event is about."""

from typing import Any

from taskyard.contracts.events import WorkerJoined, WorkerLost
from taskyard.contracts.lifecycle import TaskRecord
from taskyard.contracts.tasks import TaskTable


def records_of(event: Any, tasks: TaskTable) -> list[TaskRecord]:
    """The live tasks that an event may change. Asked for before the fold: a task that ends leaves the table."""
    if isinstance(event, WorkerLost | WorkerJoined):
        return [tasks.live[id] for id in tasks.on_worker.get(event.worker, ())]
    record = tasks.live.get(getattr(event, "task", None) or "")  # pyright: ignore[reportArgumentType]
    return [] if record is None else [record]
