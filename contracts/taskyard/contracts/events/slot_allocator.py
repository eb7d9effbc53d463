"""What the slot allocator appends: workers that come and go, and who gets which slot."""

from taskyard.contracts.events.event import Event
from taskyard.contracts.values import TaskId

SLOT_ALLOCATOR = "slot_allocator"


class WorkerJoined(Event):
    """An incarnation of a worker is there. `slots[i]` lists what slot i accepts (`any` or kinds); `kinds` what it runs."""

    worker: str
    incarnation: int
    pool: str
    slots: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...]
    labels: dict[str, str] = {}  # noqa: RUF012 - a Struct gives each its own


class WorkerSuspected(Event):
    """The worker has been silent: no new slots of it are given."""

    worker: str
    incarnation: int
    reason: str = ""


class WorkerRecovered(Event):
    """A suspected worker spoke again."""

    worker: str
    incarnation: int


class WorkerLost(Event):
    """The worker is gone: what it had follows the rule of each kind."""

    worker: str
    incarnation: int
    reason: str = ""


class SlotAssigned(Event):
    """Attempt `attempt` of the task has this slot of this incarnation of the worker."""

    task: TaskId
    attempt: int
    worker: str
    incarnation: int
    slot: int


SlotAllocatorEvent = WorkerJoined | WorkerSuspected | WorkerRecovered | WorkerLost | SlotAssigned
