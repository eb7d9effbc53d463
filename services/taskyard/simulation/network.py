"""The network between processes: what is sent may be lost, late, or come twice, and an agent may have no connection."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from msgspec import Struct

from taskyard.simulation.time import World

Reply = Callable[[bytes], None]


class Faultiness(Struct, kw_only=True):
    """How bad the network is: probabilities for one message, and the longest delay in seconds.

    `slow_assignments` is that an assignment is overtaken by what is sent later; `cut` that an agent loses its connection,
    or its life, just after a request has reached it; `torn` that an instance crashes while it appends.
    """

    lost: float = 0.0
    late: float = 0.0
    twice: float = 0.0
    late_seconds: float = 3.0
    slow_assignments: float = 0.0
    cut: float = 0.0
    torn: float = 0.0


class Listener(Protocol):
    """An agent, as the server knows it."""

    @property
    def is_connected(self) -> bool:
        """Whether the server believes that it listens."""
        ...

    def receive(self, verb: str, data: bytes, reply: Reply) -> None:
        """A request arrives."""
        ...


class Network:
    """Carries messages. `agents` are all who listen under a name.

    Streams are behind it too: `is_log_away` lets nothing through to them or back.
    """

    def __init__(self, world: World, faultiness: Faultiness) -> None:
        self.world = world
        self.faultiness = faultiness
        self.random = world.source("network")
        self.agents: dict[str, list[Listener]] = {}
        self.is_log_away = False

    def carry(self, deliver: Callable[[], None], *, may_repeat: bool = False) -> None:
        """Bring one message to its receiver, or not."""
        world, faults = self.world, self.faultiness
        if world.chance(faults.lost, self.random):
            return
        world.later(self.delay(), deliver)
        if may_repeat and world.chance(faults.twice, self.random):
            world.later(self.delay(), deliver)

    def delay(self) -> float:
        """How long one message takes, in seconds."""
        if self.world.chance(self.faultiness.late, self.random):
            return self.random.uniform(0.0, self.faultiness.late_seconds)
        return self.random.uniform(0.0005, 0.01)

    def request(
        self, agent: str, verb: str, data: bytes, *, answered: Reply, nobody_listened: Callable[[], None]
    ) -> None:
        """Ask an agent. The server says so when nobody listens; it delivers nothing then."""

        def route() -> None:
            listening = [one for one in self.agents.get(agent, ()) if one.is_connected]
            if not listening:
                self.carry(nobody_listened)
                return
            slow = verb == "assign" and self.world.chance(self.faultiness.slow_assignments, self.random)
            delay = self.random.uniform(0.0, self.faultiness.late_seconds) if slow else 0.0
            for one in listening:
                self.world.later(delay, partial(self.carry, partial(one.receive, verb, data, reply), may_repeat=True))

        def reply(answer: bytes) -> None:
            self.carry(lambda: answered(answer), may_repeat=True)

        self.carry(route)
