"""What the server answers, as far as tables show it. Every field may be missing: another version may answer."""

from typing import Any, Generic, TypeVar

from msgspec import Raw, Struct

ENDED = frozenset(("completed", "failed", "timeout", "cancelled"))

T = TypeVar("T")


class View(Struct, frozen=True, kw_only=True):
    """The root of answers."""


class TaskError(View):
    """Why a task did not complete."""

    code: str = ""
    message: str = ""
    retryable: bool = False


class PendingReason(View):
    """Why a task waits, what it waits for, and its place."""

    code: str = ""
    message: str = ""
    blocker: str | None = None
    queue_position: int | None = None


class AsOf(View):
    """The moment that an answer shows, where it shows the past."""

    position: str = ""
    at: str = ""


class Task(View):
    """A task; times are RFC 3339."""

    id: str
    kind: str = ""
    pool: str = ""
    queue: str = ""
    priority: int = 0
    status: str = ""
    attempt: int = 0
    worker: str | None = None
    slot: int | None = None
    progress: int = 0
    error: TaskError | None = None
    pending_reason: PendingReason | None = None
    submitted_by: str = ""
    submitted_at: str | None = None
    scheduled_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    result: Any = None
    labels: dict[str, str] | None = None
    retry_of: str | None = None
    parent: str | None = None
    position: str | None = None
    as_of: AsOf | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the task is over for good."""
        return self.status in ENDED


class HistoryItem(View):
    """One event of a task."""

    position: str = ""
    at: str = ""
    type: str = ""
    by: str | None = None
    void: bool = False
    data: dict[str, Any] = {}


class Decision(View):
    """A line of a task's story: what was decided or waited for, when and by whom."""

    position: str | None = None
    at: str = ""
    by: str = ""
    type: str = ""
    message: str = ""


class Why(View):
    """Why a task is where it is. `task` is null for one that was refused."""

    task: Task | None = None
    blocker: Task | None = None
    summary: str = ""
    decisions: list[Decision] = []
    complete: bool = True


class Slot(View):
    """A slot of a worker."""

    id: int = 0
    status: str = ""
    accepts: list[str] = []
    task: str | None = None


class Worker(View):
    """A worker and its slots."""

    id: str
    pool: str = ""
    status: str = ""
    reason: str = ""
    labels: dict[str, str] | None = None
    slots: list[Slot] = []


class Queue(View):
    """A queue."""

    pool: str = ""
    queue: str = ""
    depth: int = 0
    running: int = 0
    max_running: int | None = None
    paused: bool = False
    paused_scope: str | None = None
    paused_by: str | None = None
    paused_reason: str | None = None
    paused_at: str | None = None
    locked: bool = False
    locked_by: str | None = None
    locked_reason: str | None = None
    locked_at: str | None = None


class Pool(View):
    """A pool."""

    pool: str = ""
    depth: int = 0
    running: int = 0
    workers: int = 0
    max_waiting: int | None = None
    approval_timeout_seconds: float | None = None
    placement: str | None = None
    paused: bool = False
    paused_by: str | None = None
    paused_reason: str | None = None
    paused_at: str | None = None


class Readiness(View):
    """How far the read model is behind the log; None where the service cannot tell."""

    ready: bool
    projection_lag_commits: int | None = None
    projection_lag_seconds: float | None = None


class Health(View):
    """Who leads each deciding service, as learnt last of those in `unknown`; `reasons` says what is wrong with those that
    have no leader that stays. `warnings` names streams that will soon be full.
    """

    healthy: bool
    reasons: dict[str, str] = {}
    leaders: dict[str, str | None] = {}
    unknown: list[str] = []
    warnings: dict[str, str] = {}


class Times(View):
    """How long something took, in seconds."""

    mean: float | None = None
    p50: float | None = None
    p95: float | None = None


class Stats(View):
    """Numbers of tasks, and times of those that ended last."""

    tasks: int = 0
    by_status: dict[str, int] = {}
    by_kind: dict[str, dict[str, int]] = {}
    measured: int = 0
    waiting_seconds: Times = Times()
    execution_seconds: Times = Times()


class Accepted(View):
    """A command was accepted; `position` is null when no verdict came in time."""

    id: str | None = None
    position: str | None = None


class Page(View, Generic[T]):
    """A list, and the cursor of what comes after it."""

    items: list[T]
    next_cursor: str | None = None
    as_of: AsOf | None = None


class Problem(View):
    """Why the server refused."""

    title: str = ""
    status: int = 0
    detail: str = ""
    error: str = ""
    errors: list[dict[str, str]] = []
    tasks: list[Raw] = []


class BatchEntry(View):
    """What became of one task of many."""

    id: str | None = None
    position: str | None = None
    error: Problem | None = None


class FeedEvent(View):
    """One live event; `data` are its own fields."""

    position: str = ""
    at: str = ""
    type: str = ""
    data: Raw = Raw(b"{}")


class EventOfTask(View):
    """The part of an event that tells whom it concerns, and of a rejection which command and why."""

    task: str | None = None
    verb: str = ""
    command: str = ""
    status: int = 0
    code: str = ""
    message: str = ""
