"""A small world without asyncio: one log, instances of the three machines, agents, clients, a network that loses things.

Everything random comes from one seeded source and every clock is virtual, so a seed is a whole story.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from world_agent import FOREVER, Agent

from taskyard.contracts.agent_protocol import AssignRequest, ReportBatch
from taskyard.contracts.events import DISPATCHER, SCHEDULER, SLOT_ALLOCATOR, AnyEvent, TaskSubmitted, decode_event
from taskyard.contracts.lifecycle import Phase
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import SECOND, Instant, Role, make_position, make_uuid7, seconds
from taskyard.dispatcher.decide import Answered, NobodyListened, ReportsRead
from taskyard.dispatcher.delivery import SendAssignments, SendCancels
from taskyard.dispatcher.machine import Dispatcher
from taskyard.eventlog.append import AppendRejected
from taskyard.eventlog.commit import CommitCodec, StoredCommit
from taskyard.eventlog.log import StreamMessage
from taskyard.eventlog.memory import MemoryStream
from taskyard.machine.core import Append, LoopCore, Offered
from taskyard.machine.core import Role as LoopRole
from taskyard.scheduler.machine import Scheduler
from taskyard.scheduler.messages import CommandMessage
from taskyard.slot_allocator.liveness import HeartbeatSeen
from taskyard.slot_allocator.machine import SlotAllocator

BEGIN = Instant(1_763_700_000 * SECOND)
CODEC: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
ROLES = {"admin": Role.ADMIN, "oscar": Role.OPERATOR}
SUSPECT_SECONDS, LOST_SECONDS = 6.0, 30.0
INPUTS: Mapping[str, str] = {SCHEDULER: "commands", DISPATCHER: "reports"}
KINDS = ("noop", "plan", "plan_and_apply", "command")


def make_machine(writer: str) -> Any:
    if writer == SCHEDULER:
        return Scheduler(ROLES)
    return Dispatcher() if writer == DISPATCHER else SlotAllocator(SUSPECT_SECONDS, LOST_SECONDS)


@dataclass
class Sent:
    """A request on its way, and who waits for its answer."""

    sender: "Instance"
    effect: SendAssignments | SendCancels


class Instance:
    """One instance of one machine: what MachineLoop does, a step at a time."""

    def __init__(self, world: "World", writer: str, name: str, snapshot: tuple[Any, bytes] | None = None) -> None:
        self.world, self.writer, self.name = world, writer, name
        self.core: LoopCore[Any, Any] = LoopCore(make_machine(writer), CODEC, name)
        if snapshot is not None:
            self.core.machine.restore(snapshot[1])
            self.core.restore(snapshot[0])
        self.core.machine.stand_by()
        self.in_flight: Append | None = None
        self.read = 0

    @property
    def leads(self) -> bool:
        return self.core.role is LoopRole.LEADER

    def fold(self, count: int = 1_000) -> None:
        for message in self.world.log.after(self.core.folded)[:count]:
            self.core.fold(self.world.decode(message), self.world.monotonic)

    def campaign(self) -> None:
        """Whoever has the lease: safety must not need it, so anybody may believe to have it."""
        self.core.step_down()
        self.fold()
        self.in_flight = self.core.take_over(self.world.monotonic)

    def append(self, *, is_stored: bool = True, is_answered: bool = True) -> None:
        """One try of the append in flight. Without an answer the same is tried again by a later step."""
        append = self.in_flight
        if append is None:
            return
        subject = f"log.{self.writer}"
        try:
            sequence = self.world.log.store(subject, append.data, expected=append.expected) if is_stored else 0
        except AppendRejected:
            last = self.world.log.last(subject)
            if last is None or last.data != append.data:
                self.in_flight = None
                self.core.step_down()
                return
            sequence = last.sequence
        if is_stored and is_answered:
            self.in_flight = None
            self.core.appended(sequence)

    def read_inputs(self) -> None:
        name = INPUTS.get(self.writer)
        if name is None or not self.leads:
            return
        self.read = max(self.read, self.core.cursors.get(name, 0))
        for message in self.world.streams[name].after(self.read):
            self.core.offer(Offered(self.world.as_input(name, message), name, message.sequence))
            self.read = message.sequence

    def decide(self) -> None:
        if self.in_flight is None:
            self.in_flight = self.core.decide(self.world.monotonic)

    def act(self) -> None:
        if self.in_flight is not None:
            return
        for effect in self.core.effects(self.world.monotonic):
            if isinstance(effect, SendAssignments | SendCancels):
                self.world.net.append(Sent(self, effect))
            else:
                self.world.answers += effect.batch.outcomes

    def snapshot(self) -> tuple[Any, bytes]:
        return self.core.saved(), self.core.machine.snapshot()

    def turn(self) -> None:
        """Everything that a healthy instance does, until it has nothing more to do."""
        for _ in range(50):
            self.fold()
            self.read_inputs()
            self.decide()
            if self.in_flight is None:
                break
            self.append()
        self.fold()
        self.act()


class World:
    """Instances, agents, clients, and the network between them."""

    def __init__(self, seed: int, *, instances: int = 1, agents: int = 2) -> None:
        self.rng = random.Random(seed)
        self.now = BEGIN
        self.log = MemoryStream("LOG", lambda: self.now)
        self.streams = {name: MemoryStream(name, lambda: self.now) for name in ("commands", "reports")}
        self.net: list[Sent] = []
        self.answers: list[Any] = []
        self.agents = {f"w{number}": Agent(f"w{number}") for number in range(agents)}
        self.ids: list[str] = []
        self._made = 0
        self._decoded: list[StoredCommit[Any]] = []
        self.snapshots: dict[str, tuple[Any, bytes]] = {}
        self.instances = [
            self.start(writer) for writer in (SCHEDULER, SLOT_ALLOCATOR, DISPATCHER) for _ in range(instances)
        ]

    @property
    def monotonic(self) -> float:
        return (self.now - BEGIN) / SECOND

    def decode(self, message: StreamMessage) -> StoredCommit[Any]:
        while len(self._decoded) < message.sequence:
            for each in self.log.after(len(self._decoded)):
                writer = each.subject.rpartition(".")[2]
                self._decoded.append(
                    CODEC.decode_stored(sequence=each.sequence, at=each.at, data=each.data, writer=writer)
                )
        return self._decoded[message.sequence - 1]

    def commits(self) -> list[StoredCommit[Any]]:
        for message in self.log.after(max(self.log.head - 1, 0)):
            self.decode(message)
        return self._decoded

    def start(self, writer: str) -> Instance:
        self._made += 1
        return Instance(self, writer, f"{writer}-{self._made}", self.snapshots.get(writer))

    def new_id(self) -> str:
        return make_uuid7(self.now, self.rng.getrandbits(74))

    # -- clients -----------------------------------------------------------------------------------------------------

    def command(self, verb: str, principal: str = "admin", **body: Any) -> str:
        """Store a command; its id."""
        body.setdefault("id", self.new_id())
        subject = f"taskyard.command.{principal}.default.{verb}"
        self.streams["commands"].store(subject, msgspec.json.encode(body))
        return body["id"]

    def submit(self, kind: str, **spec: Any) -> str:
        inputs = {"command": {"argv": ["true"]}, "noop": {}}
        spec.setdefault("input", inputs.get(kind, {"directory": "/tf"}))
        if kind.startswith("plan"):
            spec.setdefault("queue", "prod")
        self.ids.append(self.command("submit", kind=kind, **spec))
        return self.ids[-1]

    def as_input(self, name: str, message: StreamMessage) -> Any:
        if name == "reports":
            batch = msgspec.json.decode(message.data, type=ReportBatch)
            return ReportsRead(agent=message.subject.rpartition(".")[2], batch=batch, size=len(message.data))
        _, _, principal, pool, verb = message.subject.split(".")
        return CommandMessage(
            sequence=message.sequence,
            at=message.at,
            principal=principal,
            pool=pool,
            verb=verb,
            data=message.data,
            door="door",
            original=self._original(message.data) if verb == "retry" else None,
        )

    def _original(self, data: bytes) -> TaskSubmitted | None:
        task = msgspec.json.decode(data)["task"]
        events = (event for stored in self.commits() for event in stored.commit.events)
        return next((each for each in events if isinstance(each, TaskSubmitted) and each.task == task), None)

    # -- network and agents --------------------------------------------------------------------------------------------

    def deliver(self, sent: Sent, *, is_answered: bool = True) -> None:
        effect = sent.effect
        agent = self.agents[effect.agent]
        if not agent.is_up:
            answer: Any = NobodyListened(request=effect)
        elif isinstance(effect, SendAssignments):
            request = AssignRequest(incarnation=effect.incarnation, assignments=effect.assignments)
            answer = Answered(request=effect, answers=agent.assign(request, self.now))
        else:
            answer = Answered(request=effect, answers=agent.cancel(effect.cancels, self.now))
        self._check_overlap()
        if is_answered:
            sent.sender.core.offer(Offered(answer))

    def _check_overlap(self) -> None:
        live = [each.assignment for agent in self.agents.values() for each in agent.disk.live.values()]
        held = [each.task for each in live if each.kind == "plan_and_apply"]
        assert len(held) == len(set(held)), "two attempts of a plan_and_apply overlap"

    def report(self, agent: Agent, *, is_answered: bool = True) -> None:
        batch = agent.report() if agent.is_up else None
        if batch is not None:
            self.streams["reports"].store(f"taskyard.report.{agent.name}", msgspec.json.encode(batch))
            if is_answered:
                agent.reported(batch)

    def beat(self, agent: Agent) -> None:
        if not agent.is_up:
            return
        for each in self.instances:
            if each.writer == SLOT_ALLOCATOR:
                at = each.core.now(self.monotonic)
                each.core.offer(Offered(HeartbeatSeen(agent=agent.name, at=at, heartbeat=agent.heartbeat())))

    def advance(self, duration_seconds: float) -> None:
        self.now = Instant(self.now + seconds(duration_seconds))

    # -- what holds ------------------------------------------------------------------------------------------------------

    def tasks(self) -> TaskTable:
        table = TaskTable()
        for stored in self.commits():
            for index, event in enumerate(stored.commit.events):
                table.apply(event, stored.at, make_position(stored.sequence, index))
        return table

    def leader(self, writer: str) -> Instance | None:
        leaders = [each for each in self.instances if each.writer == writer and each.leads]
        return max(leaders, key=lambda each: each.core.epoch, default=None)

    # -- healthy rounds --------------------------------------------------------------------------------------------------

    def settle(
        self, rounds: int = 10, *, step_seconds: float = 0.5, work: Callable[[Agent], None] | None = None
    ) -> None:
        """Time passes and nothing fails."""
        for _ in range(rounds):
            self.advance(step_seconds)
            for writer in (SCHEDULER, SLOT_ALLOCATOR, DISPATCHER):
                if self.leader(writer) is None:
                    next(each for each in self.instances if each.writer == writer).campaign()
            for agent in self.agents.values():
                self.beat(agent)
            for each in self.instances:
                each.append()
                each.turn()
            net, self.net = self.net, []
            for sent in net:
                self.deliver(sent)
            for agent in self.agents.values():
                if agent.is_up:
                    for _ in range(4):
                        agent.work(self.rng, self.now, may_fail=False)
                    self.report(agent)
        for each in self.instances:
            each.turn()

    def heal(self, rounds: int = 400) -> None:
        """Faults are over: agents are up, plans are answered, and every task must end."""
        for agent in self.agents.values():
            if not agent.is_up or agent.is_leaving:
                agent.restart(self.now, keeps_journal=True)
        self.command("resume")
        self.command("resume", queue="prod")
        cancelled: set[str] = set()
        for _ in range(rounds):
            live = self.tasks().live.values()
            if not live and not any(self._unread(each) for each in self.instances):
                return
            for record in live:
                if FOREVER in bytes(record.input) and record.id not in cancelled:
                    cancelled.add(record.id)
                    self.command("cancel", task=record.id)  # once: whatever is lost is the services' to repeat
                if record.phase is Phase.APPLY_PENDING:
                    self.command("confirm", task=record.id, attempt=record.plan_attempt)
            self.settle(2, step_seconds=5.0)
        stuck = [(r.id, r.kind, r.phase, r.attempt, r.worker) for r in self.tasks().live.values()]
        raise AssertionError(f"tasks did not end: {stuck}")

    def _unread(self, each: Instance) -> bool:
        name = INPUTS.get(each.writer)
        return name is not None and each.leads and self.streams[name].head > each.read
