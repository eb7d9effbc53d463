"""The three machines on one log in memory, folded by hand, with agents that answer at once. No faults but those asked for."""

from typing import Any

from machine_story import LOST_SECONDS, PLANS_AND_ANY, START, SUSPECT_SECONDS, run, task_id
from msgspec import json

from taskyard.contracts.agent_protocol import (
    AssignAnswer,
    Assignment,
    Failed,
    Heartbeat,
    Planned,
    Progressed,
    ReportBatch,
    Started,
    Succeeded,
)
from taskyard.contracts.events import (
    AnyEvent,
    ApplyConfirmed,
    Changes,
    SlotAssigned,
    TaskError,
    TaskSubmitted,
    decode_event,
)
from taskyard.contracts.lifecycle import Phase, Verdict
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import (
    SECOND,
    Incarnation,
    Instant,
    Position,
    Role,
    TaskId,
    make_position,
    make_uuid7,
    seconds,
)
from taskyard.dispatcher.decide import Answered, NobodyListened
from taskyard.dispatcher.delivery import SendAssignments, SendCancels
from taskyard.dispatcher.machine import Dispatcher
from taskyard.dispatcher.reports import ReportsRead
from taskyard.eventlog.commit import CommitCodec, StoredCommit
from taskyard.eventlog.memory import MemoryStream
from taskyard.machine.core import LoopCore
from taskyard.machine.inputs import Offered
from taskyard.scheduler.machine import Scheduler
from taskyard.scheduler.messages import CommandMessage
from taskyard.slot_allocator.liveness import HeartbeatSeen, Listened
from taskyard.slot_allocator.machine import SlotAllocator

CODEC: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
ROUNDS_MAX = 500
INPUTS: dict[str, Any] = {"plan": {"directory": "/tf"}, "plan_and_apply": {"directory": "/tf"}}
KINDS = ("noop", "plan", "plan_and_apply")


class Checker:
    """Folds the log by itself and holds what must hold after each event."""

    def __init__(self) -> None:
        self.table = TaskTable()
        self.ended: set[TaskId] = set()
        self.submitted: dict[TaskId, TaskSubmitted] = {}
        self.attempts: dict[TaskId, int] = {}
        self.confirmed: set[TaskId] = set()

    def apply(self, event: Any, at: Instant, position: Position) -> None:
        if isinstance(event, TaskSubmitted):
            assert event.task not in self.submitted, "an id was submitted twice"
            self.submitted[event.task] = event
        changes = self.table.apply(event, at, position)
        for change in changes:
            if change.verdict is not Verdict.EFFECTIVE or change.record is None:
                continue
            record = change.record
            assert record.id not in self.ended, "a task changed after its end"
            if isinstance(event, ApplyConfirmed):
                self.confirmed.add(record.id)
            if isinstance(event, SlotAssigned):
                assert record.attempt > self.attempts.get(record.id, 0), "an attempt did not rise"
                self.attempts[record.id] = record.attempt
                assert not record.confirmed or record.id in self.confirmed, "an apply that nobody confirmed"
                assert event.slot == 0 or record.kind == "plan", f"a {record.kind} in slot {event.slot}"
            if record.has_ended:
                self.ended.add(record.id)
        self._check_holders()

    def _check_holders(self) -> None:
        slots = [record.held_slot for record in self.table.live.values() if record.held_slot is not None]
        assert len(slots) == len(set(slots)), "two tasks in one slot"
        spaces = [record.queue for record in self.table.live.values() if record.holds_workspace]
        assert len(spaces) == len(set(spaces)), "two runs in one workspace"


