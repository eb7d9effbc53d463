"""The one judgement: the whole log is read once, then everything that was seen beside it is compared with it."""

from collections import Counter

from msgspec import Struct

from taskyard.contracts.events import (
    AnyEvent,
    AttemptSucceeded,
    CommandRejected,
    SlotAssigned,
    TaskStarted,
    TaskSubmitted,
    UnknownEvent,
    event_name,
)
from taskyard.contracts.values import Instant, Position, format_position, make_position
from taskyard.judge.commands import Commands, check_told
from taskyard.judge.commits import Commits, Takeover
from taskyard.judge.ends import Ends
from taskyard.judge.evidence import Evidence, Logged
from taskyard.judge.faults import Fault, Faults, Rule
from taskyard.judge.healthy import Healthy
from taskyard.judge.holdings import Holdings
from taskyard.judge.life import Life
from taskyard.judge.lives import Lives, Step
from taskyard.judge.readers import check_noted, check_shown
from taskyard.judge.reports import Reports
from taskyard.judge.runs import Assignments, check_runs
from taskyard.judge.timing import Timing
from taskyard.judge.turns import Turns
from taskyard.judge.verdicts import Verdicts
from taskyard.judge.versions import Versions


class Verdict(Struct, kw_only=True):
    """All that is wrong, and what was looked at.

    `lives` are all tasks by id; `types` the events of each in order, `voids` how many of them did nothing; `started_at` is
    when each began for the first time; `head` is the last sequence, `digest` one of the whole log.
    """

    faults: list[Fault]
    lives: dict[str, Life]
    types: dict[str, list[str]]
    voids: Counter[str]
    attempts_started: Counter[str]
    started_at: dict[str, Instant]
    takeovers: list[Takeover]
    head: int
    events: int
    digest: str

    def count(self, *rules: Rule) -> int:
        """How many faults there are of these rules."""
        return sum(fault.rule in rules for fault in self.faults)


def judge(evidence: Evidence) -> Verdict:
    """Judge a run. Nothing may be appended to its log meanwhile."""
    case = _Case(evidence)
    for logged in evidence.log:
        case.see(logged)
    return case.conclude()


