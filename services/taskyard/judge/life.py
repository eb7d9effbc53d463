"""One task as the events tell it: where it stands, and what it has."""

from dataclasses import dataclass, field
from enum import StrEnum

from taskyard.contracts.events import StreamMark, TaskSubmitted
from taskyard.contracts.values import Incarnation, Instant, Position

NEVER = Instant(0)

Slot = tuple[str, int]
"""Worker and number."""


class Stage(StrEnum):
    """Where a task stands; the value is the status that people see, but for the two that they do not."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    ASSIGNED = "assigned"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    PLANNED = "apply_pending"
    HELD = "held"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


OVER = frozenset((Stage.COMPLETED, Stage.FAILED, Stage.TIMEOUT, Stage.CANCELLED))
OPEN = frozenset((Stage.ASSIGNED, Stage.DISPATCHED, Stage.RUNNING, Stage.HELD, Stage.STOPPING))
"""An attempt has a slot and no end."""
_SHOWN = {Stage.HELD: "running", Stage.STOPPING: "cancelling"}


@dataclass(slots=True, kw_only=True)
class Life:
    """One task. `policy` is the event that made it; `plan` the attempt whose plan is shown; `repeatable` are
    attempts that another worker may run again when theirs is lost; `due` when it may go on.
    """

    policy: TaskSubmitted
    submitted: Position
    submitted_at: Instant
    stage: Stage = Stage.PENDING
    due: Instant = NEVER
    priority: int = 0
    attempt: int = 0
    tries: int = 0
    undelivered: int = 0
    declined: int = 0
    worker: str | None = None
    slot: int | None = None
    incarnation: Incarnation = 0
    plan: int | None = None
    is_confirmed: bool = False
    stops_as: Stage = Stage.CANCELLED
    repeatable: set[int] = field(default_factory=set[int])
    progress: int = 0
    scheduled_at: Instant | None = None
    assigned_at: Instant | None = None
    started_at: Instant | None = None
    planned_at: Instant | None = None
    commands_before: StreamMark | None = None
    ended_at: Instant | None = None

    @property
    def id(self) -> str:
        """The id of the task."""
        return self.policy.task

    @property
    def kind(self) -> str:
        """The kind of the task."""
        return self.policy.kind

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.stage in OVER

    @property
    def status(self) -> str:
        """The status as people see it."""
        return _SHOWN.get(self.stage, self.stage.value)

    @property
    def is_reserved(self) -> bool:
        """Whether it keeps a slot while nothing of it runs."""
        return self.stage is Stage.PLANNED or (self.stage is Stage.SCHEDULED and self.is_confirmed)

    @property
    def held(self) -> Slot | None:
        """The slot that it has."""
        if self.worker is None or self.slot is None or not (self.stage in OPEN or self.is_reserved):
            return None
        return self.worker, self.slot
