"""What was decided about a task, and what it waited for, in words. Pure."""

from collections.abc import Mapping
from typing import Any

from taskyard.api.past.steps import Step
from taskyard.api.past.waits import Wait
from taskyard.contracts.events import (
    ApplyConfirmed,
    ApplyDiscarded,
    ApprovalExpired,
    AttemptFailed,
    AttemptLost,
    AttemptReleased,
    AttemptSucceeded,
    Changes,
    ForceStopped,
    NotDelivered,
    SlotAssigned,
    TaskDispatched,
    TaskPlanned,
    TaskReprioritised,
    TaskScheduled,
    TaskStarted,
    TaskStopRequested,
    TaskSubmitted,
    WorkerJoined,
    WorkerLost,
)
from taskyard.contracts.lifecycle import Phase, Verdict
from taskyard.contracts.values import SECOND, Position, format_instant

_ASKED = (TaskStopRequested, ApplyConfirmed, ApplyDiscarded, ForceStopped, AttemptReleased, TaskReprioritised)
"""What somebody asked for: told also where it came too late."""


def decision_words(step: Step, placements: Mapping[Position, str]) -> str:
    """What an event decided, and what followed; empty for what is not worth a line."""
    event = step.event
    if step.verdict is Verdict.EFFECTIVE:
        return _words(step, placements)
    if isinstance(event, _ASKED):
        how = "it was so already" if step.verdict is Verdict.ALREADY else "too late, without effect"
        return f"{_asked_words(event)} ({how})"
    return ""


def wait_words(wait: Wait) -> str:
    """A wait in words."""
    verb = "waited" if wait.until is not None else "has waited"
    often = f" ({wait.times} times)" if wait.times > 1 else ""
    return f"{verb} {duration_words(wait.total)} {wait.words}{often}"


def duration_words(microseconds: int) -> str:
    """A duration for people: `340 ms`, `2.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if microseconds < SECOND:
        return f"{microseconds / 1000:.0f} ms"
    if microseconds < 60 * SECOND:
        return f"{microseconds / SECOND:.1f} s".replace(".0 ", " ")
    whole = round(microseconds / SECOND)
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def _words(step: Step, placements: Mapping[Position, str]) -> str:
    event, record = step.event, step.record
    match event:
        case TaskSubmitted():
            return _submitted_words(event)
        case TaskScheduled():
            return "may run now" if event.attempt is None else f"may apply the plan of attempt {event.attempt} now"
        case SlotAssigned() if record.confirmed:
            return (
                f"attempt {event.attempt} was given its reserved slot {event.slot} of {event.worker}, "
                "since that worker has the plan"
            )
        case SlotAssigned():
            place = placements.get(step.position) or f"slot {event.slot} of {event.worker}"
            return f"attempt {event.attempt} was given {place}"
        case TaskDispatched():
            return f"{record.worker} took attempt {event.attempt}"
        case TaskStarted():
            return f"attempt {event.attempt} started"
        case TaskPlanned():
            return f"attempt {event.attempt} made a plan: {_changes_words(event.changes)}" + _then(step)
        case AttemptSucceeded():
            return f"attempt {event.attempt} succeeded" + _then(step)
        case AttemptFailed():
            message = f": {event.error.message}" if event.error.message else ""
            return f"attempt {event.attempt} failed with {event.error.code}{message}" + _then(step)
        case AttemptLost():
            message = f": {event.message}" if event.message else ""
            return f"attempt {event.attempt} was lost{message}" + _then(step)
        case NotDelivered():
            return f"attempt {event.attempt} was not delivered: {event.reason}" + _then(step)
        case WorkerLost():
            reason = f" ({event.reason})" if event.reason else ""
            return f"{event.worker} was lost{reason}" + _then(step)
        case WorkerJoined():
            return f"{event.worker} came back: it is asked what became of attempt {record.attempt}" + _then(step)
        case ApprovalExpired():
            return f"nobody answered for the plan of attempt {event.attempt} in time" + _then(step)
        case _ if isinstance(event, _ASKED):
            return _asked_words(event) + _then(step)
        case _:
            return ""


def _submitted_words(event: TaskSubmitted) -> str:
    words = f"submitted a {event.kind} to queue {event.queue} of pool {event.pool} with priority {event.priority}"
    if event.retry_of is not None:
        words += f", a retry of {event.retry_of}"
    if event.not_before is not None:
        words += f", not to start before {format_instant(event.not_before)}"
    return words


def _asked_words(event: Any) -> str:
    match event:
        case TaskStopRequested(cause="timeout"):
            return f"attempt {event.attempt} ran out of time and is stopped"
        case TaskStopRequested(cause="schedule_to_start"):
            return "did not start in time"
        case TaskStopRequested():
            return "asked to cancel it" + _because(event.reason)
        case ApplyConfirmed(by="auto"):
            return f"confirmed the plan of attempt {event.attempt}, as the task asked for"
        case ApplyConfirmed():
            return f"confirmed the plan of attempt {event.attempt}" + _because(event.comment)
        case ApplyDiscarded():
            return f"discarded the plan of attempt {event.attempt}" + _because(event.comment)
        case ForceStopped():
            return "ended it by force" + _because(event.reason)
        case AttemptReleased():
            return f"gave up attempt {event.attempt}, whose worker is gone for good" + _because(event.reason)
        case TaskReprioritised():
            return f"gave it priority {event.priority}"
        case _:
            return ""


def _then(step: Step) -> str:
    """What followed from an event."""
    record = step.record
    match record.phase:
        case Phase.PENDING if step.before not in (None, Phase.PENDING):
            return _again(step)
        case Phase.SCHEDULED | Phase.APPLY_PENDING if isinstance(step.event, NotDelivered):
            return f"; sent again after {duration_words(record.due - step.at)}"
        case Phase.APPLY_PENDING if not record.confirmed:
            return "; it waits for an answer"
        case Phase.HELD:
            return "; it keeps its slot and workspace until that worker is back"
        case Phase.STOPPING:
            return "; its process is being stopped"
        case Phase.COMPLETED | Phase.FAILED | Phase.TIMEOUT | Phase.CANCELLED:
            return _end(step)
        case _:
            return ""


def _again(step: Step) -> str:
    record = step.record
    delay = record.due - step.at
    after = f" after {duration_words(delay)}" if delay > 0 else " at once"
    if isinstance(step.event, NotDelivered):
        return f"; given to a worker again{after}"
    if record.error is None or record.tries == 0:
        return "; it is planned again"
    return f"; tried again{after} (try {record.tries + 1} of {record.max_attempts})"


def _end(step: Step) -> str:
    record = step.record
    if record.phase is Phase.FAILED and isinstance(step.event, AttemptFailed | AttemptLost | WorkerLost):
        retryable = record.error is not None and record.error.retryable
        if record.confirmed:
            return "; failed: an apply is never repeated"
        return f"; failed: no try is left of {record.max_attempts}" if retryable else "; failed: not worth another try"
    return f"; {record.phase.value}"


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _changes_words(changes: Changes) -> str:
    return f"{changes.add} to add, {changes.change} to change, {changes.destroy} to destroy"
