"""The one table of subjects and streams: their names, who owns and who reads them, and how streams are kept."""

from msgspec import Struct

PARTITION_DEFAULT = "0"

REPORT_SUBJECTS = "taskyard.report.*"
REPORTED_SUBJECTS = "taskyard.reported.*"
"""Where `dispatcher` hears the reports of agents, before it has them stored."""
OUTPUT_SUBJECTS = "taskyard.output.*.*"
PRINTED_SUBJECTS = "taskyard.printed.*.*"
"""Where `dispatcher` hears what the tasks of agents print, before it has it stored."""
HEARTBEAT_SUBJECTS = "taskyard.heartbeat.*"
REQUEST_SUBJECTS = "taskyard.request.>"
COMMAND_SUBJECTS = "taskyard.command.>"
COMMANDED_SUBJECTS = "taskyard.commanded.>"
"""Where `api` hears the commands of clients, which these send to `taskyard.command.>`, before it has them stored."""

AUDIT_SUBJECTS = "taskyard.audit.*"

CONTROL = "control"
AGENTS = "agents"
"""The two NATS accounts that hold streams. The third, of clients, holds none: its commands are imported by `control`."""

DAY_SECONDS = 86_400
GIBIBYTE = 1 << 30


COMMANDS_BYTES_MAX = 16 * GIBIBYTE
"""Commands are kept for a week: so much is 90 short ones a second all the while."""
REPORTS_BYTES_MAX = 4 * GIBIBYTE
COMMAND_MESSAGE_BYTES_MAX = 256 * 1024
REPORT_MESSAGE_BYTES_MAX = 80 * 1024
"""What commands and reports may have by their own limits, and room for headers."""
AGENT_BATCHES_MAX = 25_000
"""Batches of reports that are kept of one agent: it keeps a hundred itself, and whoever has them stored reads them at once. Of
the longest ones that is half of all that fits, so one agent leaves room for the others."""
STREAM_REMEMBERS_SECONDS = 120
"""For so long a stream knows the id of a message."""


class StreamSpec(Struct, frozen=True, kw_only=True):
    """How one stream is made and checked. `append_only` forbids deletes, purges and rollup.

    With `subject_messages_max` each new message of a subject takes the place of its oldest, and of no other's.
    """

    name: str
    account: str
    subjects: tuple[str, ...]
    owner: str
    readers: tuple[str, ...]
    max_age_seconds: int = 0
    max_bytes: int = -1
    subject_messages_max: int = -1
    append_only: bool = False
    discard_new: bool = False
    duplicate_window_seconds: int = STREAM_REMEMBERS_SECONDS
    max_message_bytes: int = 1 << 20


def log_stream(partition: str) -> str:
    """The stream that holds the log of a partition."""
    return f"TASKYARD_LOG_{partition}"


def log_subject(partition: str, writer: str) -> str:
    """The one literal subject on which a writer appends its commits."""
    return f"taskyard.log.{partition}.{writer}"


COMMANDS = "TASKYARD_COMMANDS"
REPORTS = "TASKYARD_REPORTS"
OUTPUT = "TASKYARD_OUTPUT"
AUDIT = "TASKYARD_AUDIT"
LEASES_BUCKET = "taskyard_leases"
SNAPSHOTS_BUCKET = "taskyard_snapshots"


def streams(
    partition: str = PARTITION_DEFAULT,
    *,
    commands_bytes_max: int = COMMANDS_BYTES_MAX,
    reports_bytes_max: int = REPORTS_BYTES_MAX,
) -> tuple[StreamSpec, ...]:
    """All streams of a deployment with one partition. What is full refuses what is new; it never drops what it has taken."""
    return (
        StreamSpec(
            name=log_stream(partition),
            account=CONTROL,
            subjects=(f"taskyard.log.{partition}.*",),
            owner="scheduler, slot_allocator, dispatcher, log_keeper",
            readers=("scheduler", "slot_allocator", "dispatcher", "state_projector", "api"),
            append_only=True,
            discard_new=True,
        ),
        StreamSpec(
            name=COMMANDS,
            account=CONTROL,
            subjects=(COMMAND_SUBJECTS,),
            owner="clients, api",
            readers=("scheduler",),
            max_age_seconds=7 * DAY_SECONDS,
            max_bytes=commands_bytes_max,
            max_message_bytes=COMMAND_MESSAGE_BYTES_MAX,
            discard_new=True,
        ),
        StreamSpec(
            name=REPORTS,
            account=AGENTS,
            subjects=(REPORT_SUBJECTS,),
            owner="agent, dispatcher",
            readers=("dispatcher",),
            max_age_seconds=7 * DAY_SECONDS,
            max_bytes=reports_bytes_max,
            max_message_bytes=REPORT_MESSAGE_BYTES_MAX,
            subject_messages_max=AGENT_BATCHES_MAX,
            discard_new=True,
        ),
        StreamSpec(
            name=OUTPUT,
            account=AGENTS,
            subjects=(OUTPUT_SUBJECTS,),
            owner="agent, dispatcher",
            readers=("api",),
            max_age_seconds=14 * DAY_SECONDS,
            max_bytes=8 * GIBIBYTE,
        ),
        StreamSpec(
            name=AUDIT,
            account=CONTROL,
            subjects=(AUDIT_SUBJECTS,),
            owner="api",
            readers=("operators",),
            max_age_seconds=365 * DAY_SECONDS,
            max_bytes=GIBIBYTE,
            max_message_bytes=4_096,
        ),
    )


