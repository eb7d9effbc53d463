"""A task's story line by line: its decisions and its waits, in the order of the log. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from taskyard.api.past.steps import Step
from taskyard.api.past.waits import Wait
from taskyard.api.past.wording import decision_words, wait_words
from taskyard.contracts.events import (
    DISPATCHER,
    SCHEDULER,
    SLOT_ALLOCATOR,
    ApprovalExpired,
    SlotAssigned,
    TaskScheduled,
    WorkerJoined,
    WorkerLost,
)
from taskyard.contracts.values import SECOND, Instant, Position

WAIT_TOLD_MIN = SECOND // 20
"""A shorter wait is how long deciding takes, and makes no line of its own."""

_WAITED_BY = {"no_worker": SLOT_ALLOCATOR, "no_free_slot": SLOT_ALLOCATOR, "worker_lost": SLOT_ALLOCATOR}


class Line(Struct, frozen=True, kw_only=True):
    """One decision, or one wait, of the story."""

    position: Position | None
    at: Instant
    by: str
    type: str
    words: str


def tell(steps: Sequence[Step], waits: Sequence[Wait], placements: Mapping[Position, str]) -> list[Line]:
    """The story line by line. `placements` says of a `SlotAssigned` why it gave that slot."""
    lines = [
        Line(position=step.position, at=step.at, by=step.by, type=type(step.event).__name__, words=words)
        for step in steps
        if (words := decision_words(step, placements))
    ]
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


def by_of(event: Any) -> str:
    """Who is behind an event: the one who asked, or the service that decided."""
    by = getattr(event, "by", "")
    if by:
        return str(by)
    if isinstance(event, SlotAssigned | WorkerLost | WorkerJoined):
        return SLOT_ALLOCATOR
    return SCHEDULER if isinstance(event, TaskScheduled | ApprovalExpired) else DISPATCHER
