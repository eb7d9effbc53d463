"""One seed: a world is made, everything may fail for a while, then all is healed and everything must end; then it is judged."""

import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from taskyard.contracts.events import OWNERS
from taskyard.eventlog.log import StreamMessage
from taskyard.eventlog.memory import MemoryStream
from taskyard.scheduler.state import Pool
from taskyard.simulation.agent import TEMPLATES, Agent
from taskyard.simulation.checks import check
from taskyard.simulation.clients import Clients, Reader
from taskyard.simulation.defects import put_back
from taskyard.simulation.evidence import Asked, Evidence, Logged, Ran, Told
from taskyard.simulation.faults import Faults, draw_faultiness
from taskyard.simulation.host import Witness
from taskyard.simulation.instance import Instance, Service
from taskyard.simulation.network import Faultiness, Network
from taskyard.simulation.read_model import compare_read_model
from taskyard.simulation.services import AllocatorService, DispatcherService, SchedulerService
from taskyard.simulation.streams import Servers
from taskyard.simulation.time import World

HEALED_SECONDS_MAX = 400.0
"""So long after everything was healed all that was accepted must have ended: delays after failed deliveries are long."""
TIDY_SECONDS = 2.0
SUBMISSIONS = (4, 40)
COMMANDS = (0, 60)
RESTART_CHANCE = 0.2
STEPS_MAX = 400_000


class Outcome(Struct, kw_only=True):
    """What came of a seed. `history` has the log as it can be printed; `digest` is of the whole log."""

    seed: int
    failures: list[str]
    faults: list[tuple[float, str]]
    log: list[Logged]
    runs: list[Ran]
    events: int
    tasks: int
    seconds: float
    digest: str


def run_seed(seed: int, *, alter: Callable[["Yard"], None] = lambda _: None) -> Outcome:
    """Run one seed to its end and judge it. `alter` may change the world before it begins."""
    yard = Yard(seed)
    alter(yard)
    try:
        yard.run()
    except Exception:  # noqa: BLE001 - whatever a machine raises is a finding
        yard.world.failures.append(f"it stopped with an error:\n{traceback.format_exc(limit=-6)}")
    with put_back():
        return yard.judge()