class _Case:
    """One judgement on its way."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._faults = Faults()
        self._commits = Commits(self._faults)
        self._versions = Versions(self._faults, evidence.knows)
        self._commands = Commands(self._faults, evidence.asked)
        self._reports = Reports(self._faults, evidence.reported)
        self._ends = Ends(self._faults)
        self._holdings = Holdings(self._faults)
        self._healthy = Healthy(self._faults)
        self._timing = Timing(self._faults)
        self._turns = Turns(self._faults)
        self._verdicts = Verdicts(self._faults, evidence.asked)
        self._assignments = Assignments()
        self._lives = Lives()
        self._attempts: dict[str, int] = {}
        self._tasks: dict[int, str | None] = {}
        self._types: dict[str, list[str]] = {}
        self._voids: Counter[str] = Counter()
        self._started: Counter[str] = Counter()
        self._started_at: dict[str, Instant] = {}

    # -- the log -------------------------------------------------------------------------------------------------------

    def see(self, logged: Logged) -> None:
        """The next message."""
        read = self._commits.see(logged)
        if read is None:
            return
        commit, events = read
        self._versions.see_commit(commit, events, logged.sequence)
        self._commands.see_commit(commit)
        self._reports.see_commit(commit)
        self._turns.see_commit(commit, logged.sequence)
        self._ends.see_commit(commit, logged.sequence)
        for index, event in enumerate(events):
            self._event(event, make_position(logged.sequence, index), logged.seconds)

    def _event(self, event: AnyEvent | UnknownEvent, position: Position, seconds: float) -> None:
        at, where = self._commits.at, f"{format_position(position)} {event_name(event)}"
        task: str | None = getattr(event, "task", None)
        self._tasks[position] = task
        self._commands.see(event, where)
        self._holdings.see_worker(event)
        self._timing.see(event, at, seconds)
        self._turns.see(event)
        if isinstance(event, TaskSubmitted):
            text = f"{where}: {task} is accepted twice"
            self._faults.require(task not in self._lives.by_id, Rule.ENDED_ONCE, text, task=task)
        elif isinstance(event, SlotAssigned):
            self._number(event, where)
        for step in self._lives.tell(event, at, position):
            self._verdicts.see(event, position, step.life, counts=step.counts, where=where)
            self._ends.check(event, step, where)
            if step.counts and not isinstance(event, UnknownEvent):
                self._counts(event, step, position, seconds, where)
            elif task is not None:
                self._voids[task] += 1
        self._note(event, task, where)

    def _number(self, event: SlotAssigned, where: str) -> None:
        before = self._attempts.get(event.task, 0)
        text = f"{where}: attempt {event.attempt} of {event.task} after {before}"
        self._faults.require(event.attempt > before, Rule.ATTEMPTS, text, task=event.task)
        self._attempts[event.task] = max(event.attempt, before)

    def _counts(self, event: AnyEvent, step: Step, position: Position, seconds: float, where: str) -> None:
        """An event took effect on a task."""
        life, at = step.life, self._commits.at
        self._holdings.see(event, step, where)
        self._reports.check(event, life, where)
        self._healthy.check(event, step, seconds, where)
        self._timing.check(event, step, at, where)
        self._turns.check(event, step, where)
        self._assignments.see(event, step, position, seconds)
        if isinstance(event, TaskStarted):
            self._started[life.id] += 1
            self._started_at.setdefault(life.id, at)
        elif (
            isinstance(event, AttemptSucceeded)
            and life.policy.asks_approval
            and (life.id, event.attempt) not in self._evidence.lied
        ):
            is_asked = life.is_confirmed and life.plan is not None and life.plan < event.attempt
            self._faults.require(is_asked, Rule.CONFIRMATION, f"{where}: {life.id} applied unconfirmed", task=life.id)

    def _note(self, event: AnyEvent | UnknownEvent, task: str | None, where: str) -> None:
        if task is None or isinstance(event, CommandRejected):
            return
        self._faults.require(task in self._lives.by_id, Rule.LOG, f"{where}: nobody knows {task}", task=task)
        self._types.setdefault(task, []).append(event_name(event))

    # -- what is beside it ---------------------------------------------------------------------------------------------

    def conclude(self) -> Verdict:
        """Everything that needs the whole log."""
        faults, evidence, lives = self._faults, self._evidence, self._lives.by_id
        faults.at = None
        if evidence.is_over:
            self._everything_has_ended()
        for id in evidence.accepted:
            if id not in lives:
                faults.add(Rule.LOST, f"{id} was accepted and is not in the log", task=id)
            elif evidence.is_over and not lives[id].is_over:
                faults.add(Rule.LOST, f"{id} was accepted and has no end: it is {lives[id].stage}", task=id)
        check_told(faults, evidence.told, self._tasks)
        self._verdicts.check(evidence.told)
        self._healthy.conclude(evidence)
        check_runs(faults, self._assignments, lives, evidence)
        check_noted(faults, evidence.noted, self._assignments, lives)
        if evidence.shown is not None:
            check_shown(faults, evidence.shown, lives, self._types)
        return Verdict(
            faults=faults.found,
            lives=lives,
            types=self._types,
            voids=self._voids,
            attempts_started=self._started,
            started_at=self._started_at,
            takeovers=self._commits.takeovers,
            head=self._commits.head,
            events=len(self._tasks),
            digest=self._commits.digest,
        )

    def _everything_has_ended(self) -> None:
        faults = self._faults
        self._commands.end()
        for id, life in self._lives.by_id.items():
            if not life.is_over:
                faults.add(Rule.STUCK, f"the {life.kind} {id} has not ended and is {life.stage}", task=id)
        for slot, id in self._holdings.held_at_the_end():
            faults.add(Rule.LEAKED, f"{slot} is held at the end by {id}", task=id)
        for workspace, id in self._holdings.workspaces.items():
            faults.add(Rule.LEAKED, f"workspace {workspace} is held at the end by {id}", task=id)
