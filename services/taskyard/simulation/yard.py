"""A whole system in its world: everything may fail for a while, then all is healed and everything must end."""

from functools import partial

from taskyard.contracts.events import DECIDERS
from taskyard.contracts.values import Incarnation
from taskyard.simulation.acts import Acts
from taskyard.simulation.agent import Agent
from taskyard.simulation.agent_faults import AgentFaults
from taskyard.simulation.clients import Clients
from taskyard.simulation.edge_faults import EdgeFaults, plan_edges
from taskyard.simulation.faults import draw_faultiness, plan_faults
from taskyard.simulation.host import Witness
from taskyard.simulation.instance import Instance, Service
from taskyard.simulation.lies import Lies
from taskyard.simulation.network import Faultiness, Network
from taskyard.simulation.reader import Reader
from taskyard.simulation.service_faults import ServiceFaults
from taskyard.simulation.services import AllocatorService, DispatcherService, SchedulerService
from taskyard.simulation.streams import Servers
from taskyard.simulation.time import World
from taskyard.simulation.upgrades import Upgrades
from taskyard.simulation.worker_faults import WorkerFaults

HEALED_SECONDS_MAX = 900.0
"""So long after everything was healed all that was accepted must have ended: delays after failed deliveries are long."""
TIDY_SECONDS = 2.0
SUBMISSIONS = (4, 40)
COMMANDS = (0, 60)
MUCH_AT_ONCE = (0,) * 15 + (1,)
RESTART_CHANCE = 0.2
STEPS_MAX = 400_000
TROUBLE_SECONDS = (8.0, 20.0, 40.0)
POOLS = (("default",), ("default",), ("default", "edge"))


