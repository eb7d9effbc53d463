"""What goes wrong, drawn from the seed: how bad the network is, and which parts fail when."""

from collections.abc import Callable

from taskyard.contracts.agent_protocol import AnyReport, Failed, Lost, Planned, ReportBatch, Started, Succeeded
from taskyard.contracts.events import Changes, TaskError
from taskyard.contracts.lifecycle import TaskRecord
from taskyard.contracts.values import TaskId
from taskyard.simulation.agent import Agent
from taskyard.simulation.clients import Reader
from taskyard.simulation.instance import Instance
from taskyard.simulation.network import Faultiness, Network
from taskyard.simulation.streams import Servers
from taskyard.slot_allocator.liveness import Reconnected

FAULTS_MAX = 24
ATTEMPT_OF_NOBODY = 1_000


def draw_faultiness(servers: Servers) -> Faultiness:
    """How bad the network of this run is: often a little, sometimes very, sometimes not at all."""
    random = servers.world.random
    bad = random.choice((0.0, 0.01, 0.03, 0.03, 0.1, 0.25))
    return Faultiness(
        lost=bad * random.random(),
        late=bad * random.random(),
        twice=bad * random.random(),
        late_seconds=random.choice((0.5, 3.0, 12.0)),
        slow_assignments=random.choice((0.0, 0.0, 0.1, 0.4)),
        cut=random.choice((0.0, 0.0, 0.03, 0.1)),
        torn=random.choice((0.0, 0.0, 0.01, 0.05)),
    )


