"""The answers of the read queries, in the form in which they go out as JSON."""

from typing import TypedDict

from msgspec import Raw, Struct

from taskyard.contracts.events import FieldError, TaskError


class View(Struct, frozen=True, kw_only=True, gc=False):
    """The root of answers. Fields that do not apply are null."""


class PendingReason(View):
    """Why a task waits: a code, a sentence, what it waits for, and its place among the waiting tasks of its queue."""

    code: str
    message: str
    blocker: str | None = None
    queue_position: int | None = None


class TaskView(View):
    """A task. `result` is the kind's; while a plan waits for its answer, the changes that it would make."""

    id: str
    kind: str
    pool: str
    queue: str
    priority: int
    status: str
    attempt: int
    worker: str | None
    slot: int | None
    progress: int
    error: TaskError | None
    pending_reason: PendingReason | None
    submitted_by: str
    submitted_at: str
    scheduled_at: str | None
    started_at: str | None
    finished_at: str | None
    result: Raw | None
    labels: Raw
    retry_of: str | None
    parent: str | None
    position: str


class TaskPage(View):
    """Some tasks, and the cursor of those after them."""

    items: list[TaskView]
    next_cursor: str | None


class HistoryItem(View):
    """One event of a task. `by` is who asked for it, or the service that found it; `data` is the rest of the event."""

    position: str
    at: str
    type: str
    by: str
    void: bool
    data: dict[str, Raw]


class Rejection(View):
    """A refusal: by whom the command was given, and why it was refused, or why a task of its batch was."""

    position: str
    at: str
    by: str
    verb: str
    command: str
    status: int
    code: str
    message: str
    errors: list[FieldError]


class SlotView(View):
    """A slot: `idle`, `running`, or `reserved` for `task`, which is null where it is another's and the caller may not see it."""

    id: int
    status: str
    accepts: list[str]
    task: str | None


class WorkerView(View):
    """A worker: `active`, `suspect`, `draining` or `lost`.

    `incarnation` names the run of its program that is meant, `joined_at` is when the log heard of it.
    """

    id: str
    pool: str
    status: str
    incarnation: str
    joined_at: str
    reason: str
    labels: Raw
    slots: list[SlotView]


QUEUE_SCOPE, POOL_SCOPE = "queue", "pool"
"""What a pause that holds a queue was for."""


class QueuePause(TypedDict):
    """The fields that tell what pauses a queue."""

    paused: bool
    paused_scope: str | None
    paused_by: str | None
    paused_reason: str | None
    paused_at: str | None


class QueueView(View):
    """A queue: `depth` tasks wait in it, `running` have a slot; `max_running` null means no limit.

    It is paused also where its pool is: `paused_scope` says which of them, `queue` or `pool`.
    """

    pool: str
    queue: str
    depth: int
    running: int
    max_running: int | None
    paused: bool
    paused_scope: str | None
    paused_by: str | None
    paused_reason: str | None
    paused_at: str | None
    locked: bool
    locked_by: str | None
    locked_reason: str | None
    locked_at: str | None


class PoolView(View):
    """A pool. Settings that nobody has set are null."""

    pool: str
    depth: int
    running: int
    workers: int
    max_waiting: int | None
    approval_timeout_seconds: float | None
    placement: str | None
    paused: bool
    paused_by: str | None
    paused_reason: str | None
    paused_at: str | None


class TimesView(View):
    """How long something took, in seconds; null where nothing was measured."""

    mean: float | None
    p50: float | None
    p95: float | None


class StatsView(View):
    """Numbers of tasks, and times of the `measured` tasks that ended last: submit to start, and start to end.

    To an operator all of it is of own tasks, and those measured are among the last 20,000 of them.
    """

    tasks: int
    by_status: dict[str, int]
    by_kind: dict[str, dict[str, int]]
    measured: int
    waiting_seconds: TimesView
    execution_seconds: TimesView
