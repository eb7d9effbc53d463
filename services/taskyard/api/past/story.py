"""A task's story from its own events: what was decided, by whom, and between which events it waited. Pure."""

from collections.abc import Iterable, Sequence
from copy import copy
from itertools import zip_longest
from typing import Any, cast, get_args

from msgspec import Struct

from taskyard.api.past.views import waiting_of
from taskyard.api.past.waits import Wait
from taskyard.api.reasons import NOTHING_AROUND, waited_for
from taskyard.contracts.events import (
    DISPATCHER,
    SCHEDULER,
    SLOT_ALLOCATOR,
    ApplyConfirmed,
    ApplyDiscarded,
    ApprovalExpired,
    AttemptFailed,
    AttemptLost,
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
from taskyard.contracts.lifecycle import Phase, TaskEvent, TaskRecord, Verdict, fold, new_record
from taskyard.contracts.values import SECOND, Instant, Position, format_instant

WAIT_TOLD_MIN = SECOND // 20
"""A shorter wait is how long deciding takes, and makes no line of its own."""

_FOLDED = frozenset((*get_args(TaskEvent), WorkerLost, WorkerJoined))
_ASKED = (TaskStopRequested, ApplyConfirmed, ApplyDiscarded, ForceStopped, TaskReprioritised)
"""What somebody asked for: told also where it came too late."""
_WAITED_BY = {"no_worker": SLOT_ALLOCATOR, "no_free_slot": SLOT_ALLOCATOR, "worker_lost": SLOT_ALLOCATOR}


class Step(Struct, frozen=True, kw_only=True):
    """One event of the task and what it did. `record` is as it was after it, `before` the phase before."""

    position: Position
    at: Instant
    by: str
    event: Any
    verdict: Verdict
    before: Phase | None
    record: TaskRecord


class Window(Struct, frozen=True, kw_only=True):
    """From the event at `first` to the one at `last` the task waited to be given a slot; without `last` it still does."""

    first: Position
    since: Instant
    last: Position | None
    until: Instant | None


class Line(Struct, frozen=True, kw_only=True):
    """One decision, or one wait, of the story."""

    position: Position | None
    at: Instant
    by: str
    type: str
    words: str


def steps_of(events: Iterable[tuple[Position, Instant, str, Any]]) -> list[Step]:
    """The events of one task (position, log time, by whom), folded."""
    steps: list[Step] = []
    record: TaskRecord | None = None
    for position, at, by, event in events:
        before = record.phase if record is not None else None
        if record is None and isinstance(event, TaskSubmitted):
            record, verdict = new_record(event, at, position), Verdict.EFFECTIVE
        elif record is not None and type(event) in _FOLDED:
            verdict = fold(record, cast("TaskEvent", event), at, position)
        else:
            continue
        step = Step(position=position, at=at, by=by, event=event, verdict=verdict, before=before, record=copy(record))
        steps.append(step)
    return steps


def windows_of(steps: Sequence[Step]) -> list[Window]:
    """When it waited to be given a slot. Why then, only the log around it can tell."""
    windows: list[Window] = []
    begun: Step | None = None
    for step in steps:
        if begun is None and _waits(step.record):
            begun = step
        elif begun is not None and not _waits(step.record):
            windows.append(Window(first=begun.position, since=begun.at, last=step.position, until=step.at))
            begun = None
    if begun is not None:
        windows.append(Window(first=begun.position, since=begun.at, last=None, until=None))
    return windows


def own_waits(steps: Sequence[Step], now: Instant) -> list[Wait]:
    """What it waited for that its own events tell: an answer to its plan, its reserved slot, a worker that is away."""
    waits: list[Wait] = []
    for step, later in zip_longest(steps, steps[1:]):
        code = _own_code(step.record)
        if code is None:
            continue
        last = waits[-1] if waits else None
        until = later.at if later is not None else None
        if last is not None and last.code == code and last.until == step.at:
            waits[-1] = _wait(step, code, last.since, until, now)
        else:
            waits.append(_wait(step, code, step.at, until, now))
    return [wait for wait in waits if wait.total > 0 or wait.until is None]


def tell(steps: Sequence[Step], waits: Sequence[Wait], placements: dict[Position, str]) -> list[Line]:
    """The story line by line. `placements` says of a `SlotAssigned` why it gave that slot."""
    lines = [line for step in steps if (line := _decision(step, placements)) is not None]
    lines += [
        Line(
            position=None,
            at=wait.since,
            by=_WAITED_BY.get(wait.code, SCHEDULER),
            type="waited" if wait.until is not None else "waits",
            words=wait_words(wait),
        )
        for wait in waits
        if wait.until is None or wait.total >= WAIT_TOLD_MIN
    ]
    return sorted(lines, key=lambda line: line.at)  # stable: a decision stands before the wait that it began


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


def _waits(record: TaskRecord) -> bool:
    return record.phase is Phase.PENDING or (record.phase is Phase.SCHEDULED and not record.confirmed)


def _own_code(record: TaskRecord) -> str | None:
    match record.phase:
        case Phase.APPLY_PENDING:
            return "approval"
        case Phase.HELD:
            return "worker_lost"
        case Phase.SCHEDULED if record.confirmed:
            return "no_free_slot"
        case _:
            return None


def _wait(step: Step, code: str, since: Instant, until: Instant | None, now: Instant) -> Wait:
    words = waited_for(waiting_of(step.record), NOTHING_AROUND, code)
    total = max(0, (now if until is None else until) - since)
    return Wait(code=code, words=words, since=since, until=until, total=total)


# -- decisions in words ------------------------------------------------------------------------------------------------


def _decision(step: Step, placements: dict[Position, str]) -> Line | None:
    event = step.event
    if step.verdict is Verdict.EFFECTIVE:
        words = _words(step, placements)
    elif isinstance(event, _ASKED):
        how = "it was so already" if step.verdict is Verdict.ALREADY else "too late, without effect"
        words = f"{_asked_words(event)} ({how})"
    else:
        return None
    if not words:
        return None
    return Line(position=step.position, at=step.at, by=step.by, type=type(event).__name__, words=words)


def _words(step: Step, placements: dict[Position, str]) -> str:
    event, record = step.event, step.record
    match event:
        case TaskSubmitted():
            return _submitted_words(event)
        case TaskScheduled():
            return "may run now"
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
        case Phase.SCHEDULED if isinstance(step.event, NotDelivered):
            return f"; sent again after {duration_words(record.due - step.at)}"
        case Phase.APPLY_PENDING:
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


def by_of(event: Any) -> str:
    """Who is behind an event: the one who asked, or the service that decided."""
    by = getattr(event, "by", "")
    if by:
        return str(by)
    if isinstance(event, SlotAssigned | WorkerLost | WorkerJoined):
        return SLOT_ALLOCATOR
    return SCHEDULER if isinstance(event, TaskScheduled | ApprovalExpired) else DISPATCHER
