"""The one table of who may do what on a nats-server: accounts, users, and the subjects that each may publish and hear.

`taskyard dev` gives it to the embedded server, and `./dev generate` writes `deploy/nats-accounts.conf` from it.

- `CONTROL` holds the log, the commands and everything that services say.
- `AGENTS` holds what agents send in, for the services.
- `WORKERS` holds no stream. Each agent has a user of its own there that reaches its own subjects only. What it sends reaches
  `AGENTS` by imports: the server itself answers who stores a message, on whatever subject that names, and so a reply
  subject of an agent means one of `WORKERS` and none of `AGENTS`.
- `CLIENTS` holds no stream. Each principal may publish commands and requests under its own name; they reach `CONTROL` as
  service imports, so a reply subject of a client means its own inbox and never a subject of `CONTROL`.
- `SYS` is the server's own.

Everybody has an allow-list (deny rules have had bypasses), each service the smallest one that it can work with. No service
makes, changes, purges or deletes a stream: that is left to the keepers, as whom `taskyard.setup` runs before the services,
and an operator's `log restore`, `log new-generation`, `log activate-version` and the target of `log mirror`. The
reader is for who only reads the log: `log tail`, `verify`, `export`, `archive`, the source of `log mirror`, `replay`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from taskyard.contracts.subjects import (
    AUDIT,
    AUDIT_SUBJECTS,
    COMMAND_SUBJECTS,
    COMMANDED_SUBJECTS,
    COMMANDS,
    HEARTBEAT_SUBJECTS,
    LEASES_BUCKET,
    OUTPUT,
    OUTPUT_SUBJECTS,
    PARTITION_DEFAULT,
    PRINTED_SUBJECTS,
    REPORT_SUBJECTS,
    REPORTED_SUBJECTS,
    REPORTS,
    REQUEST_SUBJECTS,
    SNAPSHOTS_BUCKET,
    log_stream,
    log_subject,
)

CONTROL, AGENTS, WORKERS, CLIENTS, SYS = "CONTROL", "AGENTS", "WORKERS", "CLIENTS", "SYS"

# A dot keeps them apart from principals and agents, whose names hold none.
CONTROL_KEEPER = "control.keeper"
AGENTS_KEEPER = "agents.keeper"
CONTROL_READER = "control.reader"
SYSTEM_USER = "system"

SERVICES = ("scheduler", "slot_allocator", "dispatcher", "state_projector", "api")
LEADING = ("scheduler", "slot_allocator", "dispatcher", "state_projector")
"""Services of which one instance leads, by a lease."""
SNAPSHOTS = {
    "scheduler": ("scheduler",),
    "slot_allocator": ("slot_allocator",),
    "dispatcher": ("dispatcher",),
    "api": ("past", *(f"past_{place:02}" for place in range(65))),
}
"""The names of the snapshots that services keep: their own state, or states of the past."""

# An agent answers a request once, on whatever subject the services named, and soon.
REPLIES_PER_REQUEST_MAX = 1
REPLY_SECONDS_MAX = 60

IMPORTED_REPLIES = "_R_."
"""Below this the server expects the answers to requests that came through an import."""

_LOG = log_stream(PARTITION_DEFAULT)
_LEASES = f"KV_{LEASES_BUCKET}"
_EVERYTHING = (">",)


@dataclass(frozen=True, kw_only=True)
class NatsUser:
    """A row of the table. `answers` lets it publish once on the reply subject of whatever it hears."""

    name: str
    account: str
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    answers: bool = False

    @property
    def permissions(self) -> dict[str, object]:
        """In the words of nats-server. An empty list would allow everything, so nothing is said as a denial."""
        found: dict[str, object] = {
            "publish": {"allow": list(self.publish)} if self.publish else {"deny": list(_EVERYTHING)},
            "subscribe": {"allow": list(self.subscribe)} if self.subscribe else {"deny": list(_EVERYTHING)},
        }
        if self.answers:
            found["allow_responses"] = {"max": REPLIES_PER_REQUEST_MAX, "expires": f"{REPLY_SECONDS_MAX}s"}
        return found


def control_user(service: str) -> str:
    """As whom a service connects to the account of the log."""
    return f"control.{service}"


def agents_user(service: str) -> str:
    """As whom a service connects to the account of what agents send."""
    return f"agents.{service}"


def inbox_prefix(user: str) -> str:
    """Below this a user hears the answers to what it asks, and nobody else does."""
    return f"_INBOX_{user}"


def fixed_users() -> Iterator[NatsUser]:
    """Those of every deployment, whoever its agents and principals are."""
    yield NatsUser(name=SYSTEM_USER, account=SYS, publish=_EVERYTHING, subscribe=_EVERYTHING)
    yield NatsUser(name=CONTROL_KEEPER, account=CONTROL, publish=_EVERYTHING, subscribe=_EVERYTHING)
    yield NatsUser(name=AGENTS_KEEPER, account=AGENTS, publish=_EVERYTHING, subscribe=_EVERYTHING)
    yield _with_inbox(
        CONTROL_READER,
        CONTROL,
        publish=("$JS.API.STREAM.INFO.*", *_reads(_LOG), *_reads(AUDIT), *_looks_into(SNAPSHOTS_BUCKET)),
    )
    for service in SERVICES:
        publish, subscribe = _in_control(service)
        yield _with_inbox(control_user(service), CONTROL, publish, subscribe)
        publish, subscribe = _IN_AGENTS.get(service, ((), ()))
        yield _with_inbox(agents_user(service), AGENTS, publish, subscribe)


def agent_user(name: str) -> NatsUser:
    """The user of an agent."""
    return _with_inbox(
        name,
        WORKERS,
        publish=(f"taskyard.report.{name}", f"taskyard.heartbeat.{name}", f"taskyard.output.{name}.*"),
        subscribe=(f"taskyard.agent.{name}.>",),
        answers=True,
    )


def client_user(name: str) -> NatsUser:
    """The user of a principal that may command."""
    return _with_inbox(name, CLIENTS, publish=(f"taskyard.request.{name}.>", f"taskyard.command.{name}.>"))


def viewer_user(name: str) -> NatsUser:
    """The user of a principal that may only make requests."""
    return _with_inbox(name, CLIENTS, publish=(f"taskyard.request.{name}.>",))


def make_accounts(users: list[NatsUser], password: Callable[[str], str]) -> dict[str, object]:
    """The accounts with these users, in the words of nats-server."""

    def in_account(account: str) -> list[dict[str, object]]:
        found = sorted((user for user in users if user.account == account), key=lambda user: user.name)
        return [{"user": u.name, "password": password(u.name), "permissions": u.permissions} for u in found]

    # Whose messages are stored as they come can keep those of all others from being stored: see `machine/intake.py`, and
    # `taskyard/api/intake.py` for commands.
    heard_as = {REPORT_SUBJECTS: REPORTED_SUBJECTS, OUTPUT_SUBJECTS: PRINTED_SUBJECTS}
    asked = {COMMAND_SUBJECTS: COMMANDED_SUBJECTS, REQUEST_SUBJECTS: REQUEST_SUBJECTS}
    to_agents = "taskyard.agent.>"
    return {
        SYS: {"users": in_account(SYS)},
        CONTROL: {
            "jetstream": "enabled",
            "users": in_account(CONTROL),
            "exports": [{"service": heard, "accounts": [CLIENTS]} for heard in asked.values()],
        },
        AGENTS: {
            "jetstream": "enabled",
            "users": in_account(AGENTS),
            "exports": [{"service": subject, "accounts": [WORKERS]} for subject in heard_as.values()],
            "imports": [
                # No service: for each reply subject the server would remember for minutes where its answer is to go.
                {"stream": {"account": WORKERS, "subject": HEARTBEAT_SUBJECTS}},
                {"service": {"account": WORKERS, "subject": to_agents}},
            ],
        },
        WORKERS: {
            "users": in_account(WORKERS),
            "exports": [
                {"stream": HEARTBEAT_SUBJECTS, "accounts": [AGENTS]},
                {"service": to_agents, "accounts": [AGENTS]},
            ],
            "imports": [
                {"service": {"account": AGENTS, "subject": heard}, "to": subject} for subject, heard in heard_as.items()
            ],
        },
        CLIENTS: {
            "users": in_account(CLIENTS),
            "imports": [
                {"service": {"account": CONTROL, "subject": heard}, "to": subject} for subject, heard in asked.items()
            ],
        },
    }


def _with_inbox(
    name: str, account: str, publish: tuple[str, ...] = (), subscribe: tuple[str, ...] = (), *, answers: bool = False
) -> NatsUser:
    hears = (*subscribe, f"{inbox_prefix(name)}.>")
    return NatsUser(name=name, account=account, publish=publish, subscribe=hears, answers=answers)


def _looks_into(stream: str) -> tuple[str, ...]:
    """Reading single messages of a stream."""
    return (f"$JS.API.STREAM.MSG.GET.{stream}",)


def _reads(stream: str) -> tuple[str, ...]:
    """Following a stream by consumers of its own, and reading single messages."""
    return (
        *_looks_into(stream),
        f"$JS.API.CONSUMER.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.DELETE.{stream}.*",
        f"$JS.FC.{stream}.>",
    )


def _in_control(service: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a service publishes and hears in the account of the log."""
    publish = ["$JS.API.STREAM.INFO.*", *_reads(_LOG), *_looks_into(_LEASES), *_looks_into(f"{_LOG}_EXCHANGE")]
    subscribe: list[str] = []
    if service in LEADING:
        lease = f"$KV.{LEASES_BUCKET}.{service}"
        publish.append(lease)
        subscribe.append(lease)
    if service in SNAPSHOTS:
        publish += [f"{SNAPSHOTS_BUCKET}.{name}.*.*" for name in SNAPSHOTS[service]]
        publish += _looks_into(SNAPSHOTS_BUCKET)
    more_publish, more_subscribe = _OWN_IN_CONTROL.get(service, ((), ()))
    return (*publish, *more_publish), (*subscribe, *more_subscribe)