def audit_subject(door: str) -> str:
    """Where is stored whom a door denied what."""
    return f"taskyard.audit.{door}"


def command_subject(principal: str, pool: str, verb: str) -> str:
    """Where a command is stored."""
    return f"taskyard.command.{principal}.{pool}.{verb}"


def principal_of(command: str) -> str:
    """Who gave a command that is stored on this subject."""
    return (command.split(".", 3) + [""] * 3)[2]


def commanded_subjects(principal: str) -> str:
    """Where the commands of a principal are heard, before they are stored."""
    return f"taskyard.commanded.{principal}.>"


def stored_subject(heard: str) -> str:
    """Where a command is stored that was heard, whatever its subject says of pool and verb."""
    return COMMAND_SUBJECTS[:-1] + heard.removeprefix(COMMANDED_SUBJECTS[:-1])


def request_subject(principal: str, pool: str, verb: str) -> str:
    """Where a command is asked for, with an answer."""
    return f"taskyard.request.{principal}.{pool}.{verb}"


def assign_subject(agent: str) -> str:
    """Where an agent takes assignments."""
    return f"taskyard.agent.{agent}.assign"


def cancel_subject(agent: str) -> str:
    """Where an agent takes cancels."""
    return f"taskyard.agent.{agent}.cancel"


def report_subject(agent: str) -> str:
    """Where an agent's reports are stored."""
    return f"taskyard.report.{agent}"


def heartbeat_subject(agent: str) -> str:
    """Where an agent's heartbeats go."""
    return f"taskyard.heartbeat.{agent}"


def output_subject(agent: str, task: str) -> str:
    """Where the output chunks of a task on an agent are stored."""
    return f"taskyard.output.{agent}.{task}"


def printed_as(heard: str) -> str:
    """Where a chunk of output is stored that was heard, whichever task its subject names."""
    return OUTPUT_SUBJECTS[:-3] + heard.removeprefix(PRINTED_SUBJECTS[:-3])


def answer_subject(instance: str) -> str:
    """Where the scheduler answers the commands that came through the door of one `api` instance."""
    return f"taskyard.answer.{instance}"


HEADER_ANSWER = "Taskyard-Answer"
"""Header of a stored command: the `api` instance (a name) that waits for the outcome. Absent when nobody waits."""


HEADER_TRACEPARENT = "traceparent"
"""Header of a stored command: the W3C trace context of who submitted it."""


class SubjectRow(Struct, frozen=True, kw_only=True):
    """A row of the documented table for what is not stored."""

    subject: str
    account: str
    owner: str
    readers: str
    purpose: str


CORE_SUBJECTS: tuple[SubjectRow, ...] = (
    SubjectRow(
        subject="taskyard.request.<principal>.<pool>.<verb>",
        account="clients → control",
        owner="clients",
        readers="api",
        purpose="a command with an answer",
    ),
    SubjectRow(
        subject="taskyard.answer.<api instance>",
        account=CONTROL,
        owner="scheduler",
        readers="api",
        purpose="outcomes of commands",
    ),
    SubjectRow(
        subject="taskyard.agent.<agent>.{assign,cancel}",
        account=AGENTS,
        owner="dispatcher",
        readers="agent",
        purpose="assignments and cancels, request-reply",
    ),
    SubjectRow(
        subject="taskyard.heartbeat.<agent>",
        account=AGENTS,
        owner="agent",
        readers="slot_allocator, dispatcher",
        purpose="liveness, slots, load, and what lives",
    ),
)