class Faults:
    """All that fails on purpose."""

    def __init__(
        self, servers: Servers, network: Network, instances: list[Instance], agents: list[Agent], reader: Reader
    ) -> None:
        self._servers = servers
        self._network = network
        self._world = servers.world
        self._random = servers.world.random
        self._instances = instances
        self._agents = agents
        self._reader = reader

    def plan(self, until_seconds: float) -> None:
        """Draw the faults of the time until then."""
        kinds: tuple[tuple[int, Callable[[], None]], ...] = (
            (5, self._crash_instance),
            (4, self._freeze_instance),
            (2, self._break_leases),
            (2, self._deafen),
            (3, self._log_away),
            (3, self._stall),
            (3, self._crash_agent),
            (1, self._lose_host),
            (2, self._freeze_agent),
            (4, self._part_agent),
            (2, self._agent_leaves),
            (1, self._clock_steps),
            (2, self._read_again),
            (3, self._lie),
        )
        chosen = self._random.sample(kinds, self._random.randrange(1, len(kinds)))
        weights = [weight for weight, _ in chosen]
        for _ in range(self._random.randrange(FAULTS_MAX + 1)):
            fault = self._random.choices(chosen, weights)[0][1]
            self._world.later(self._random.uniform(0.0, until_seconds), fault)

    def heal(self) -> None:
        """End everything that fails."""
        self._servers.is_lease_broken = False
        self._network.is_log_away = False
        self._servers.clock_offset_seconds = max(0.0, self._servers.clock_offset_seconds)
        for instance in self._instances:
            instance.is_deaf = False
            instance.thaw()
            instance.resume_following()
            if not instance.is_up:
                instance.start()
        for agent in self._agents:
            agent.thaw()
            if agent.is_up:
                agent.crash()
            agent.start()

    # -- services ------------------------------------------------------------------------------------------------------

    def _instance(self) -> Instance:
        leaders = [instance for instance in self._instances if instance.leads]
        return self._random.choice(leaders if leaders and self._random.random() < 0.7 else self._instances)

    def _crash_instance(self) -> None:
        self._crash(self._instance())

    def _crash(self, instance: Instance) -> None:
        if self._world.is_healed or not instance.is_up:
            return
        self._world.note(f"{instance.name} crashes")
        instance.crash()
        snapshot = self._random.random() < 0.7
        self._world.later(self._random.uniform(0.05, 5.0), lambda: self._restart(instance, snapshot=snapshot))

    def _restart(self, instance: Instance, *, snapshot: bool) -> None:
        if not instance.is_up:
            instance.start(snapshot=snapshot)

    def _freeze_instance(self) -> None:
        if not self._world.is_healed:
            instance, seconds = self._instance(), self._random.choice((0.3, 4.0, 10.0)) * self._random.random()
            self._world.note(f"{instance.name} is frozen for {seconds:.1f} s")
            instance.freeze(seconds)

    def crash_while_appending(self, instance: Instance) -> None:
        """An instance crashes when it does not know yet what became of an append."""
        if self._world.chance(self._network.faultiness.torn):
            instance.later(self._random.uniform(0.0, 0.03), lambda: self._crash(instance))

    def cut_off(self, agent: Agent) -> None:
        """An agent is cut off just after it was asked for something."""
        if not self._world.chance(self._network.faultiness.cut):
            return
        back_seconds = self._random.choice((0.5, 3.0, 15.0)) * self._random.random()

        def cut() -> None:
            if self._world.is_healed or not agent.is_up:
                return
            if self._random.random() < 0.3:
                self._world.note(f"{agent.name} crashes just after a request")
                agent.crash()
                self._come_back(agent)
            else:
                self._world.note(f"{agent.name} is cut off just after a request for {back_seconds:.1f} s")
                agent.disconnect()
                agent.later(back_seconds, agent.connect)

        agent.later(self._random.choice((0.0, 0.01, 0.05)) * self._random.random(), cut)

    def _break_leases(self) -> None:
        self._during("leases are given to everybody", 6.0, lambda on: setattr(self._servers, "is_lease_broken", on))

    def _deafen(self) -> None:
        instance = self._instance()

        def switch(on: bool) -> None:
            instance.is_deaf = on
            if not on and instance.is_up and self._random.random() < 0.5:
                instance.post_now(lambda: Reconnected(at=instance.core.now(instance.monotonic)))

        if instance.service.writer == "slot_allocator":
            self._during(f"{instance.name} hears no heartbeat", 15.0, switch)

    def _log_away(self) -> None:
        self._during("the streams do not answer", 9.0, lambda on: setattr(self._network, "is_log_away", on))

    def _stall(self) -> None:
        instance = self._instance()

        def switch(on: bool) -> None:
            if on:
                instance.is_stalled = True
            else:
                instance.resume_following()

        self._during(f"{instance.name} does not hear of the log", 8.0, switch)

    def _clock_steps(self) -> None:
        if not self._world.is_healed:
            step = self._random.choice((-5.0, -0.5, 0.5, 60.0))
            self._world.note(f"the clock of the streams steps by {step} s")
            self._servers.clock_offset_seconds += step

    def _read_again(self) -> None:
        if not self._world.is_healed:
            instance = self._instance()
            self._world.note(f"{instance.name} reads its inputs again")
            instance.read_again()

    # -- agents --------------------------------------------------------------------------------------------------------

    def _crash_agent(self) -> None:
        agent = self._random.choice(self._agents)
        if not self._world.is_healed and agent.is_up:
            self._world.note(f"{agent.name} crashes")
            agent.crash()
            self._come_back(agent)

    def _lose_host(self) -> None:
        agent = self._random.choice(self._agents)
        if not self._world.is_healed:
            self._world.note(f"the host of {agent.name} is lost, with its journal")
            agent.lose_host()
            self._come_back(agent)

    def _come_back(self, agent: Agent) -> None:
        def start() -> None:
            if not agent.is_up:
                agent.start()

        self._world.later(self._random.choice((0.5, 3.0, 20.0)) * self._random.random(), start)

    def _freeze_agent(self) -> None:
        agent = self._random.choice(self._agents)
        if not self._world.is_healed:
            seconds = self._random.choice((0.5, 5.0, 15.0)) * self._random.random()
            self._world.note(f"{agent.name} is frozen for {seconds:.1f} s")
            agent.freeze(seconds)

    def _part_agent(self) -> None:
        agent = self._random.choice(self._agents)

        def switch(on: bool) -> None:
            if not agent.is_up:
                return
            if on:
                agent.disconnect()
            else:
                agent.connect()

        self._during(f"{agent.name} has no network", 20.0, switch)

    def _agent_leaves(self) -> None:
        agent = self._random.choice(self._agents)
        if not self._world.is_healed and agent.is_up and not agent.is_leaving:
            self._world.note(f"{agent.name} leaves")
            agent.leave()
            self._world.later(10.0, lambda: self._come_back(agent))

    def _lie(self) -> None:
        """An agent reports of what is not its own: attempts of others, attempts that never were, tasks of nobody."""
        if self._world.is_healed:
            return
        self._reader.catch_up()
        agent = self._random.choice(self._agents)
        records = list(self._reader.table.live.values())
        foreign = [record for record in records if record.worker not in {None, agent.name} and record.attempt]
        lies = [self._lie_about(record) for record in foreign]
        lies += [self._lie_about(record, attempt=record.attempt - 1) for record in records if record.attempt > 1]
        lies += [self._lie_about(record, attempt=ATTEMPT_OF_NOBODY) for record in records]
        if lies:
            self._world.note(f"{agent.name} tells lies")
            chosen = tuple(self._random.sample(lies, min(len(lies), 4)))
            agent.say(ReportBatch(incarnation=agent.disk.incarnation, number=ATTEMPT_OF_NOBODY, reports=chosen))

    def _lie_about(self, record: TaskRecord, attempt: int | None = None) -> AnyReport:
        task, at = TaskId(record.id), self._world.instant
        attempt = record.attempt if attempt is None else attempt
        error = TaskError(code="lie", message="not true", retryable=self._random.random() < 0.5)
        return self._random.choice(
            (
                Started(task=task, attempt=attempt, at=at),
                Planned(task=task, attempt=attempt, at=at, changes=Changes()),
                Succeeded(task=task, attempt=attempt, at=at),
                Failed(task=task, attempt=attempt, at=at, error=error),
                Lost(task=task, attempt=attempt, at=at),
            )
        )

    def _during(self, what: str, seconds_max: float, switch: Callable[[bool], None]) -> None:
        if self._world.is_healed:
            return
        seconds = self._random.uniform(0.1, seconds_max)
        self._world.note(f"{what} for {seconds:.1f} s")
        switch(True)
        self._world.later(seconds, lambda: switch(False))
