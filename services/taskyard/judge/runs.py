"""What really ran, as witnesses saw it, against what the log says should have run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from taskyard.contracts.events import (
    AnyEvent,
    AttemptReleased,
    AttemptSucceeded,
    ForceStopped,
    NotDelivered,
    SlotAssigned,
    WorkerLost,
)
from taskyard.contracts.values import Position
from taskyard.judge.evidence import Evidence, Ran
from taskyard.judge.faults import Faults, Rule
from taskyard.judge.life import OPEN, Life
from taskyard.judge.lives import Step


@dataclass(frozen=True, kw_only=True)
class _Closed:
    """When (in the witnesses' seconds) and by what an attempt was over for the log."""

    seconds: float
    event: AnyEvent


@dataclass(kw_only=True)
class Assignments:
    """What the log says of attempts: who was to run them, which of them apply, and what ended them."""

    by_position: dict[int, SlotAssigned] = field(default_factory=dict[int, SlotAssigned])
    given_at: dict[int, float] = field(default_factory=dict[int, float])
    by_attempt: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    applies: set[int] = field(default_factory=set[int])
    closed: dict[tuple[str, int], _Closed] = field(default_factory=dict[tuple[str, int], _Closed])
    given_up: set[str] = field(default_factory=set[str])

    def see(self, event: AnyEvent, step: Step, position: Position, seconds: float) -> None:
        """An event took effect."""
        life = step.life
        if isinstance(event, SlotAssigned):
            self.by_position[position] = event
            self.given_at[position] = seconds
            self.by_attempt[life.id, life.attempt] = position
            if life.is_confirmed:
                self.applies.add(position)
        elif isinstance(event, ForceStopped | AttemptReleased):
            self.given_up.add(life.id)
        if step.before in OPEN and life.stage not in OPEN:
            self.closed[life.id, life.attempt] = _Closed(seconds=seconds, event=event)


def check_runs(faults: Faults, assignments: Assignments, lives: dict[str, Life], evidence: Evidence) -> None:
    """Everything about processes that really ran, but for the attempts that their worker lied about."""
    lied = evidence.lied
    ran = [run for run in evidence.ran if (run.task, run.attempt) not in lied]
    by_attempt = Counter((run.task, run.attempt) for run in ran)
    for (id, attempt), count in by_attempt.items():
        if count > 1:
            faults.add(Rule.RAN_ONCE, f"attempt {attempt} of {id} ran {count} times", task=id)
    for id, count in Counter(task for task, _ in by_attempt).items():
        life = lives.get(id)
        if life is not None and not life.policy.asks_approval and count > life.policy.max_attempts:
            faults.add(Rule.RAN_ONCE, f"{id} ran {count} times, and may {life.policy.max_attempts} times", task=id)
    for id, count in Counter(run.task for run in ran if run.apply).items():
        if count > 1:
            faults.add(Rule.RAN_ONCE, f"the apply of {id} ran {count} times", task=id)
    for run in ran:
        _check_run(faults, assignments, run)
    _check_slots(faults, ran)
    _check_workspaces(faults, assignments, lives, ran)
    _check_fenced(faults, lives, evidence)
    _check_room(faults, assignments, evidence)
    kinds = {run.kind for run in ran}
    for (id, attempt), closed in assignments.closed.items():
        if (id, attempt) in lied:
            continue  # what the log was told is not so
        is_watched = lives[id].kind in kinds if evidence.watched is None else id in evidence.watched
        did_run = (id, attempt) in by_attempt
        if isinstance(closed.event, AttemptSucceeded) and is_watched and not did_run:
            faults.add(Rule.FENCE, f"attempt {attempt} of {id} succeeded and never ran", task=id)
        if isinstance(closed.event, NotDelivered) and did_run:
            faults.add(Rule.FENCE, f"attempt {attempt} of {id} was not delivered and ran", task=id)


def _check_run(faults: Faults, assignments: Assignments, run: Ran) -> None:
    where = run.host if run.slot is None else f"{run.host} slot {run.slot}"
    what = f"{run.kind} {run.task}, attempt {run.attempt} on {where},"
    position = run.position
    if position is None:
        position = assignments.by_attempt.get((run.task, run.attempt), 0)
    assigned = assignments.by_position.get(position)
    is_his = assigned is not None and (
        (assigned.task, assigned.attempt, assigned.worker) == (run.task, run.attempt, run.worker or run.host)
        and run.slot in {None, assigned.slot}
    )
    text = f"{what} ran without its assignment: at its position stands {assigned}"
    faults.require(is_his, Rule.FENCE, text, task=run.task)
    if run.apply:
        text = f"{what} was applied without a confirmation"
        faults.require(position in assignments.applies, Rule.CONFIRMATION, text, task=run.task)
    closed = assignments.closed.get((run.task, run.attempt))
    # Only a lost worker and a person's word end an attempt without knowing that its process is over.
    if closed is None or isinstance(closed.event, ForceStopped | AttemptReleased | WorkerLost):
        return
    is_after = run.began > closed.seconds or run.ended is None or run.ended > closed.seconds
    text = f"{what} ran after {type(closed.event).__name__} had ended it"
    faults.require(not is_after, Rule.FENCE, text, task=run.task)


def _check_slots(faults: Faults, ran: Sequence[Ran]) -> None:
    slots: dict[tuple[str, int], list[Ran]] = {}
    for run in sorted(ran, key=lambda run: run.began):
        if run.slot is not None:
            slots.setdefault((run.host, run.slot), []).append(run)
    for (host, slot), runs in slots.items():
        for one, other in pairwise(runs):
            if one.position is not None and other.position is not None and other.position <= one.position:
                text = f"{host} ran {other.task} in slot {slot} after a newer assignment"
                faults.add(Rule.FENCE, text, task=other.task)
            if _overlap(one, other):
                text = f"{host} ran {one.task} and {other.task} in slot {slot} at once"
                faults.add(Rule.FENCE, text, task=other.task)


def _check_workspaces(faults: Faults, assignments: Assignments, lives: dict[str, Life], ran: Sequence[Ran]) -> None:
    workspaces: dict[str, list[Ran]] = {}
    for run in sorted(ran, key=lambda run: run.began):
        if (life := lives.get(run.task)) is not None and life.policy.locks_queue:
            workspaces.setdefault(life.policy.queue, []).append(run)
    for queue, runs in workspaces.items():
        for one, other in pairwise(runs):
            if not _overlap(one, other):
                continue
            if one.task == other.task:
                text = f"attempts {one.attempt} and {other.attempt} of {one.task} ran at once"
                faults.add(Rule.FENCE, text, task=one.task)
            elif one.task not in assignments.given_up:
                text = f"{one.task} and {other.task} ran at once in {queue}"
                faults.add(Rule.FENCE, text, task=other.task)


def _check_fenced(faults: Faults, lives: dict[str, Life], evidence: Evidence) -> None:
    """A worker without contact soon runs nothing that is tried elsewhere when it is declared lost."""
    for run in evidence.ran:
        life = lives.get(run.task)
        if life is None or run.attempt not in life.repeatable:
            continue
        for cut in evidence.cuts:
            until = cut.began + evidence.fenced_seconds
            is_over = run.ended is not None and run.ended <= until
            is_back = cut.ended is not None and (cut.ended <= until or cut.ended <= run.began)
            if cut.host == run.host and not is_over and not is_back:
                text = f"{run.host} had no contact from {cut.began:.3f} on and ran attempt {run.attempt} of {run.task}"
                faults.add(Rule.FENCE, f"{text} from {run.began:.3f} to {run.ended or 'its end'}", task=run.task)


def _check_room(faults: Faults, assignments: Assignments, evidence: Evidence) -> None:
    """What was given to a worker when it knew that its disk was full waits, there or elsewhere, until there is room."""
    for run in evidence.ran:
        given = assignments.given_at.get(run.position or 0)
        for one in evidence.no_room:
            is_full = one.host == run.host and one.began <= run.began and (one.ended is None or run.began < one.ended)
            if is_full and given is not None and given > one.began:
                text = f"{run.host} had no room from {one.began:.3f} on and began attempt {run.attempt} of {run.task}"
                faults.add(Rule.ROOM, text, task=run.task)


def _overlap(earlier: Ran, later: Ran) -> bool:
    return earlier.ended is None or earlier.ended > later.began