class Yard:
    """Everything of one run. `without` are the numbers of acts that are left out of it."""

    def __init__(self, seed: int, without: frozenset[int] = frozenset()) -> None:
        self.world = world = World(seed)
        self.acts = Acts(world, without)
        self.servers = Servers(world)
        self.network = Network(world, draw_faultiness(world))
        self.reader = Reader(self.servers)
        pools = world.random.choice(POOLS)
        self.clients = Clients(self.servers, self.network, self.reader, pools)
        self.witness = Witness(world)
        services: tuple[Service, ...] = (
            SchedulerService(self.servers, self.network, self.clients.hear),
            AllocatorService(),
            DispatcherService(self.servers, self.network),
        )
        self.instances = [
            Instance(service, letter, self.servers, self.network) for service in services for letter in "ab"
        ]
        self._ears = [
            partial(instance.service.hear, instance)
            for instance in self.instances
            if isinstance(instance.service, AllocatorService | DispatcherService)
        ]
        self.agents: list[Agent] = []
        self._service_faults = ServiceFaults(self.servers, self.network, self.instances)
        self._upgrades = Upgrades(self.servers, self.network, self.instances)
        self._agent_faults = AgentFaults(world, self.network, self.agents, self._replace)
        self._lies = Lies(world, self.agents, self.reader, self.witness)
        self._edge_faults = EdgeFaults(self.servers, self.instances, self.clients, self._lies)
        self._worker_faults = WorkerFaults(
            world, self.instances, self.agents, self.clients, witness=self.witness, add_another=self._add_another
        )
        for pool in pools:
            for _ in range(world.random.randrange(1, 3)):
                self._add_agent(pool)
        for instance in self.instances:
            instance.on_append = self._service_faults.crash_while_appending
        self.trouble_seconds = world.random.choice(TROUBLE_SECONDS)
        self._plan()

    def _plan(self) -> None:
        """Draw everything that will be done to it."""
        world, acts, clients = self.world, self.acts, self.clients
        random = world.source("plans")
        for process in (*self.instances, *self.agents):
            world.later(random.uniform(0.0, 1.0), process.start)
        for number in range(random.randrange(*SUBMISSIONS)):
            submit = partial(clients.submit, world.source(f"submission {number}"))
            acts.plan(random.uniform(0.0, self.trouble_seconds), "somebody submits", submit)
        for number in range(random.choice(MUCH_AT_ONCE)):
            submit = partial(clients.submit_much, world.source(f"great submission {number}"))
            acts.plan(random.uniform(0.0, self.trouble_seconds), "somebody submits much at once", submit)
        for number in range(random.randrange(*COMMANDS)):
            meddle = partial(clients.meddle, world.source(f"command {number}"))
            acts.plan(random.uniform(0.0, self.trouble_seconds), "somebody commands", meddle)
        plan_faults(
            world,
            acts,
            self.trouble_seconds,
            services=self._service_faults,
            agents=self._agent_faults,
            lies=self._lies,
            upgrades=self._upgrades,
        )
        kinds = (*self._edge_faults.kinds, *self._worker_faults.kinds)
        plan_edges(world, acts, self.trouble_seconds, self.network.faultiness, kinds)
        self._hears_all = not (self.network.faultiness.lost or self.network.faultiness.late)

    @property
    def is_heard(self) -> bool:
        """Whether every heartbeat arrived that an agent sent: else nobody can tell silence from loss."""
        return self._hears_all and not self._service_faults.was_deaf

    def run(self) -> None:
        """Both phases."""
        self.world.run_until(self.trouble_seconds)
        self._heal()
        self.world.run_until(self.trouble_seconds + HEALED_SECONDS_MAX, self._is_over)

    def _heal(self) -> None:
        self.world.is_healed = True
        self.network.faultiness = Faultiness()
        self.world.note("all is healed")
        self._upgrades.heal()
        self._service_faults.heal()
        self._agent_faults.heal()
        self.clients.heal()
        self._tidy()

    def _tidy(self) -> None:
        there = [agent for agent in self.agents if not agent.is_gone]
        twice = {agent.name for agent in self.agents if agent.host != agent.name}

        def is_there(worker: str, incarnation: Incarnation) -> bool:
            if worker in twice:  # what one said that was replaced may be lost with the stream that had it
                return any(agent.incarnation == incarnation for agent in there)
            return any(agent.name == worker and incarnation in agent.disk.lineage for agent in there)

        self.clients.tidy_up(is_there)
        for agent in self.agents:
            if agent.name in self.reader.drained and not agent.is_gone and agent.random.random() < RESTART_CHANCE:
                agent.crash()  # whoever drained it is done with it
                agent.start()
            if agent.is_retired and agent.name not in {one.name for one in there}:
                agent.start_once_more()  # the other one of its name is gone for good
        self.world.later(TIDY_SECONDS, self._tidy)

    def _is_over(self) -> bool:
        if self.world.steps > STEPS_MAX:
            raise RuntimeError(f"more than {STEPS_MAX} steps: something repeats itself without end")
        if self.world.steps % 64 or self.world.now < self.trouble_seconds + 3 * TIDY_SECONDS:
            return False
        self.reader.catch_up()
        if self.reader.table.live or not all(instance.is_idle for instance in self.instances):
            return False
        return {instance.service.writer for instance in self.instances if instance.leads} == set(DECIDERS)

    # -- agents --------------------------------------------------------------------------------------------------------

    def _add_agent(self, pool: str) -> Agent:
        name = f"worker-{len(self.agents) + 1}"
        return self._add(Agent(name, pool, self.servers, self.network, witness=self.witness, beat=self._beat))

    def _add_another(self, first: Agent) -> Agent:
        """Another host, whose agent has the name of one that is there."""
        host, pool, servers, network = f"{first.name} again", first.pool, self.servers, self.network
        return self._add(
            Agent(first.name, pool, servers, network, witness=self.witness, beat=self._beat, host=host)
        )  # fmt: skip

    def _add(self, agent: Agent) -> Agent:
        agent.on_request = self._agent_faults.cut_off
        self.agents.append(agent)
        return agent

    def _replace(self, gone: Agent) -> None:
        agent = self._add_agent(gone.pool)
        self.world.later(gone.random.uniform(0.0, 5.0), lambda: None if agent.is_up else agent.start())

    def _beat(self, agent: str, data: bytes) -> None:
        for hear in self._ears:
            self.network.carry(partial(hear, agent, data), may_repeat=True)
