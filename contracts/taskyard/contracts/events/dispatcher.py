"""What the dispatcher appends: what became of each attempt.

It also appends `TaskStopRequested` of the scheduler's events, with the cause `timeout`.
"""

from msgspec import Raw

from taskyard.contracts.events.event import Changes, Event, StreamMark, TaskError
from taskyard.contracts.events.scheduler import TaskStopRequested
from taskyard.contracts.values import Instant, TaskId

DISPATCHER = "dispatcher"

NO_RESPONDERS = "no responders"
"""The reason of a `NotDelivered` that says that nobody listened on the worker's subject."""


class TaskDispatched(Event):
    """The worker accepted the attempt."""

    task: TaskId
    attempt: int


class TaskStarted(Event):
    """The worker started the attempt; `at` is its own clock, for information."""

    task: TaskId
    attempt: int
    at: Instant | None = None


class TaskProgressed(Event):
    """Progress of a running attempt, 0 to 100."""

    task: TaskId
    attempt: int
    progress: int
    message: str = ""


class TaskPlanned(Event):
    """The plan of a `plan_and_apply` is there and waits for an answer.

    `commands_before` marks the commands that were stored before anybody could see it: of these, one that answers a plan
    without naming its attempt is not for this one. Logs of the first version have no mark.
    """

    task: TaskId
    attempt: int
    changes: Changes
    commands_before: StreamMark | None = None


class AttemptSucceeded(Event):
    """The attempt did what it should. `worker` names, here and below, who told the end of an earlier attempt, too late."""

    task: TaskId
    attempt: int
    result: Raw = Raw(b"null")
    worker: str | None = None


class AttemptFailed(Event):
    """The attempt ended without success. Error code `timeout` is the agent's own enforcement of the deadline."""

    task: TaskId
    attempt: int
    error: TaskError
    result: Raw = Raw(b"null")
    worker: str | None = None


class AttemptLost(Event):
    """The worker no longer has the attempt and cannot tell how it ended."""

    task: TaskId
    attempt: int
    message: str = ""
    worker: str | None = None


class NotDelivered(Event):
    """It is certain that the attempt did not begin: nobody listened, or the worker was there and declined it (`declined`)."""

    task: TaskId
    attempt: int
    reason: str
    declined: bool = False


class SlotCleared(Event):
    """The worker has told that nothing of this attempt lives, whose task was ended by force: its slot may be given again."""

    task: TaskId
    attempt: int
    worker: str
    slot: int


DispatcherEvent = (
    TaskDispatched
    | TaskStarted
    | TaskProgressed
    | TaskPlanned
    | TaskStopRequested
    | AttemptSucceeded
    | AttemptFailed
    | AttemptLost
    | NotDelivered
    | SlotCleared
)
