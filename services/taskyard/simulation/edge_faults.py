"""What goes wrong at the edges: whole services that stand still, floods of what is refused, requests that are too large,
and bytes that are no text.

Drawn beside the other faults, and in half of the runs only.
"""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from taskyard.simulation.acts import Acts
from taskyard.simulation.agent import Agent
from taskyard.simulation.clients import Clients
from taskyard.simulation.instance import Instance
from taskyard.simulation.lies import Lies
from taskyard.simulation.network import Faultiness
from taskyard.simulation.time import World

SHARE = 0.5
WELL_SHARE = 0.5
FAULTS_MAX = 5
STANDS_STILL_SECONDS = (9.0, 30.0)
"""Longer than a worker may be silent."""
MANY_SLOTS = 24

_Fault = Callable[[Random], None]


class EdgeFaults:
    """Faults at the edges."""

    def __init__(
        self, world: World, instances: Sequence[Instance], agents: Sequence[Agent], clients: Clients, lies: Lies
    ) -> None:
        self._world = world
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
            ("more is assigned to a worker than fits one request", self.assign_much),
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
