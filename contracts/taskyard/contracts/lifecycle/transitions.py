"""The one table of transitions: which event is about which change of a task."""

from typing import assert_never

from taskyard.contracts.events import (
    ApplyConfirmed,
    ApplyDiscarded,
    ApprovalExpired,
    AttemptFailed,
    AttemptLost,
    AttemptReleased,
    AttemptSucceeded,
    ForceStopped,
    NotDelivered,
    SlotAssigned,
    TaskDispatched,
    TaskPlanned,
    TaskProgressed,
    TaskReprioritised,
    TaskScheduled,
    TaskStarted,
    TaskStopRequested,
    WorkerJoined,
    WorkerLost,
)
from taskyard.contracts.lifecycle.dispatcher import (
    dispatched,
    failed,
    not_delivered,
    planned,
    progressed,
    started,
    succeeded,
)
from taskyard.contracts.lifecycle.phases import Verdict
from taskyard.contracts.lifecycle.record import TaskRecord
from taskyard.contracts.lifecycle.scheduler import (
    confirmed,
    force_stopped,
    refused,
    released,
    reprioritised,
    scheduled,
    stop_requested,
)
from taskyard.contracts.lifecycle.slot_allocator import assigned, worker_joined, worker_lost
from taskyard.contracts.values import Instant, Position

TaskEvent = (
    TaskScheduled
    | SlotAssigned
    | TaskDispatched
    | TaskStarted
    | TaskProgressed
    | TaskPlanned
    | ApplyConfirmed
    | ApplyDiscarded
    | ApprovalExpired
    | TaskStopRequested
    | AttemptSucceeded
    | AttemptFailed
    | AttemptLost
    | NotDelivered
    | ForceStopped
    | AttemptReleased
    | TaskReprioritised
)
"""Events of one existing task."""


def fold(record: TaskRecord, event: TaskEvent | WorkerLost | WorkerJoined, at: Instant, position: Position) -> Verdict:
    """Change `record` by what `event`, stored at `at` and `position`, means for it."""
    match event:
        case TaskScheduled():
            return scheduled(record, event, at)
        case SlotAssigned():
            return assigned(record, event, position)
        case TaskDispatched():
            return dispatched(record, event, at)
        case TaskStarted():
            return started(record, event, at)
        case AttemptSucceeded():
            return succeeded(record, event, at)
        case TaskProgressed():
            return progressed(record, event)
        case TaskPlanned():
            return planned(record, event, at)
        case AttemptFailed() | AttemptLost():
            return failed(record, event, at)
        case NotDelivered():
            return not_delivered(record, event, at)
        case ApplyConfirmed():
            return confirmed(record, event)
        case ApplyDiscarded() | ApprovalExpired():
            return refused(record, event, at)
        case TaskStopRequested():
            return stop_requested(record, event, at)
        case ForceStopped():
            return force_stopped(record, event, at)
        case AttemptReleased():
            return released(record, event, at)
        case TaskReprioritised():
            return reprioritised(record, event)
        case WorkerLost():
            return worker_lost(record, event, at)
        case WorkerJoined():
            return worker_joined(record, event, at)
        case _:
            assert_never(event)
