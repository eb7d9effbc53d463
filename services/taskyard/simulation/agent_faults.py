"""What goes wrong with agents and their hosts."""

from collections.abc import Callable
from random import Random

from taskyard.simulation.agent import ALL_KINDS, Agent
from taskyard.simulation.network import Network
from taskyard.simulation.time import World

RESTARTED_WHEN_HEALED = 0.3
REPLACED_CHANCE = 0.3


class AgentFaults:
    """Faults of agents. `replace` makes another agent, of another name, in place of one whose host is gone for good."""

    def __init__(self, world: World, network: Network, agents: list[Agent], replace: Callable[[Agent], None]) -> None:
        self._world = world
        self._network = network
        self._agents = agents
        self._replace = replace
        self._cuts = world.source("cuts")

    def heal(self) -> None:
        """Every agent that is not gone is there, one of each name, and the first of each pool takes everything."""
        random = self._world.source("healing agents")
        first: dict[str, Agent] = {}
        names: set[str] = set()
        for agent in self._agents:
            if agent.is_gone:
                continue
            agent.thaw()
            agent.make_room()
            if agent.name in names:
                agent.lose_host()
                agent.is_gone = True
                continue
            names.add(agent.name)
            is_first = first.setdefault(agent.pool, agent) is agent
            takes_all = agent.kinds == ALL_KINDS
            agent.kinds = ALL_KINDS if is_first else agent.kinds
            is_fit = agent.is_up and not agent.is_leaving and (takes_all or not is_first)
            if is_fit and random.random() > RESTARTED_WHEN_HEALED:
                agent.connect()
                continue
            if agent.is_up:
                agent.crash()
            agent.start()

    def crash(self, random: Random) -> None:
        """An agent is killed; what it started runs on until it comes back."""
        agent = self._some(random)
        if not self._world.is_healed and agent.is_up:
            self._world.note(f"{agent.name} crashes")
            agent.crash()
            self._come_back(agent, random)

    def lose_host(self, random: Random) -> None:
        """A host is lost with its journal: it comes back empty, or another one of another name in its place."""
        agent = self._some(random)
        if self._world.is_healed:
            return
        self._world.note(f"the host of {agent.name} is lost, with its journal")
        agent.lose_host()
        if random.random() < REPLACED_CHANCE:
            agent.is_gone = True
            self._replace(agent)
        else:
            self._come_back(agent, random)

    def freeze(self, random: Random) -> None:
        """An agent stands still, and goes on where it was."""
        agent = self._some(random)
        if not self._world.is_healed:
            seconds = random.choice((0.5, 5.0, 15.0)) * random.random()
            self._world.note(f"{agent.name} is frozen for {seconds:.1f} s")
            agent.freeze(seconds)

    def part(self, random: Random) -> None:
        """An agent has no network for a while."""
        agent = self._some(random)
        if self._world.is_healed or not agent.is_up:
            return
        seconds = random.uniform(0.1, 20.0)
        self._world.note(f"{agent.name} has no network for {seconds:.1f} s")
        agent.disconnect()
        agent.later(seconds, agent.connect)

    def leave(self, random: Random) -> None:
        """An agent is stopped in order, and comes back."""
        agent = self._some(random)
        if not self._world.is_healed and agent.is_up and not agent.is_leaving:
            self._world.note(f"{agent.name} leaves")
            agent.leave()
            self._world.later(10.0, lambda: self._come_back(agent, random))

    def cut_off(self, agent: Agent) -> None:
        """An agent is cut off just after it was asked for something, or dies."""
        random = self._cuts
        if not self._world.chance(self._network.faultiness.cut, random):
            return
        back_seconds = random.choice((0.5, 3.0, 15.0)) * random.random()

        def cut() -> None:
            if self._world.is_healed or not agent.is_up:
                return
            if random.random() < 0.5:
                self._world.note(f"{agent.name} crashes just after a request")
                agent.crash()
                self._come_back(agent, random)
            else:
                self._world.note(f"{agent.name} is cut off just after a request for {back_seconds:.1f} s")
                agent.disconnect()
                agent.later(back_seconds, agent.connect)

        agent.later(random.choice((0.0, 0.01, 0.05)) * random.random(), cut)

    def _some(self, random: Random) -> Agent:
        return random.choice([agent for agent in self._agents if not agent.is_gone])

    def _come_back(self, agent: Agent, random: Random) -> None:
        def start() -> None:
            if not agent.is_up and not agent.is_gone:
                agent.start()

        self._world.later(random.choice((0.5, 3.0, 20.0)) * random.random(), start)