class Agent:
    """Remembers every assignment; a restart ends what ran."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runs = [run(1)]
        self.is_there = True
        self.outcomes: dict[int, str] = {}
        self.running: dict[int, Assignment] = {}
        self.ends: dict[int, Any] = {}
        self.applied: list[tuple[TaskId, int | None]] = []

    @property
    def incarnation(self) -> str:
        return self.runs[-1]

    def answer(self, send: SendAssignments) -> list[AssignAnswer]:
        return [self._answer(each, send.incarnation) for each in send.assignments]

    def _answer(self, each: Assignment, incarnation: Incarnation) -> AssignAnswer:
        if incarnation != self.incarnation:
            return AssignAnswer(position=each.position, outcome="declined", reason="incarnation")
        if each.position not in self.outcomes:
            fresh = each.incarnation == self.incarnation
            self.outcomes[each.position] = "accepted" if fresh else "declined"
            if fresh:
                # What the slot still ran is nobody's any more: it is stopped first.
                self.running = {at: other for at, other in self.running.items() if other.slot != each.slot}
                self.running[each.position] = each
                if each.apply:
                    self.applied.append((each.task, each.plan_attempt))
        return AssignAnswer(position=each.position, outcome=self.outcomes[each.position])

    def restart(self) -> None:
        self.runs.append(run(len(self.runs) + 1))
        for position in self.running:
            self.outcomes[position] = "lost"
        self.running.clear()


class Trio:
    """Scheduler, slot allocator and dispatcher, each with one leader, and two agents with the default template."""

    def __init__(self) -> None:
        self.now = START
        self.stream = MemoryStream("LOG", lambda: self.now)
        self.checker = Checker()
        self.agents = [Agent("w1"), Agent("w2")]
        self.tasks: list[TaskId] = []
        self._numbers = 0
        self._instances = 0
        self.cores: list[LoopCore[Any, Any]] = [self._core(index) for index in range(3)]
        for index in range(3):
            self._lead(self.cores[index])
        self.heartbeats()

    # -- what may happen -----------------------------------------------------------------------------------------------

    def submit(self, kind: str, queue: str, priority: int) -> None:
        self._numbers += 1
        id = task_id(self._numbers, self.now)
        self.tasks.append(id)
        self.command(
            "submit", {"id": id, "kind": kind, "queue": queue, "priority": priority, "input": INPUTS.get(kind, {})}
        )

    def about(self, verb: str, number: int, repeat: bool) -> None:
        """A command about a task that was submitted; sent twice, if asked."""
        if not self.tasks:
            return
        task = self.tasks[number % len(self.tasks)]
        self._numbers += 1
        body: dict[str, Any] = {"id": make_uuid7(self.now, 10**9 + self._numbers), "task": task}
        body |= {
            "force-stop": {"reason": "x"},
            "release": {"reason": "x"},
            "reprioritise": {"priority": number % 10 + 1},
        }.get(verb, {})
        for _ in range(1 + repeat):
            self.command(verb, body, original=self.checker.submitted.get(task) if verb == "retry" else None)

    def command(self, verb: str, body: dict[str, Any], original: TaskSubmitted | None = None) -> None:
        self._numbers += 1
        message = CommandMessage(
            sequence=self._numbers,
            at=self.now,
            principal="root",
            pool="default",
            verb=verb,
            data=json.encode(body),
            original=original,
        )
        self.cores[0].offer(Offered(message, "IN", self._numbers))
        self.settle()

    def report(self, number: int, how: str) -> None:
        """One of the running attempts says something."""
        running = [(agent, each) for agent in self.agents for each in agent.running.values()]
        if running:
            self._report(*running[number % len(running)], how)
            self.settle()

    def _report(self, agent: Agent, each: Assignment, how: str) -> None:
        what: dict[str, Any] = {"task": each.task, "attempt": each.attempt, "at": self.now}
        reports: list[Any] = [Started(**what)]
        match how:
            case "progress":
                reports.append(Progressed(**what, progress=50))
            case "end" if each.kind == "plan_and_apply" and not each.apply:
                reports.append(Planned(**what, changes=Changes(add=1)))
            case "end":
                reports.append(Succeeded(**what))
            case "fail" | "fatal":
                reports.append(Failed(**what, error=TaskError(code="exit", message="", retryable=how == "fail")))
            case _:
                pass
        if len(reports) > 1 and how != "progress":
            del agent.running[each.position]
            agent.ends[each.position] = reports[-1]
        self._send_reports(agent, reports)

    def _send_reports(self, agent: Agent, reports: list[Any]) -> None:
        batch = ReportBatch(incarnation=agent.incarnation, number=1, reports=tuple(reports))
        for _ in range(2):  # what was sent may come again
            self.cores[2].offer(Offered(ReportsRead(agent=agent.name, batch=batch, size=100)))

    def wait(self, duration_seconds: float) -> None:
        """Time passes, and everybody who is there goes on speaking."""
        end = Instant(self.now + seconds(duration_seconds))
        while self.now < end:
            self.now = Instant(min(end, self.now + SECOND))
            self.heartbeats()
            self.cores[1].offer(Offered(Listened(at=self._monotonic)))
        self.settle()

    def silence(self, number: int) -> None:
        """An agent is away until it is lost."""
        agent = self.agents[number % 2]
        agent.is_there = False
        for _ in range(4):
            self.wait(LOST_SECONDS / 3)
        agent.is_there = True

    def restart(self, number: int) -> None:
        self.agents[number % 2].restart()
        self.heartbeats()

    def succeed(self, index: int) -> None:
        """Another instance takes over, from a snapshot."""
        old, new = self.cores[index], self._core(index)
        new.restore(old.saved(), self._monotonic)
        new.machine.restore(old.machine.snapshot())
        new.machine.stand_by()
        self._lead(new)
        assert old.decide(self._monotonic) is None, "a stale leader decides"
        self.cores[index] = new
        self.settle()

    def heartbeats(self) -> None:
        for agent in self.agents:
            if agent.is_there:
                beat = Heartbeat(
                    incarnation=agent.incarnation,
                    pool="default",
                    slots=PLANS_AND_ANY,
                    kinds=KINDS,
                    follows=tuple(reversed(agent.runs[:-1])),
                )
                self.cores[1].offer(Offered(HeartbeatSeen(agent=agent.name, heartbeat=beat)))

    def finish(self) -> None:
        """Everything is opened, answered and done: every task must end."""
        for verb, body in (("resume", {}), *(("unlock", {"queue": queue}) for queue in ("a", "b"))):
            self.command(verb, body)
        for _ in range(ROUNDS_MAX):
            if not self.checker.table.live:
                return
            for record in list(self.checker.table.live.values()):
                if record.phase is Phase.APPLY_PENDING:
                    self.command("confirm", {"task": record.id})
            for agent in self.agents:
                for each in list(agent.running.values()):
                    self._report(agent, each, "end")
            self.settle()
            self.wait(5)
        raise AssertionError(f"never ended: {[(r.id, r.kind, r.phase) for r in self.checker.table.live.values()]}")

    # -- the loop ------------------------------------------------------------------------------------------------------

    @property
    def _monotonic(self) -> float:
        return (self.now - START) / 1_000_000

    def settle(self) -> None:
        """Decide, store, fold and act until all are quiet."""
        for _ in range(ROUNDS_MAX):
            turns = [self._turn(core) for core in self.cores]
            if not any(turns):
                break
        else:
            raise AssertionError("never quiet")

    def _turn(self, core: LoopCore[Any, Any]) -> bool:
        append = core.decide(self._monotonic)
        if append is not None:
            core.appended(self.stream.store(f"log.{core.machine.writer}", append.data, expected=append.expected))
            self._fold()
        if core.waits_for_inputs:
            core.inputs_read(core.now(self._monotonic))
            return True
        effects = list(core.effects(self._monotonic)) if core is self.cores[2] else []
        for effect in effects:
            self._deliver(effect)
        return append is not None or bool(effects)

    def _deliver(self, send: SendAssignments | SendCancels) -> None:
        agent = next(each for each in self.agents if each.name == send.agent)
        if not agent.is_there:
            self.cores[2].offer(Offered(NobodyListened(request=send)))
            return
        if isinstance(send, SendAssignments):
            answers = agent.answer(send)
            again = [agent.ends[each.position] for each in send.assignments if each.position in agent.ends]
        else:
            answers = [AssignAnswer(position=each.position, outcome="accepted") for each in send.cancels]
            again = [self._stop(agent, each) for each in send.cancels]
        self.cores[2].offer(Offered(Answered(request=send, answers=tuple(answers))))
        if again:
            self._send_reports(agent, again)

    def _stop(self, agent: Agent, cancel: Any) -> Any:
        agent.running.pop(cancel.position, None)
        agent.outcomes.setdefault(cancel.position, "accepted")
        error = TaskError(code="stopped", message="")
        stopped = Failed(task=cancel.task, attempt=cancel.attempt, at=self.now, error=error)
        return agent.ends.setdefault(cancel.position, stopped)

    def _fold(self) -> None:
        for message in self.stream.after(self.cores[0].folded):
            stored = self._stored(message)
            for core in self.cores:
                if core.folded < stored.sequence:
                    core.fold(stored, self._monotonic)
            for index, event in enumerate(stored.commit.events):
                self.checker.apply(event, stored.at, make_position(stored.sequence, index))

    def _stored(self, message: Any) -> StoredCommit[Any]:
        writer = message.subject.split(".")[1]
        return CODEC.decode_stored(sequence=message.sequence, at=message.at, data=message.data, writer=writer)

    def _core(self, index: int) -> LoopCore[Any, Any]:
        self._instances += 1
        machine: Any = (
            Scheduler({"root": Role.ADMIN}),
            SlotAllocator(SUSPECT_SECONDS, LOST_SECONDS),
            Dispatcher(),
        )[index]
        return LoopCore(machine, CODEC, f"i{self._instances}")

    def _lead(self, core: LoopCore[Any, Any]) -> None:
        append = core.take_over(self._monotonic)
        core.appended(self.stream.store(f"log.{core.machine.writer}", append.data, expected=append.expected))
        self._fold_all(core)

    def _fold_all(self, core: LoopCore[Any, Any]) -> None:
        head = self.stream.after(core.folded)
        self._fold()
        for message in head:
            if core.folded < message.sequence:
                core.fold(self._stored(message), self._monotonic)
