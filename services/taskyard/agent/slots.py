"""The memory of the slots: what became of the highest assignment that each has seen. Plain code without I/O.

Per slot the highest position and its outcome are remembered for ever, so that a repeated, late or doubled message
never runs anything twice. An older position is declined; an equal one gets the same answer, and its end is reported
again; a newer one begins if the slot has no live process. What was declined stays declined: whoever was told so may
already have given the task to another worker.

`assign` and `cancel` return what is to be done; `take_changes` returns what must be on disk before it is done.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct, structs

from taskyard.contracts.agent_protocol import (
    ACCEPTED,
    AGENT_SLOTS_MAX,
    DECLINED,
    LOST,
    REASON_NO_KIND,
    REASON_NO_SLOT,
    SEEN_NEW,
    SEEN_STARTED,
    AnyReport,
    AssignAnswer,
    Assignment,
    AssignRequest,
    Cancel,
    Failed,
    Lost,
    Planned,
    Started,
)
from taskyard.contracts.events import TaskError
from taskyard.contracts.values import Incarnation, Instant, Position, TaskId


class ProcessIdentity(Struct, frozen=True, kw_only=True):
    """A process for certain: ids are used again, but not with the same start (clock ticks after boot) in one boot.

    The process leads its own group and session, so `pid` also names the group.
    """

    pid: int
    start_ticks: int
    boot: str


class Remembered(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a slot remembers of the highest position that it has seen. Stored: fields may be added with a default."""

    position: Position
    task: TaskId
    attempt: int
    outcome: str
    reason: str = ""
    end: AnyReport | None = None
    has_plan: bool = False
    """An apply was declined: the plan of its task waits on."""

    @property
    def keeps_plan(self) -> bool:
        """Whether the slot is reserved for a plan that waits."""
        return self.has_plan or isinstance(self.end, Planned)


