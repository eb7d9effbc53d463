"""What goes wrong at the edges: whole services that stand still, floods of what is refused, requests that are too large,
and bytes that are no text.

Drawn beside the other faults, and in half of the runs only.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from random import Random

from taskyard.contracts.lifecycle import Phase
from taskyard.simulation.acts import Acts
from taskyard.simulation.agent import Agent
from taskyard.simulation.clients import Clients
from taskyard.simulation.instance import Instance
from taskyard.simulation.lies import Lies
from taskyard.simulation.network import Faultiness
from taskyard.simulation.streams import Servers

SHARE = 0.5
WELL_SHARE = 0.5
FAULTS_MAX = 5
STANDS_STILL_SECONDS = (9.0, 30.0)
"""Longer than a worker may be silent."""
MANY_SLOTS = 24
RETRIES = 4
BACK_SECONDS_MAX = 12.0

_Fault = Callable[[Random], None]


class EdgeFaults:
    """Faults at the edges."""

    def __init__(
        self, servers: Servers, instances: Sequence[Instance], agents: Sequence[Agent], clients: Clients, lies: Lies
    ) -> None:
        self._servers = servers
        self._world = servers.world
        self._instances = instances
        self._agents = agents
        self._clients = clients
        self._lies = lies

    def plan(self, acts: Acts, until_seconds: float, faultiness: Faultiness) -> None:
        """Draw those of a run. In some of them the network is well, so that whoever is silent is not there."""
        random = self._world.source("edges")
        if random.random() > SHARE:
            return
        if random.random() < WELL_SHARE:
            faultiness.lost = faultiness.late = 0.0
        kinds: Sequence[tuple[str, _Fault]] = (
            ("all instances of a service stand still", self.stop_a_service),
            ("all services stand still", self.stop_everything),
            ("somebody sends a burst of what is refused", self.burst),
            ("the journal of an agent is put back", self.put_journal_back),
            ("the archive is away", self.take_archive_away),
            ("more is assigned to a worker than fits one request", self.assign_much),
            ("an agent reports a result that is no text", self.tell_bytes),
        )
        for number in range(random.randrange(1, FAULTS_MAX)):
            what, fault = random.choice(kinds)
            acts.plan(random.uniform(0.0, until_seconds), what, partial(fault, self._world.source(f"edge {number}")))

    def stop_a_service(self, random: Random) -> None:
        """Both instances of one service stand still, so that nobody takes over, and go on where they were."""
        writer = random.choice(sorted({instance.service.writer for instance in self._instances}))
        self._freeze([one for one in self._instances if one.service.writer == writer], f"all of {writer}", random)

    def stop_everything(self, random: Random) -> None:
        """All services stand still, as where one process has all of them."""
        self._freeze(self._instances, "everything", random)

    def _freeze(self, instances: Sequence[Instance], what: str, random: Random) -> None:
        if self._world.is_healed:
            return
        seconds = random.uniform(*STANDS_STILL_SECONDS)
        self._world.note(f"{what} stands still for {seconds:.1f} s")
        for instance in instances:
            instance.freeze(seconds)

    def burst(self, random: Random) -> None:
        """Many commands of which nothing can be accepted."""
        if not self._world.is_healed:
            self._world.note("a burst of commands that are refused")
            self._clients.burst(random)

    def take_archive_away(self, random: Random) -> None:
        """What an old submission was cannot be read: who repeats a task is told so."""
        if self._world.is_healed:
            return
        seconds = random.uniform(1.0, STANDS_STILL_SECONDS[1])
        self._world.note(f"the archive is away for {seconds:.1f} s")
        self._servers.is_archive_away = True
        self._world.later(seconds, self._bring_archive_back)
        for number in range(RETRIES):
            self._world.later(
                seconds * random.random(), partial(self._clients.retry_one, self._world.source(f"retry {number}"))
            )

    def _bring_archive_back(self) -> None:
        self._servers.is_archive_away = False

    def put_journal_back(self, random: Random) -> None:
        """What an agent remembers is put back to what it was a while ago, while what it started runs on; it is killed so.

        Not while the log has no more of an attempt than its assignment: such a one cannot be told from one that is new.
        """
        there = [agent for agent in self._agents if agent.is_up and not agent.is_gone]
        if self._world.is_healed or not there:
            return
        agent = random.choice(there)
        before, life = deepcopy(agent.disk), agent.life

        def put_back() -> None:
            self._clients.reader.catch_up()
            records = self._clients.reader.table.live.values()
            is_unseen = any(one.worker == agent.name and one.phase is Phase.ASSIGNED for one in records)
            if self._world.is_healed or agent.life != life or not agent.is_up or is_unseen:
                return
            self._world.note(f"the journal of {agent.name} is put back, and it is killed")
            agent.crash()
            before.plans = agent.disk.plans  # these are files of their own
            agent.disk = before
            agent.start_as_told()

        self._world.later(random.uniform(0.5, BACK_SECONDS_MAX), put_back)

    def assign_much(self, random: Random) -> None:
        """A worker with many slots gets tasks whose inputs are together more than one message takes."""
        there = [agent for agent in self._agents if agent.is_up and not agent.is_gone]
        if self._world.is_healed or not there:
            return
        agent = random.choice(there)
        self._world.note(f"{agent.name} comes back with {MANY_SLOTS} slots, and much is submitted at once")
        agent.crash()
        agent.slots = (("any",),) * MANY_SLOTS
        agent.start_as_told()
        self._clients.submit_heavy(random, agent.pool, MANY_SLOTS)

    def tell_bytes(self, random: Random) -> None:
        """An agent reports an end whose result is no text, and is believed if the attempt is its own."""
        self._lies.tell_bytes(random)
