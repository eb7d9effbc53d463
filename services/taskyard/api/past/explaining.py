"""Why a task waits, waited, was tried again, placed where it was, refused or stopped: from events, line by line.

The task's own events come as the read model keeps them (verbatim, with their positions); what stood around it while it
waited is folded from the log again.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from taskyard.api.errors import Refusal, not_found
from taskyard.api.list_pages import HISTORY, first_page
from taskyard.api.past.steps import Step, own_waits, steps_of, windows_of
from taskyard.api.past.story import Line, by_of, tell
from taskyard.api.past.travel import TimeTravel
from taskyard.api.past.waits import Wait, Watcher
from taskyard.api.past.wording import wait_words
from taskyard.api.read_model import REJECTIONS_MAX, ReadModel
from taskyard.api.views import HistoryItem, Rejection, TaskView, View
from taskyard.contracts.events import decode_event
from taskyard.contracts.values import (
    SECOND,
    Instant,
    Position,
    TaskId,
    format_instant,
    format_position,
    from_datetime,
    is_uuid7,
    parse_position,
)

WHY_SECONDS_MAX = 8.0
"""How long one answer may fold the log."""
WINDOWS_MAX = 20
"""The log is folded again for so many waits: the first ones and the last ones of a task that was tried very often."""

SUMMARY_PARTS_MAX = 8
"""A summary of more parts leaves out the middle."""

_SETBACKS = frozenset(("AttemptFailed", "AttemptLost", "NotDelivered", "WorkerLost"))
_ENDS = frozenset(
    ("AttemptSucceeded", "TaskStopRequested", "ApplyDiscarded", "ApprovalExpired", "ForceStopped", "AttemptReleased")
)
_SUMMED_UP = _SETBACKS | _ENDS | {"waited", "waits", "SlotAssigned"}


class WaitView(View):
    """The task waited for something; `until` is null where it still does. `seconds` sums `times` waits of one code."""

    code: str
    message: str
    blocker: str | None
    since: str
    until: str | None
    seconds: float
    times: int


class DecisionView(View):
    """A line of the story: who decided what, and when. Waits have no position."""

    position: str | None
    at: str
    by: str
    type: str
    message: str


class Why(View):
    """Why a task is where it is. `task` is null for one that was refused; `blocker` is the task that it waits for.

    `complete` is false where folding the log again would have taken too long: then some waits are told without a cause. It
    is also false for a task with more events than a history shows: then the story lacks its end.
    """

    task: TaskView | None
    blocker: TaskView | None
    summary: str
    waits: Sequence[WaitView]
    decisions: Sequence[DecisionView]
    complete: bool


class Explaining:
    """Explains tasks. `now` is this machine's clock."""

    def __init__(
        self,
        travel: TimeTravel,
        read_model: ReadModel,
        now: Callable[[], Instant],
        *,
        seconds_max: float = WHY_SECONDS_MAX,
    ) -> None:
        self._travel = travel
        self._read_model = read_model
        self._now = now
        self._seconds_max = seconds_max

    async def why(self, id: TaskId, *, sees_only: str | None) -> Why:
        """The story of a task.

        Raises:
            Refusal: 404 for one that nobody knows, or that is another's than `sees_only`.
        """
        try:
            task = await self._read_model.task(id, sees_only=sees_only)
        except Refusal as refusal:
            if refusal.status != 404:
                raise
            return await self._refused(id, sees_only)
        history = await self._read_model.history(id, first_page(HISTORY))
        steps = steps_of(map(_event_of, history))
        waits, placements, is_complete = await self._look_back(id, steps, sees_only)
        waits = sorted([*waits, *own_waits(steps, self._now())], key=lambda wait: wait.since)
        lines = tell(steps, waits, placements)
        return Why(
            task=task,
            blocker=await self._blocker(task, sees_only),
            summary=_summary(lines),
            waits=[_wait_view(wait) for wait in waits],
            decisions=[_decision_view(line) for line in lines],
            complete=is_complete and _is_whole(history, task),
        )

    async def _look_back(
        self, id: TaskId, steps: Sequence[Step], sees_only: str | None
    ) -> tuple[list[Wait], dict[Position, str], bool]:
        """What it waited for before it was given its slots, and why it got those."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._seconds_max
        waits: list[Wait] = []
        placements: dict[Position, str] = {}
        windows = windows_of(steps)
        is_complete = len(windows) <= WINDOWS_MAX
        if not is_complete:
            windows = [*windows[: WINDOWS_MAX // 2], *windows[-WINDOWS_MAX // 2 :]]
        for window in windows:
            until = window.until if window.until is not None else self._now()
            watcher = Watcher(id, window.since, until, sees_only)
            left = deadline - clock()
            try:
                is_whole = left > 0 and await self._travel.watch(window.first, window.last, watcher, left)
            except Refusal as refusal:
                if refusal.status != 503:
                    raise
                is_whole = False
            found = watcher.waits(until, is_over=window.until is not None) if is_whole else []
            waits += found or ([] if is_whole else [_unexplained(window.since, window.until, until)])
            is_complete &= is_whole
            if watcher.placement and window.last is not None:
                placements[window.last] = watcher.placement
        return waits, placements, is_complete

    async def _blocker(self, task: TaskView, sees_only: str | None) -> TaskView | None:
        reason = task.pending_reason
        if reason is None or reason.blocker is None or not is_uuid7(reason.blocker):
            return None
        try:
            return await self._read_model.task(reason.blocker, sees_only=sees_only)
        except Refusal:
            return None

    async def _refused(self, id: TaskId, sees_only: str | None) -> Why:
        """A task that never was: its submission was refused."""
        found = await self._read_model.rejections(id, sees_only=sees_only)
        if not found:
            raise not_found("there is no such task")
        lines = [_refusal_line(rejection, id) for rejection in found]
        return Why(
            task=None,
            blocker=None,
            summary=lines[-1].message,
            waits=[],
            decisions=lines,
            complete=len(found) < REJECTIONS_MAX,
        )


def _is_whole(history: Sequence[HistoryItem], task: TaskView) -> bool:
    """Whether a history, read after the task, reaches as far as the task itself: a very long one is cut off."""
    return not history or parse_position(history[-1].position) >= parse_position(task.position)


def _event_of(item: HistoryItem) -> tuple[Position, Instant, str, object]:
    """An event of a task's history, as the log has it."""
    data = {"type": item.type, "by": item.by, **item.data}
    if not item.type.startswith("Worker"):
        data["task"] = ""
    event = decode_event(msgspec.Raw(msgspec.json.encode(data)))
    at = from_datetime(datetime.fromisoformat(item.at))
    return parse_position(item.position), at, item.by or by_of(event), event