_OWN_IN_CONTROL = {
    "scheduler": ((log_subject(PARTITION_DEFAULT, "scheduler"), *_reads(COMMANDS), "taskyard.answer.*"), ()),
    "slot_allocator": ((log_subject(PARTITION_DEFAULT, "slot_allocator"),), ()),
    "dispatcher": ((log_subject(PARTITION_DEFAULT, "dispatcher"),), ()),
    "api": (
        (COMMAND_SUBJECTS, AUDIT_SUBJECTS, f"{IMPORTED_REPLIES}>", "$JS.API.INFO"),
        ("taskyard.answer.*", REQUEST_SUBJECTS, COMMANDED_SUBJECTS),
    ),
}
_IN_AGENTS = {
    "slot_allocator": ((), (HEARTBEAT_SUBJECTS,)),
    "dispatcher": (
        (
            "$JS.API.STREAM.INFO.TASKYARD_REPORTS",
            "$JS.API.STREAM.INFO.TASKYARD_OUTPUT",
            *_reads(REPORTS),
            REPORT_SUBJECTS,
            OUTPUT_SUBJECTS,
            f"{IMPORTED_REPLIES}>",
            "taskyard.agent.*.assign",
            "taskyard.agent.*.cancel",
        ),
        (HEARTBEAT_SUBJECTS, REPORTED_SUBJECTS, PRINTED_SUBJECTS),
    ),
    "api": (("$JS.API.STREAM.INFO.TASKYARD_OUTPUT", "$JS.API.STREAM.INFO.TASKYARD_REPORTS", *_reads(OUTPUT)), ()),
}
