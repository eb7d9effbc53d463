"""Workspaces: who has each queue for itself, in the whole partition and not only in a pool.

At most one task has one. In a log of the first version, where each pool had a lock of its own, two may have it: then the
one that was submitted first goes on, and the other when that has ended.
"""

from collections.abc import Iterable

from taskyard.contracts.lifecycle import TaskRecord
from taskyard.contracts.values import Position, TaskId


class Workspaces:
    """The tasks that have their queue to themselves, by its name. It follows from the live tasks."""

    def __init__(self, records: Iterable[TaskRecord] = ()) -> None:
        self._holders: dict[str, dict[TaskId, Position]] = {}
        for record in records:
            if record.holds_workspace:
                self.take(record)

    def take(self, record: TaskRecord) -> None:
        """The task has its queue from now on."""
        self._holders.setdefault(record.queue, {})[record.id] = record.submitted

    def leave(self, record: TaskRecord) -> bool:
        """The task has ended; whether it had its queue."""
        holders = self._holders.get(record.queue, {})
        had = holders.pop(record.id, None) is not None
        if had and not holders:
            del self._holders[record.queue]
        return had

    def holder(self, name: str) -> TaskId | None:
        """Who has the workspace."""
        holders = self._holders.get(name)
        return min(holders, key=holders.__getitem__) if holders else None
