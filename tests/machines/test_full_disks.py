"""A worker whose disk is full, in the three machines together: what it declines ends nothing and finds other workers."""

from typing import Any

import pytest
from machine_story import PLANS_AND_ANY
from trio import KINDS, Agent, Trio

from taskyard.contracts.agent_protocol import AssignAnswer, Heartbeat
from taskyard.contracts.lifecycle import Phase
from taskyard.machine.inputs import Offered
from taskyard.slot_allocator.liveness import HeartbeatSeen

FULL = "the disk of the worker is full"


class FullAgent(Agent):
    """Declines whatever is new while `reason` says why; `tells` it with its heartbeat as well, as agents do."""

    def __init__(self, name: str, *, tells: bool) -> None:
        super().__init__(name)
        self.reason = FULL
        self.tells = tells

    def _answer(self, each: Any, incarnation: Any) -> AssignAnswer:
        if not self.reason or each.position in self.outcomes:
            return super()._answer(each, incarnation)
        self.outcomes[each.position] = "declined"
        return AssignAnswer(position=each.position, outcome="declined", reason=self.reason)


class FullTrio(Trio):
    """As the trio; the agents in `names` have a full disk."""

    def __init__(self, *names: str, tells: bool) -> None:
        super().__init__()
        self.agents = [FullAgent(one.name, tells=tells) if one.name in names else one for one in self.agents]
        self.heartbeats()
        self.settle()

    def heartbeats(self) -> None:
        for agent in self.agents:
            says = agent.reason if isinstance(agent, FullAgent) and agent.tells else ""
            beat = Heartbeat(
                incarnation=agent.incarnation, pool="default", slots=PLANS_AND_ANY, kinds=KINDS, reason=says
            )
            self.cores[1].offer(Offered(HeartbeatSeen(agent=agent.name, heartbeat=beat)))

    def record(self) -> Any:
        return self.checker.table.live.get(self.tasks[0])


@pytest.mark.parametrize("tells", [True, False])
def test_a_task_that_a_full_worker_declines_is_run_by_the_healthy_one_beside_it(tells: bool) -> None:
    system = FullTrio("w1", tells=tells)

    system.submit("noop", "a", 5)
    system.settle()
    for _ in range(4):
        system.wait(5)

    (running,) = [agent.name for agent in system.agents if agent.running]
    assert running == "w2"


@pytest.mark.parametrize("tells", [True, False])
def test_where_all_disks_are_full_for_ten_minutes_a_task_waits_and_runs_when_one_has_room_again(tells: bool) -> None:
    system = FullTrio("w1", "w2", tells=tells)

    system.submit("noop", "a", 5)
    system.settle()
    for _ in range(120):
        system.wait(5)
    assert system.record().phase in (Phase.PENDING, Phase.SCHEDULED)
    assert not system.checker.ended

    for agent in system.agents:
        assert isinstance(agent, FullAgent)
        agent.reason = ""
    for _ in range(14):
        system.wait(5)
    assert system.record().phase is Phase.DISPATCHED
