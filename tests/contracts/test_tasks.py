"""Live tasks folded from the log: what has ended leaves, and nothing stays of whom it was with."""

from msgspec import Raw

from taskyard.contracts.events import (
    AttemptSucceeded,
    ForceStopped,
    SlotAssigned,
    TaskScheduled,
    TaskSubmitted,
    WorkerLost,
)
from taskyard.contracts.kind import OnLost
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import Instant, TaskId, make_position


def submitted(task: TaskId, on_lost: OnLost) -> TaskSubmitted:
    return TaskSubmitted(
        task=task,
        kind="noop",
        pool="default",
        queue="default",
        by="ann",
        input=Raw(b"{}"),
        digest="",
        timeout_seconds=1,
        on_lost=on_lost,
    )


def test_a_worker_is_known_for_as_long_as_a_task_holds_a_slot_of_it() -> None:
    """Workers of a fleet that grows and shrinks by itself have names that never come again."""
    table = TaskTable()
    for number in range(9):
        task, worker = TaskId(f"t{number}"), f"w{number}"
        end = (
            AttemptSucceeded(task=task, attempt=1),
            WorkerLost(worker=worker, incarnation=1),
            ForceStopped(task=task, by="ann", reason=""),
        )[number % 3]
        told = (
            submitted(task, OnLost.FAIL),
            TaskScheduled(task=task),
            SlotAssigned(task=task, attempt=1, worker=worker, incarnation=1, slot=0),
        )
        for index, event in enumerate((*told, end)):
            table.apply(event, Instant(1), make_position(number + 1, index))
            holds = {worker: {task: None}} if index == len(told) - 1 else {}
            assert table.on_worker == holds
    assert table.live == {}