class Yard:
    """A whole system in its world."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        random = self.world.random
        self.servers = Servers(self.world)
        self.network = Network(self.world, draw_faultiness(self.servers))
        self.reader = Reader(self.servers)
        self.clients = Clients(self.servers, self.network, self.reader)
        self.witness = Witness(self.world)
        services: tuple[Service, ...] = (
            SchedulerService(self.servers, self.network, self.clients.hear),
            AllocatorService(),
            DispatcherService(self.servers, self.network),
        )
        self.instances = [
            Instance(service, letter, self.servers, self.network) for service in services for letter in "ab"
        ]
        self._ears = [instance for instance in self.instances if isinstance(instance.service, AllocatorService)]
        self.agents = [
            Agent(f"worker-{number}", TEMPLATES[0], self.servers, self.network, witness=self.witness, beat=self._beat)
            for number in range(1, random.randrange(2, 4))
        ]
        self.faults = Faults(self.servers, self.network, self.instances, self.agents, self.reader)
        for instance in self.instances:
            instance.on_append = self.faults.crash_while_appending
        for agent in self.agents:
            agent.on_request = self.faults.cut_off
        self.trouble_seconds = random.choice((8.0, 20.0, 40.0))

    def run(self) -> None:
        """Both phases."""
        world, random = self.world, self.world.random
        for process in (*self.instances, *self.agents):
            world.later(random.uniform(0.0, 1.0), process.start)
        for _ in range(random.randrange(*SUBMISSIONS)):
            world.later(random.uniform(0.0, self.trouble_seconds), self.clients.submit)
        for _ in range(random.randrange(*COMMANDS)):
            world.later(random.uniform(0.0, self.trouble_seconds), self.clients.meddle)
        self.faults.plan(self.trouble_seconds)
        world.run_until(self.trouble_seconds)
        self._heal()
        world.run_until(self.trouble_seconds + HEALED_SECONDS_MAX, self._is_over)

    def _heal(self) -> None:
        self.world.is_healed = True
        self.network.faultiness = Faultiness()
        self.world.note("all is healed")
        self.faults.heal()
        self.clients.heal()
        self._tidy()

    def _tidy(self) -> None:
        self.clients.tidy_up()
        for agent in self.agents:
            if agent.name in self.reader.drained and self.world.random.random() < RESTART_CHANCE:
                agent.crash()  # whoever drained it is done with it
                agent.start()
        self.world.later(TIDY_SECONDS, self._tidy)

    def _is_over(self) -> bool:
        if self.world.steps > STEPS_MAX:
            raise RuntimeError(f"more than {STEPS_MAX} steps: something repeats itself without end")
        if self.world.steps % 64 or self.world.now < self.trouble_seconds + 3 * TIDY_SECONDS:
            return False
        self.reader.catch_up()
        if self.reader.table.live or not all(instance.is_idle for instance in self.instances):
            return False
        return {instance.service.writer for instance in self.instances if instance.leads} == set(OWNERS)

    def _beat(self, agent: str, data: bytes) -> None:
        for ear in self._ears:
            self.network.carry(partial(AllocatorService.hear, ear, agent, data))

    # -- judging -------------------------------------------------------------------------------------------------------

    def judge(self) -> Outcome:
        """Read the log and what really ran; say all that is wrong."""
        log = _logged(self.servers)
        asked = [
            Asked(sequence=message.sequence, verb=message.subject.rpartition(".")[2], data=message.data)
            for message in _all(self.servers.commands)
        ]
        told = [
            Told(command=command, code=answer.code, task=answer.id, position=answer.position)
            for command, heard in self.clients.answers.items()
            for answers in heard
            for answer in answers
        ]
        evidence = Evidence(log=log, asked=asked, ran=self.witness.runs, told=told)
        verdict = check(evidence)
        failures = [*self.world.failures, *verdict.faults]
        if not self.world.failures:
            failures += compare_read_model(log, self.world.seed)
            failures += self._compare_instances()
        return Outcome(
            seed=self.world.seed,
            failures=failures,
            faults=self.world.faults,
            log=log,
            runs=self.witness.runs,
            events=verdict.events,
            tasks=verdict.tasks,
            seconds=self.world.now,
            digest=verdict.digest,
        )

    def _compare_instances(self) -> list[str]:
        """Two instances that have folded the same log know the same, whatever snapshot they began with."""
        faults: list[str] = []
        for one, other in zip(self.instances[::2], self.instances[1::2], strict=True):
            if one.core.folded == other.core.folded and _known(one) != _known(other):
                faults.append(f"{one.name} and {other.name} differ at {one.core.folded}")
            if one.core.cursors != other.core.cursors:
                faults.append(f"{one.name} and {other.name} differ in their cursors")
        return faults


def _known(instance: Instance) -> dict[str, Any]:
    """What a machine would save. The order of what it saves as a list is of no meaning, nor is a pool that is only named."""
    saved: dict[str, Any] = msgspec.json.decode(instance.core.machine.snapshot())
    known = {name: list(map(_plain, part)) if isinstance(part, list) else part for name, part in saved.items()}
    if "pools" in known:
        known["pools"] = [
            pool for pool in known["pools"] if pool != _plain(msgspec.to_builtins(Pool(name=pool["name"])))
        ]
    return {name: sorted(map(repr, part)) if isinstance(part, list) else part for name, part in known.items()}


def _plain(part: Any) -> Any:
    """A pool without its zeros: a count that was one once is no other than one that never was."""
    if isinstance(part, dict) and "scheduled" in part:
        return {**part, "scheduled": {kind: count for kind, count in part["scheduled"].items() if count}}
    return part


def _all(stream: MemoryStream) -> list[StreamMessage]:
    messages: list[StreamMessage] = []
    while more := stream.after(len(messages)):
        messages += more
    return messages


def _logged(servers: Servers) -> list[Logged]:
    return [
        Logged(
            sequence=message.sequence,
            at=message.at,
            seconds=seconds,
            writer=message.subject.rpartition(".")[2],
            data=message.data,
        )
        for message, seconds in zip(_all(servers.log), servers.stored_at, strict=True)
    ]
