"""What goes wrong at the edges: whole services that stand still, floods of what is refused, archives that are away, and
bytes that are no text.

Drawn beside the other faults, with those of workers, and in half of the runs only.
"""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from taskyard.simulation.acts import Acts
from taskyard.simulation.clients import Clients
from taskyard.simulation.instance import Instance
from taskyard.simulation.lies import Lies
from taskyard.simulation.network import Faultiness
from taskyard.simulation.streams import Servers
from taskyard.simulation.time import World

SHARE = 0.5
WELL_SHARE = 0.5
FAULTS_MAX = 5
STANDS_STILL_SECONDS = (9.0, 30.0)
"""Longer than a worker may be silent."""
RETRIES = 4

Kind = tuple[str, Callable[[Random], None]]
"""What a fault is called, and what it does."""


def plan_edges(world: World, acts: Acts, until_seconds: float, faultiness: Faultiness, kinds: Sequence[Kind]) -> None:
    """Draw those of a run. In some of them the network is well, so that whoever is silent is not there."""
    random = world.source("edges")
    if random.random() > SHARE:
        return
    if random.random() < WELL_SHARE:
        faultiness.lost = faultiness.late = 0.0
    for number in range(random.randrange(1, FAULTS_MAX)):
        what, fault = random.choice(kinds)
        acts.plan(random.uniform(0.0, until_seconds), what, partial(fault, world.source(f"edge {number}")))


class EdgeFaults:
    """Faults at the edges. `kinds` are all that there are."""

    def __init__(self, servers: Servers, instances: Sequence[Instance], clients: Clients, lies: Lies) -> None:
        self._servers = servers
        self._world = servers.world
        self._instances = instances
        self._clients = clients
        self.kinds: Sequence[Kind] = (
            ("all instances of a service stand still", self.stop_a_service),
            ("all services stand still", self.stop_everything),
            ("somebody sends a burst of what is refused", self.burst),
            ("the archive is away", self.take_archive_away),
            ("an agent reports a result that is no text", lies.tell_bytes),
        )

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