class Live(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An attempt that was accepted and has not ended. Stored: fields may be added with a default."""

    position: Position
    task: TaskId
    attempt: int
    slot: int
    kind: str
    apply: bool = False
    started: bool = False
    process: ProcessIdentity | None = None

    @property
    def is_unbegun(self) -> bool:
        """Whether nothing of it can have run: a program runs only when its process is on disk."""
        return not self.started and self.process is None


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A live attempt to stop: because it was cancelled, or because its slot belongs to a newer one."""

    position: Position
    cause: str
    grace_seconds: float


@dataclass(kw_only=True)
class Decision:
    """What follows from a request: answers, attempts to begin, reports to send, attempts to stop, plans to forget.

    `faults` are what could not be judged, which has no answer.
    """

    answers: list[AssignAnswer] = field(default_factory=list[AssignAnswer])
    begin: list[Assignment] = field(default_factory=list[Assignment])
    reports: list[AnyReport] = field(default_factory=list[AnyReport])
    stops: list[Stop] = field(default_factory=list[Stop])
    plans_over: list[TaskId] = field(default_factory=list[TaskId])
    faults: list[tuple[Position, Exception]] = field(default_factory=list[tuple[Position, Exception]])


@dataclass(frozen=True, kw_only=True)
class MemoryChanges:
    """What changed since the last time: records of slots, and live attempts (`None`: ended)."""

    slots: list[tuple[int, Remembered]]
    live: list[tuple[Position, Live | None]]


SUPERSEDED_GRACE_SECONDS = 10.0


class SlotMemory:
    """The memory of all slots of one agent.

    `lineage` are the incarnations that this memory reaches back to: this run's, and those with the same journal before.
    """

    def __init__(
        self,
        *,
        lineage: Collection[Incarnation],
        slot_count: int,
        kinds: Collection[str],
        remembered: Mapping[int, Remembered],
        live: Sequence[Live],
    ) -> None:
        self._lineage = frozenset(lineage)
        self._slot_count = slot_count
        self._kinds = frozenset(kinds)
        self._remembered = dict(remembered)
        self._live = {one.slot: one for one in live}
        self._slot_by_position = {one.position: one.slot for one in live}
        self._written = {one.position for one in live}
        self._unbegun: set[Position] = set()
        self._changed_slots: set[int] = set()
        self._changed_live: dict[Position, None] = {}

    @property
    def live(self) -> list[Live]:
        """The attempts that were accepted and have not ended."""
        return list(self._live.values())

    def remembered(self, slot: int) -> Remembered | None:
        """What the slot remembers."""
        return self._remembered.get(slot)

    def assign(self, request: AssignRequest, *, now: Instant, refusal: str | None) -> Decision:
        """Judge assignments for this incarnation. `refusal` is why this agent takes nothing new now, None if it does."""
        decision = Decision()
        for assignment in request.assignments:
            try:
                answer = self._assign_one(assignment, decision, now, refusal)
            except Exception as error:  # noqa: BLE001 - one of them must not keep the others from their answers
                decision.faults.append((assignment.position, error))
                continue
            if answer is not None:
                decision.answers.append(answer)
        return decision

    def cancel(self, cancels: Sequence[Cancel], *, now: Instant) -> Decision:
        """Judge cancels: stop what lives, record what was never seen, report again what has ended."""
        decision = Decision()
        for cancel in cancels:
            try:
                self._cancel_one(cancel, decision, now)
            except Exception as error:  # noqa: BLE001 - as above
                decision.faults.append((cancel.position, error))
                continue
            decision.answers.append(AssignAnswer(position=cancel.position, outcome=ACCEPTED))
        return decision

    def keep_unbegun(self, positions: Collection[Position]) -> None:
        """After a restart: these were accepted, and certainly not begun. Each begins when it is assigned again."""
        self._unbegun.update(positions)

    def give_up_unbegun(self, *, now: Instant) -> list[AnyReport]:
        """Nobody will assign again what was not begun. Returns what is to be reported."""
        return self.lose(self._unbegun, now=now)

    def began(self, position: Position) -> None:
        """The attempt runs."""
        self._set_live(position, started=True)

    def spawned(self, position: Position, process: ProcessIdentity) -> None:
        """The process of the attempt exists; its program does not run yet."""
        self._set_live(position, process=process)

    def ended(self, position: Position, end: AnyReport) -> None:
        """The attempt has ended, and no process of it lives."""
        self._unbegun.discard(position)
        slot = self._slot_by_position.pop(position)
        live = self._live.pop(slot)
        self._changed_live[position] = None
        remembered = self._remembered.get(slot)
        if remembered is not None and remembered.position == position:
            self._remember(slot, live, outcome=ACCEPTED, end=end)

    def has_begun(self, position: Position) -> bool:
        """Whether the attempt lives and its beginning was reported."""
        live = self._live_at(position)
        return live is not None and live.started

    def lose(self, positions: Collection[Position], *, now: Instant) -> list[AnyReport]:
        """After a restart: these do not live any more. Returns what is to be reported."""
        reports: list[AnyReport] = []
        for live in [one for one in self.live if one.position in positions]:
            lost = Lost(task=live.task, attempt=live.attempt, at=now, message="the worker was restarted")
            self.ended(live.position, lost)
            reports.append(lost)
        return reports

    def take_changes(self) -> MemoryChanges:
        """What changed since the last call; an attempt that began and ended in between never lived."""
        live = [(position, self._live_at(position)) for position in self._changed_live]
        changes = MemoryChanges(
            slots=[(slot, self._remembered[slot]) for slot in sorted(self._changed_slots)],
            live=[(position, one) for position, one in live if one is not None or position in self._written],
        )
        for position, one in changes.live:
            (self._written.discard if one is None else self._written.add)(position)
        self._changed_slots.clear()
        self._changed_live.clear()
        return changes

    def _assign_one(
        self, assignment: Assignment, decision: Decision, now: Instant, refusal: str | None
    ) -> AssignAnswer | None:
        position, slot = assignment.position, assignment.slot
        if not 0 <= slot < AGENT_SLOTS_MAX:
            return _declined(position, REASON_NO_SLOT)
        known = self._remembered.get(slot)
        if known is not None and known.position == position:
            if position in self._unbegun and not self._take_up(assignment, decision, now, refusal):
                return None  # it is assigned again until there is an answer
            self._report_again(self._remembered[slot], slot, decision, now)
            return AssignAnswer(position=position, outcome=known.outcome, reason=known.reason)
        if assignment.incarnation not in self._lineage:
            return AssignAnswer(position=position, outcome=LOST, reason="the journal of this worker is younger")
        if assignment.seen != SEEN_NEW and (known is None or known.position < position):
            return AssignAnswer(position=position, outcome=LOST, reason="the journal of this worker was put back")
        if known is not None and position < known.position:
            return _declined(position, "the slot has seen a newer assignment")
        self._supersede(slot, assignment.task, decision, now)
        reason = refusal or self._obstacle(assignment)
        if reason is not None:
            self._remember(slot, assignment, outcome=DECLINED, reason=reason, has_plan=assignment.apply)
            return _declined(position, reason)
        self._accept(assignment, decision)
        return AssignAnswer(position=position, outcome=ACCEPTED)

    def _take_up(self, assignment: Assignment, decision: Decision, now: Instant, refusal: str | None) -> bool:
        """Begin what an earlier run has accepted, once; whether there is an answer by now."""
        if assignment.seen == SEEN_STARTED or self._misfit(assignment) is not None:
            self.lose([assignment.position], now=now)  # it may have run, or cannot any more; its end is reported again
        elif refusal is not None:
            return False
        else:
            self._unbegun.discard(assignment.position)
            decision.begin.append(assignment)
        return True

    def _supersede(self, slot: int, task: TaskId, decision: Decision, now: Instant) -> None:
        """The log gave the slot to another attempt: what lives there is no longer current, nor another task's plan."""
        known = self._remembered.get(slot)
        if known is not None and known.keeps_plan and known.task != task:
            decision.plans_over.append(known.task)
        if (live := self._live.get(slot)) is not None:
            self._stop(live, "superseded", SUPERSEDED_GRACE_SECONDS, decision, now)
            if live.slot not in self._live and live.task != task:
                decision.plans_over.append(live.task)

    def _stop(self, live: Live, cause: str, grace_seconds: float, decision: Decision, now: Instant) -> None:
        if live.position not in self._unbegun:
            decision.stops.append(Stop(position=live.position, cause=cause, grace_seconds=grace_seconds))
            return
        end = _cancelled(live, now)
        self.ended(live.position, end)
        decision.reports.append(end)

    def _misfit(self, assignment: Assignment) -> str | None:
        if assignment.slot >= self._slot_count:
            return REASON_NO_SLOT
        if assignment.kind not in self._kinds:
            return REASON_NO_KIND
        return None

    def _obstacle(self, assignment: Assignment) -> str | None:
        if (misfit := self._misfit(assignment)) is not None:
            return misfit
        live = self._live.get(assignment.slot)
        if live is not None:
            process = f" as process {live.process.pid}" if live.process else ""
            return f"attempt {live.attempt} of {live.task} still lives in the slot{process}"
        return None

    def _accept(self, assignment: Assignment, decision: Decision) -> None:
        self._remember(assignment.slot, assignment, outcome=ACCEPTED)
        live = Live(
            position=assignment.position,
            task=assignment.task,
            attempt=assignment.attempt,
            slot=assignment.slot,
            kind=assignment.kind,
            apply=assignment.apply,
        )
        self._live[live.slot] = live
        self._slot_by_position[live.position] = live.slot
        self._changed_live[live.position] = None
        decision.begin.append(assignment)

    def _cancel_one(self, cancel: Cancel, decision: Decision, now: Instant) -> None:
        live = self._live_at(cancel.position)
        if live is not None:
            self._stop(live, cancel.cause, cancel.grace_seconds, decision, now)
            if live.slot not in self._live:
                decision.plans_over.append(live.task)
            return
        known = self._remembered.get(cancel.slot)
        if known is not None and known.position == cancel.position and known.end is not None:
            self._report_again(known, cancel.slot, decision, now)
            if known.keeps_plan:
                decision.plans_over.append(cancel.task)
            return
        if known is not None and known.position > cancel.position:
            return  # the log has given the slot on: it already knows the end
        end = _cancelled(cancel, now)
        decision.reports.append(end)
        if not 0 <= cancel.slot < AGENT_SLOTS_MAX:
            return
        if known is not None and known.task == cancel.task and known.keeps_plan:
            decision.plans_over.append(cancel.task)  # its apply has not begun here, and never will
        if known is not None and known.position == cancel.position:  # it was declined, and stays so
            self._remember(cancel.slot, cancel, outcome=known.outcome, reason=known.reason, end=end)
            return
        self._supersede(cancel.slot, cancel.task, decision, now)
        self._remember(cancel.slot, cancel, outcome=ACCEPTED, end=end)

    def _report_again(self, known: Remembered, slot: int, decision: Decision, now: Instant) -> None:
        live = self._live.get(slot)
        if known.end is not None:
            decision.reports.append(known.end)
        elif live is not None and live.position == known.position and live.started:
            # A held attempt that is sent again shows as assigned: it has run all the time.
            decision.reports.append(Started(task=live.task, attempt=live.attempt, at=now))

    def _remember(
        self,
        slot: int,
        what: Assignment | Cancel | Live,
        *,
        outcome: str,
        reason: str = "",
        end: AnyReport | None = None,
        has_plan: bool = False,
    ) -> None:
        self._remembered[slot] = Remembered(
            position=what.position,
            task=what.task,
            attempt=what.attempt,
            outcome=outcome,
            reason=reason,
            end=end,
            has_plan=has_plan,
        )
        self._changed_slots.add(slot)

    def _live_at(self, position: Position) -> Live | None:
        slot = self._slot_by_position.get(position)
        return None if slot is None else self._live[slot]

    def _set_live(self, position: Position, **changes: Any) -> None:
        slot = self._slot_by_position[position]
        self._live[slot] = structs.replace(self._live[slot], **changes)
        self._changed_live[position] = None


def _cancelled(what: Cancel | Live, now: Instant) -> Failed:
    error = TaskError(code="cancelled", message="cancelled before it began", retryable=False)
    return Failed(task=what.task, attempt=what.attempt, at=now, error=error)


def _declined(position: Position, reason: str) -> AssignAnswer:
    return AssignAnswer(position=position, outcome=DECLINED, reason=reason)
