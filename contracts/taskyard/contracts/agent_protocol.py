"""What the dispatcher and the slot allocator say to agents, and what agents say to them.

Requests go to `taskyard.agent.<agent>.assign` and `.cancel` and are answered at once; reports and output go to
JetStream; heartbeats are core messages. The agent's name comes from the subject, never from a body.

The position of its `SlotAssigned` identifies an assignment for ever: per slot an agent remembers the highest position
that it has seen and what became of it, so a repeated or late message never runs anything twice.
"""

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from taskyard.contracts.events import Changes, TaskError
from taskyard.contracts.incarnations import IncarnationText
from taskyard.contracts.values import Incarnation, Instant, Position, TaskId

HEARTBEAT_SECONDS = 2.0
START_SECONDS_MAX = 300.0
"""So long an agent may have what it has accepted before it says that it has started; what takes longer is stopped."""
REPORT_STORE_SECONDS_MAX = 5.0
"""How long an agent waits to be told that its reports are stored,"""
REPORT_RETRY_SECONDS_MAX = 5.0
"""and then at most before it tells them again."""
REPORT_BATCH_MAX = 200
REPORT_BYTES_MAX = 64 * 1024
OUTPUT_CHUNK_BYTES_MAX = 32 * 1024
PROGRESS_SECONDS_MIN = 5.0
ASSIGNMENTS_PER_REQUEST_MAX = 200
AGENT_SLOTS_MAX = 1024
LINEAGE_MAX = 64
"""Incarnations of one journal that are told and remembered."""
MESSAGE_CHARACTERS_MAX = 2048

HEADER_ATTEMPT = "Taskyard-Attempt"
HEADER_STREAM = "Taskyard-Stream"
HEADER_OFFSET = "Taskyard-Offset"
"""Headers of an output chunk: attempt number, `stdout` or `stderr`, byte offset in that stream of that attempt."""


ACCEPTED, DECLINED, LOST = "accepted", "declined", "lost"
"""Outcomes of an assignment."""
REASON_NO_SLOT = "the worker has no such slot"
REASON_NO_KIND = "the worker does not run this kind"
"""Why an assignment is declined however often it comes to this incarnation: what was to be applied there is planned again."""


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The root of all messages between control plane and agents."""


class LiveAttempt(Message):
    """An attempt that the agent has taken and that has not ended."""

    position: Position
    task: TaskId
    attempt: int
    slot: int


class Heartbeat(Message):
    """The agent is there. `slots[i]` lists what slot i accepts; `leaving` says it takes nothing new and goes.

    `follows` are the incarnations before this one with the same journal, the last first; `place` tells the folder and the
    boot of the host that the agent's processes belong to: who begins a journal there has ended what was there before.
    `live` are the attempts that it has; `reason` says why it takes nothing new for now.
    """

    incarnation: IncarnationText
    pool: str
    slots: Annotated[tuple[tuple[str, ...], ...], Meta(max_length=AGENT_SLOTS_MAX)]
    kinds: tuple[str, ...]
    labels: dict[str, str] = {}
    leaving: bool = False
    running: int = 0
    follows: Annotated[tuple[Incarnation, ...], Meta(max_length=LINEAGE_MAX)] = ()
    place: Annotated[str, Meta(max_length=64)] = ""
    live: Annotated[tuple[LiveAttempt, ...], Meta(max_length=AGENT_SLOTS_MAX)] = ()
    reason: Annotated[str, Meta(max_length=MESSAGE_CHARACTERS_MAX)] = ""


Seen = Literal["new", "accepted", "started"]
SEEN_NEW: Seen = "new"
SEEN_ACCEPTED: Seen = "accepted"
SEEN_STARTED: Seen = "started"


class Assignment(Message):
    """One attempt for one slot. `incarnation` is the worker's when the slot was assigned; `apply` marks the apply of a
    plan that this agent made in attempt `plan_attempt`. `seen` is how far the log has come with this attempt: an agent
    that does not know one of which the log has seen anything has lost it, and starts nothing. `repeatable` says whether
    another worker may run the task when this one is silent for too long.
    """

    position: Position
    task: TaskId
    attempt: int
    slot: int
    incarnation: Incarnation
    kind: str
    input: Raw
    timeout_seconds: float
    repeatable: bool = False
    apply: bool = False
    plan_attempt: int | None = None
    traceparent: str | None = None
    seen: Seen = SEEN_NEW


class AssignRequest(Message):
    """Assignments for the current incarnation of the agent; another one stays silent."""

    incarnation: Incarnation
    assignments: Annotated[tuple[Assignment, ...], Meta(max_length=ASSIGNMENTS_PER_REQUEST_MAX)]


class AssignAnswer(Message):
    """What became of one assignment: `accepted`, `declined` (it certainly did not and will not run from this message),
    or `lost` (this agent's memory does not reach back to it).
    """

    position: Position
    outcome: str
    reason: str = ""


class AssignReply(Message):
    """The answers, in the order of the request. What has none is asked again."""

    answers: tuple[AssignAnswer, ...]


class Cancel(Message):
    """Stop this attempt (TERM to its process group, the grace period, KILL). One that was never seen is recorded, so
    that it can never start, and reported as ended.
    """

    position: Position
    task: TaskId
    attempt: int
    slot: int
    cause: str
    grace_seconds: float = 10.0


class CancelRequest(Message):
    """Attempts to stop, for the incarnation that has them; another one stays silent. The reply is an `AssignReply` with
    the outcome `accepted` for each. `retire` says why this incarnation has to stop all that it has, tell the ends, and go:
    another host has its name by now.
    """

    incarnation: Incarnation

    cancels: tuple[Cancel, ...]
    retire: str = ""


class Report(Message, tag=True, tag_field="type"):
    """The root of the reports of one attempt."""

    task: TaskId
    attempt: int
    at: Instant


class Started(Report):
    """The attempt runs."""


class Progressed(Report):
    """Progress, 0 to 100."""

    progress: Annotated[int, Meta(ge=0, le=100)]
    message: Annotated[str, Meta(max_length=MESSAGE_CHARACTERS_MAX)] = ""


class Planned(Report):
    """The plan of a `plan_and_apply` is made and kept on this agent."""

    changes: Changes


class Succeeded(Report):
    """The attempt ended well."""

    result: Raw = Raw(b"null")


class Failed(Report):
    """The attempt ended badly, was stopped, or ran out of time (`error.code` `timeout`)."""

    error: TaskError
    result: Raw = Raw(b"null")


class Lost(Report):
    """The agent restarted and no longer has the attempt."""

    message: str = ""


AnyReport = Started | Progressed | Planned | Succeeded | Failed | Lost


class ReportBatch(Message):
    """Reports of one agent in the order in which they happened. `number` rises by one a batch of an incarnation.

    `nonce` is random, so that nobody else can guess the id under which the message is stored: the digest of its bytes.
    """

    incarnation: Incarnation
    number: int
    reports: Annotated[tuple[AnyReport, ...], Meta(max_length=REPORT_BATCH_MAX)]
    nonce: Annotated[str, Meta(max_length=64)] = ""
