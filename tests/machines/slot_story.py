"""A slot allocator's story, in which workers speak."""

from typing import Any

from machine_story import LOST_SECONDS, PLANS_AND_ANY, SUSPECT_SECONDS, Story, run, submitted

from taskyard.contracts.agent_protocol import Heartbeat
from taskyard.contracts.events import SlotAssigned, TaskScheduled
from taskyard.contracts.values import SECOND, TaskId
from taskyard.slot_allocator.liveness import HeartbeatSeen, Listened
from taskyard.slot_allocator.machine import SlotAllocator

KINDS = ("command", "noop", "plan", "plan_and_apply")


class Slots(Story):
    """A slot allocator's story, in which workers speak."""

    def __init__(self) -> None:
        super().__init__(SlotAllocator(SUSPECT_SECONDS, LOST_SECONDS))

    def scheduled(self, task: TaskId, kind: str = "noop", **fields: Any) -> "Slots":
        self.given(submitted(task, kind, **fields), TaskScheduled(task=task))
        return self

    def heard(self, worker: str = "w1", incarnation: int = 1, **fields: Any) -> HeartbeatSeen:
        """A heartbeat that is heard now."""
        values: dict[str, Any] = {"pool": "default", "slots": PLANS_AND_ANY, "kinds": KINDS}
        return HeartbeatSeen(agent=worker, heartbeat=Heartbeat(incarnation=run(incarnation), **(values | fields)))

    def answered(self) -> Listened:
        """The server answers now."""
        return Listened(at=self.now / SECOND)

    def slots(self) -> list[tuple[TaskId, str, int]]:
        """What was assigned: task, worker, slot."""
        return [(event.task, event.worker, event.slot) for event in self.chosen if isinstance(event, SlotAssigned)]