def _unexplained(since: Instant, until: Instant | None, now: Instant) -> Wait:
    words = "for what would take too long to find out"
    return Wait(code="unknown", words=words, since=since, until=until, total=max(0, (until or now) - since))


def _summary(lines: Sequence[Line]) -> str:
    """The story in one sentence: what it waited for, where it was placed, and what it came to."""
    told = [line.words for line in lines if line.type in _SUMMED_UP]
    if len(told) > SUMMARY_PARTS_MAX:
        told = [*told[: SUMMARY_PARTS_MAX // 2], "…", *told[-SUMMARY_PARTS_MAX // 2 :]]
    return "; ".join(told) or (lines[-1].words if lines else "")


def _wait_view(wait: Wait) -> WaitView:
    return WaitView(
        code=wait.code,
        message=wait_words(wait),
        blocker=wait.blocker,
        since=format_instant(wait.since),
        until=None if wait.until is None else format_instant(wait.until),
        seconds=wait.total / SECOND,
        times=wait.times,
    )


def _decision_view(line: Line) -> DecisionView:
    return DecisionView(
        position=None if line.position is None else format_position(line.position),
        at=format_instant(line.at),
        by=line.by,
        type=line.type,
        message=line.words,
    )


def _refusal_line(rejection: Rejection, task: str) -> DecisionView:
    faults = "; ".join(f"{fault.path}: {fault.message}" for fault in rejection.errors)
    within = "" if rejection.command == task else f", which came in command {rejection.command},"
    told = f"refused the {rejection.verb}{within} ({rejection.status} {rejection.code}): {rejection.message}"
    return DecisionView(
        position=rejection.position,
        at=rejection.at,
        by="scheduler",
        type="CommandRejected",
        message=told + (f" ({faults})" if faults and faults not in rejection.message else ""),
    )
