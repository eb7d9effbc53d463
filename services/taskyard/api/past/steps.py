"""The events of one task, folded one by one, and between which of them it waited. Pure."""

from collections.abc import Iterable, Sequence
from copy import copy
from itertools import zip_longest
from typing import Any, cast, get_args

from msgspec import Struct

from taskyard.api.past.views import waiting_of
from taskyard.api.past.waits import Wait
from taskyard.api.reasons import NOTHING_AROUND, waited_for
from taskyard.contracts.events import TaskSubmitted, WorkerJoined, WorkerLost
from taskyard.contracts.lifecycle import Phase, TaskEvent, TaskRecord, Verdict, fold, new_record
from taskyard.contracts.values import Instant, Position

_FOLDED = frozenset((*get_args(TaskEvent), WorkerLost, WorkerJoined))


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


def _waits(record: TaskRecord) -> bool:
    """Whether it waits for what only the log around it tells: also as an apply that pause or lock may hold back."""
    return (
        record.phase is Phase.PENDING
        or record.is_apply_waiting
        or (record.phase is Phase.SCHEDULED and not record.confirmed)
    )


def _own_code(record: TaskRecord) -> str | None:
    match record.phase:
        case Phase.APPLY_PENDING if not record.confirmed:
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
