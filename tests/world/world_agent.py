"""A simulated agent, written from agent_protocol: slots that remember, work that takes steps, and a disk that survives."""

import random
from dataclasses import dataclass, field

from msgspec import Raw

from taskyard.contracts.agent_protocol import (
    ACCEPTED,
    DECLINED,
    LOST,
    REASON_INCARNATION,
    AnyReport,
    AssignAnswer,
    Assignment,
    AssignRequest,
    Cancel,
    Failed,
    Heartbeat,
    Lost,
    Planned,
    ReportBatch,
    Started,
    Succeeded,
)
from taskyard.contracts.events import Changes, TaskError
from taskyard.contracts.lifecycle import PLAN_MISSING
from taskyard.contracts.values import Instant

KINDS = ("command", "noop", "plan", "plan_and_apply")
FOREVER = b"forever"
"""In the input of a task: it runs until it is stopped."""
SLOTS = (("any",), ("plan",), ("plan",))


@dataclass
class Memory:
    """What a slot remembers of the highest position that it has seen."""

    position: int
    task: str
    attempt: int
    outcome: str
    reason: str = ""
    end: AnyReport | None = None


@dataclass
class Live:
    """A process."""

    assignment: Assignment
    has_started: bool = False
    is_stopping: bool = False


@dataclass
class Disk:
    """What survives a restart of the agent."""

    born: int = 1
    memory: dict[int, Memory] = field(default_factory=dict)
    live: dict[int, Live] = field(default_factory=dict)
    outbox: list[AnyReport] = field(default_factory=list)
    plans: set[tuple[str, int]] = field(default_factory=set)


class Agent:
    """One worker of the pool `default`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.incarnation = 1
        self.is_up = True
        self.is_leaving = False
        self.disk = Disk()
        self.applied: list[tuple[str, int]] = []
        self._batch = 0

    # -- what it hears ---------------------------------------------------------------------------------------------

    def assign(self, request: AssignRequest, now: Instant) -> tuple[AssignAnswer, ...]:
        return tuple(self._assign(each, request.incarnation, now) for each in request.assignments)

    def _assign(self, a: Assignment, incarnation: int, now: Instant) -> AssignAnswer:
        known, live = self.disk.memory.get(a.slot), self.disk.live.get(a.slot)
        if known is not None and known.position == a.position:
            self._again(known, live, now)
            return AssignAnswer(position=a.position, outcome=known.outcome, reason=known.reason)
        if incarnation != self.incarnation:
            return AssignAnswer(position=a.position, outcome=DECLINED, reason=REASON_INCARNATION)
        if a.incarnation < self.disk.born:
            return AssignAnswer(position=a.position, outcome=LOST, reason="the journal is younger")
        if known is not None and a.position < known.position:
            return AssignAnswer(position=a.position, outcome=DECLINED, reason="older")
        reason = "leaving" if self.is_leaving else ""
        if live is not None:
            reason, live.is_stopping = f"{live.assignment.task} lives in the slot", True
        memory = self.disk.memory[a.slot] = Memory(a.position, a.task, a.attempt, DECLINED, reason)
        if not reason:
            memory.outcome = ACCEPTED
            self.disk.live[a.slot] = Live(a)
        return AssignAnswer(position=a.position, outcome=memory.outcome, reason=reason)

    def _again(self, known: Memory, live: Live | None, now: Instant) -> None:
        if known.end is not None:
            self.disk.outbox.append(known.end)
        elif live is not None and live.assignment.position == known.position and live.has_started:
            self.disk.outbox.append(Started(task=known.task, attempt=known.attempt, at=now))

    def cancel(self, cancels: tuple[Cancel, ...], now: Instant) -> tuple[AssignAnswer, ...]:
        for each in cancels:
            self._cancel(each, now)
        return tuple(AssignAnswer(position=each.position, outcome=ACCEPTED) for each in cancels)

    def _cancel(self, c: Cancel, now: Instant) -> None:
        live, known = self.disk.live.get(c.slot), self.disk.memory.get(c.slot)
        if live is not None and live.assignment.position == c.position:
            live.is_stopping = True
            return
        if known is not None and known.position == c.position and known.end is not None:
            self.disk.outbox.append(known.end)
            return
        if known is not None and known.position > c.position:
            return
        error = TaskError(code="cancelled", message="cancelled before it began")
        end = Failed(task=c.task, attempt=c.attempt, at=now, error=error)
        outcome = known.outcome if known is not None and known.position == c.position else ACCEPTED
        self.disk.memory[c.slot] = Memory(c.position, c.task, c.attempt, outcome, end=end)
        self.disk.outbox.append(end)
        if live is not None:
            live.is_stopping = True

    # -- what it does ----------------------------------------------------------------------------------------------

    def work(self, rng: random.Random, now: Instant, *, may_fail: bool) -> None:
        """One process goes on by one step."""
        if not self.disk.live:
            return
        live = self.disk.live[rng.choice(sorted(self.disk.live))]
        a = live.assignment
        if live.is_stopping:
            error = TaskError(code="cancelled", message="stopped")
            self._end(live, Failed(task=a.task, attempt=a.attempt, at=now, error=error))
        elif a.apply and (a.task, a.plan_attempt) not in self.disk.plans:
            error = TaskError(code=PLAN_MISSING, message="no plan")
            self._end(live, Failed(task=a.task, attempt=a.attempt, at=now, error=error))
        elif not live.has_started:
            live.has_started = True
            self.disk.outbox.append(Started(task=a.task, attempt=a.attempt, at=now))
            if a.apply:
                self.applied.append((a.task, a.attempt))
        elif FOREVER in bytes(a.input):
            return
        elif may_fail and rng.random() < 0.2:
            error = TaskError(code="exit_status", message="1", retryable=rng.random() < 0.7)
            self._end(live, Failed(task=a.task, attempt=a.attempt, at=now, error=error))
        elif a.kind == "plan_and_apply" and not a.apply:
            self.disk.plans.add((a.task, a.attempt))
            self._end(live, Planned(task=a.task, attempt=a.attempt, at=now, changes=Changes(add=1)))
        else:
            self._end(live, Succeeded(task=a.task, attempt=a.attempt, at=now, result=Raw(b"null")))

    def _end(self, live: Live, end: AnyReport) -> None:
        del self.disk.live[live.assignment.slot]
        known = self.disk.memory[live.assignment.slot]
        if known.position == live.assignment.position:
            known.end = end
        self.disk.outbox.append(end)

    def report(self) -> ReportBatch | None:
        """What is to be stored now; kept on disk until `reported`."""
        if not self.disk.outbox:
            return None
        self._batch += 1
        return ReportBatch(incarnation=self.incarnation, number=self._batch, reports=tuple(self.disk.outbox[:5]))

    def reported(self, batch: ReportBatch) -> None:
        del self.disk.outbox[: len(batch.reports)]

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(
            incarnation=self.incarnation, pool="default", slots=SLOTS, kinds=KINDS, leaving=self.is_leaving
        )

    # -- faults ------------------------------------------------------------------------------------------------------

    def restart(self, now: Instant, *, keeps_journal: bool) -> None:
        """Its process begins anew: what lived is dead."""
        self.incarnation += 1
        self.is_up, self.is_leaving = True, False
        if not keeps_journal:
            self.disk = Disk(born=self.incarnation)
        for live in list(self.disk.live.values()):
            a = live.assignment
            self._end(live, Lost(task=a.task, attempt=a.attempt, at=now, message="restarted"))
