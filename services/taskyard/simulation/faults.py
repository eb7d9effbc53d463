"""What goes wrong, drawn from the seed: how bad the network is, and which parts fail when."""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from taskyard.simulation.acts import Acts
from taskyard.simulation.agent_faults import AgentFaults
from taskyard.simulation.lies import Lies
from taskyard.simulation.network import Faultiness
from taskyard.simulation.service_faults import ServiceFaults
from taskyard.simulation.time import World
from taskyard.simulation.upgrades import Upgrades

FAULTS_MAX = 24

Fault = Callable[[Random], None]


def draw_faultiness(world: World) -> Faultiness:
    """How bad the network of this run is: often a little, sometimes very, sometimes not at all."""
    random = world.random
    bad = random.choice((0.0, 0.01, 0.03, 0.03, 0.1, 0.25))
    return Faultiness(
        lost=bad * random.random(),
        late=bad * random.random(),
        twice=bad * random.random(),
        late_seconds=random.choice((0.5, 3.0, 12.0)),
        slow_assignments=random.choice((0.0, 0.0, 0.1, 0.4)),
        cut=random.choice((0.0, 0.0, 0.05, 0.2)),
        torn=random.choice((0.0, 0.0, 0.01, 0.05)),
    )


def plan_faults(
    world: World,
    acts: Acts,
    until_seconds: float,
    *,
    services: ServiceFaults,
    agents: AgentFaults,
    lies: Lies,
    upgrades: Upgrades,
) -> None:
    """Draw the faults of the time until then: some kinds of them, each so often."""
    kinds: Sequence[tuple[int, str, Fault]] = (
        (5, "an instance crashes", services.crash),
        (4, "an instance freezes", services.freeze),
        (2, "an instance stops in order", services.stop),
        (2, "all instances stop", services.stop_all),
        (1, "instances are restarted one by one", services.roll),
        (2, "leases are broken", services.break_leases),
        (2, "an allocator hears nobody", services.deafen),
        (3, "the streams are away", services.log_away),
        (2, "a stream is full", services.fill),
        (2, "an input stream is deleted and made anew", services.make_anew),
        (1, "the services are upgraded", upgrades.roll),
        (3, "an instance hears nothing of the log", services.stall),
        (2, "the clock of the streams is set", services.set_clock),
        (2, "an instance reads again", services.read_again),
        (3, "an agent crashes", agents.crash),
        (1, "a host is lost", agents.lose_host),
        (2, "an agent freezes", agents.freeze),
        (4, "an agent is parted", agents.part),
        (2, "an agent leaves", agents.leave),
        (3, "an agent lies", lies.tell),
    )
    random = world.source("faults")
    chosen = random.sample(kinds, random.randrange(1, len(kinds)))
    weights = [weight for weight, _, _ in chosen]
    for number in range(random.randrange(FAULTS_MAX + 1)):
        _, what, fault = random.choices(chosen, weights)[0]
        acts.plan(random.uniform(0.0, until_seconds), what, partial(fault, world.source(f"fault {number}")))
