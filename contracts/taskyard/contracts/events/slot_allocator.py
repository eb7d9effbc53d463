"""What the slot allocator appends: workers that come and go, and who gets which slot."""

from taskyard.contracts.events.event import Event
from taskyard.contracts.values import Incarnation, TaskId

SLOT_ALLOCATOR = "slot_allocator"


class WorkerJoined(Event):
    """An incarnation of a worker is there. `slots[i]` lists what slot i accepts (`any` or kinds); `kinds` what it runs.

    `continues` is the incarnation for whose attempts it answers: it has its journal, or made sure that nothing of it lives.
    `follows` are those before it with its journal, the last first: what they said may still be on its way.
    `place` tells the folder and the boot of the host that its processes belong to.
    """

    worker: str
    incarnation: Incarnation
    pool: str
    slots: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...]
    labels: dict[str, str] = {}  # noqa: RUF012 - a Struct gives each its own
    continues: Incarnation | None = None
    follows: tuple[Incarnation, ...] = ()
    place: str = ""


class WorkerSuspected(Event):
    """The worker has been silent, goes, or says why it takes nothing new: no new slots of it are given."""

    worker: str
    incarnation: Incarnation
    reason: str = ""


class WorkerRecovered(Event):
    """A suspected worker spoke again, and takes tasks."""

    worker: str
    incarnation: Incarnation


class WorkerLost(Event):
    """The worker is gone: what it had follows the rule of each kind."""

    worker: str
    incarnation: Incarnation
    reason: str = ""


class SlotAssigned(Event):
    """Attempt `attempt` of the task has this slot of this incarnation of the worker."""

    task: TaskId
    attempt: int
    worker: str
    incarnation: Incarnation
    slot: int


class PlacingFailed(Event):
    """Finding slots raised: for tasks of the kind `what` in the pool, or for the apply of the task whose id that is.

    They stand aside, and are tried again, until `PlacingResumed`. `reason` refers to the line in the log of the program.
    """

    pool: str
    what: str
    reason: str


class PlacingResumed(Event):
    """What `PlacingFailed` told of is given slots again, or waits no more."""

    pool: str
    what: str


SlotAllocatorEvent = (
    WorkerJoined | WorkerSuspected | WorkerRecovered | WorkerLost | SlotAssigned | PlacingFailed | PlacingResumed
)
