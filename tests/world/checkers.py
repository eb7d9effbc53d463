"""What must never show in a log. These know the contracts only, nothing of the services."""

from collections.abc import Sequence
from typing import Any

from taskyard.contracts.events import (
    ApplyConfirmed,
    QueuePaused,
    QueueResumed,
    SlotAssigned,
    TaskScheduled,
    TaskSubmitted,
)
from taskyard.contracts.lifecycle import Phase, Verdict
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import make_position

CONFIRMS = (ApplyConfirmed,)


def check_log(commits: Sequence[Any]) -> None:
    """Fold the log and look at every step."""
    _Checker().check(commits)


class _Checker:
    def __init__(self) -> None:
        self.table = TaskTable()
        self.slots: dict[tuple[str, int], str] = {}
        self.workspaces: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        self.ended: set[str] = set()
        self.submitted: set[str] = set()
        self.decided: set[tuple[str, str]] = set()
        self.paused: set[str | None] = set()
        self.confirmed: set[str] = set()
        self.epochs: dict[str, int] = {}

    def check(self, commits: Sequence[Any]) -> None:
        for stored in commits:
            commit = stored.commit
            assert commit.epoch >= self.epochs.get(commit.writer, 0), "a stale leader appended"
            self.epochs[commit.writer] = commit.epoch
            for index, event in enumerate(commit.events):
                self._event(event, stored.at, make_position(stored.sequence, index))

    def _event(self, event: Any, at: int, position: int) -> None:
        self._command_once(event)
        self._pauses(event)
        if isinstance(event, TaskSubmitted):
            assert event.task not in self.submitted, f"{event.task} was accepted twice"
            self.submitted.add(event.task)
        for change in self.table.apply(event, at, position):
            if change.record is None or change.verdict is not Verdict.EFFECTIVE:
                continue
            self._changed(event, change)

    def _command_once(self, event: Any) -> None:
        command = getattr(event, "command", None)
        if command is None or isinstance(event, TaskSubmitted):
            return
        assert (command, "") not in self.decided, f"command {command} was decided twice"
        self.decided.add((command, ""))

    def _pauses(self, event: Any) -> None:
        if isinstance(event, QueuePaused):
            self.paused.add(event.queue)
        elif isinstance(event, QueueResumed):
            self.paused.discard(event.queue)

    def _changed(self, event: Any, change: Any) -> None:
        record = change.record
        assert record.id not in self.ended, f"{record.id} changed after its end"
        assert record.attempt >= self.attempts.get(record.id, 0), "an attempt fell"
        self.attempts[record.id] = record.attempt
        self._slot(event, change)
        self._workspace(event, record)
        self._approval(event, record)
        if isinstance(event, TaskScheduled):
            assert not {None, record.queue} & self.paused, f"{record.id} was scheduled in a paused queue"
        if record.has_ended:
            self.ended.add(record.id)

    def _slot(self, event: Any, change: Any) -> None:
        record = change.record
        if change.released is not None and self.slots.get(change.released) == record.id:
            del self.slots[change.released]
        if isinstance(event, SlotAssigned):
            slot = (event.worker, event.slot)
            assert self.slots.get(slot, record.id) == record.id, f"slot {slot} was given twice"
            assert record.kind == "plan" or event.slot == 0, f"a {record.kind} in slot {event.slot}"
            self.slots[slot] = record.id

    def _workspace(self, event: Any, record: Any) -> None:
        if not record.exclusive:
            return
        if isinstance(event, TaskScheduled):
            holder = self.workspaces.setdefault(record.queue, record.id)
            assert holder == record.id, f"{record.id} and {holder} in workspace {record.queue}"
        if record.has_ended and self.workspaces.get(record.queue) == record.id:
            del self.workspaces[record.queue]

    def _approval(self, event: Any, record: Any) -> None:
        if isinstance(event, ApplyConfirmed):
            self.confirmed.add(record.id)
        elif record.phase is Phase.PENDING:
            self.confirmed.discard(record.id)
        if record.exclusive and record.phase is Phase.COMPLETED:
            assert record.id in self.confirmed, f"{record.id} was applied without confirmation"
