"""Random schedules of the whole protocol: whatever happens, the log holds, and once it stops happening, every task ends."""

import pytest
from chaos import Chaos
from checkers import check_log
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from world import World


def run(seed: int, *, instances: int, steps: int) -> World:
    world = World(seed, instances=instances)
    for each in world.instances[::instances]:
        each.campaign()
        each.turn()
    Chaos(world).run(steps)
    check_log(world.commits())
    world.heal()
    check_log(world.commits())
    applied = [each for agent in world.agents.values() for each in agent.applied]
    assert len(applied) == len(set(applied)), "an apply ran twice"
    return world


@pytest.mark.parametrize("instances", [1, 2])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1))
def test_whatever_happens_the_rules_hold_and_every_task_ends(instances, seed):
    run(seed, instances=instances, steps=1_200)
