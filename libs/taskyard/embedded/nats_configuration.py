"""What our nats-servers are told: the accounts that keep services, agents and clients apart, and who may do what in them.

- `CONTROL` holds the log, the commands and everything that services say; the user `service` may do all of it.
- `AGENTS` holds what agents send in, for the services. The user `fleet` stands for them there.
- `WORKERS` holds no stream. Each agent has a user of its own there that reaches its own subjects only, by allow-lists
  (deny rules have had bypasses). What it sends reaches `AGENTS` by imports: the server itself answers who stores a
  message, on whatever subject that names, and so a reply subject of an agent means one of `WORKERS` and none of `AGENTS`.
- `CLIENTS` holds no stream. Each principal may publish commands and requests under its own name; they reach `CONTROL`
  as service imports, so a reply subject of a client means its own inbox and never a subject of `CONTROL`.
- `SYS` is the server's own.

Nobody connects without a password.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from taskyard.contracts.subjects import HEARTBEAT_SUBJECTS, OUTPUT_SUBJECTS, REPORT_SUBJECTS

SERVICE_USER = "service"
FLEET_USER = "fleet"
SYSTEM_USER = "system"
ROUTE_USER = "route"
MAX_PAYLOAD_BYTES = 1 << 20

STORED_OF_AGENTS = (REPORT_SUBJECTS, OUTPUT_SUBJECTS)

# An agent answers a request once, on whatever subject the services named, and soon.
REPLIES_PER_REQUEST_MAX = 1
REPLY_SECONDS_MAX = 60


@dataclass(frozen=True, kw_only=True)
class ClusterMember:
    """What makes a server one of several: its own name and route port, those of all, and the passwords of all."""

    server_name: str
    route_port: int
    route_ports: tuple[int, ...]
    passwords_file: Path


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one server is: the folder of its files, its ports, and what it is in a cluster."""

    directory: Path
    port: int
    monitor_port: int
    member: ClusterMember | None = None


@dataclass(frozen=True, kw_only=True)
class Users:
    """Who may connect beside the services: principals that command, principals that only make requests, and agents."""

    clients: tuple[str, ...]
    viewers: tuple[str, ...]
    agents: tuple[str, ...]


def make_configuration(place: Place, users: Users, passwords: Mapping[str, str]) -> dict[str, object]:
    """The configuration of a server, whose users have these passwords; JSON is a subset of its own notation."""
    return {
        "host": "127.0.0.1",
        "port": place.port,
        "http": f"127.0.0.1:{place.monitor_port}",
        "server_name": place.member.server_name if place.member else "taskyard",
        "pid_file": str(place.directory / "nats-server.pid"),
        "max_payload": MAX_PAYLOAD_BYTES,
        # A frozen connection is dropped, and so noticed, after three seconds rather than four minutes.
        "ping_interval": "1s",
        "ping_max": 2,
        # An acknowledged write must survive a power failure; by default it is flushed every two minutes.
        "jetstream": {"store_dir": str(place.directory / "store"), "sync_interval": "always"},
        **({} if place.member is None else {"cluster": _cluster(place.member, passwords[ROUTE_USER])}),
        "system_account": "SYS",
        "accounts": _accounts(users, passwords),
    }


def _accounts(users: Users, passwords: Mapping[str, str]) -> dict[str, object]:
    def user(name: str, **permissions: object) -> dict[str, object]:
        """A user; without permissions one who may do everything in its account."""
        return {"user": name, "password": passwords[name], **({"permissions": permissions} if permissions else {})}

    return {
        "SYS": {"users": [user(SYSTEM_USER)]},
        "CONTROL": {
            "jetstream": "enabled",
            "users": [user(SERVICE_USER)],
            "exports": [
                {"service": "taskyard.command.>", "accounts": ["CLIENTS"]},
                {"service": "taskyard.request.>", "accounts": ["CLIENTS"]},
            ],
        },
        "AGENTS": {
            "jetstream": "enabled",
            "users": [user(FLEET_USER)],
            "exports": [{"service": subject, "accounts": ["WORKERS"]} for subject in STORED_OF_AGENTS],
            "imports": [
                {"stream": {"account": "WORKERS", "subject": HEARTBEAT_SUBJECTS}},
                {"service": {"account": "WORKERS", "subject": "taskyard.agent.>"}},
            ],
        },
        "WORKERS": {
            "users": [user(name, **_of_agent(name)) for name in users.agents],
            "exports": [
                {"stream": HEARTBEAT_SUBJECTS, "accounts": ["AGENTS"]},
                {"service": "taskyard.agent.>", "accounts": ["AGENTS"]},
            ],
            "imports": [{"service": {"account": "AGENTS", "subject": subject}} for subject in STORED_OF_AGENTS],
        },
        "CLIENTS": {
            "users": [
                *(user(name, **_of_client(name)) for name in users.clients),
                *(user(name, **_of_viewer(name)) for name in users.viewers),
            ],
            "imports": [
                {"service": {"account": "CONTROL", "subject": "taskyard.command.>"}},
                {"service": {"account": "CONTROL", "subject": "taskyard.request.>"}},
            ],
        },
    }


def _cluster(member: ClusterMember, password: str) -> dict[str, object]:
    """What a server among several is told besides. Whoever connects as a route is let in everywhere: see the password."""
    return {
        "name": "taskyard",
        "listen": f"127.0.0.1:{member.route_port}",
        "authorization": {"user": ROUTE_USER, "password": password},
        "routes": [f"nats://{ROUTE_USER}:{password}@127.0.0.1:{port}" for port in member.route_ports],
        # Clients are told all addresses; what a server believes to be its own may not be reachable from them.
        "no_advertise": True,
    }


def _of_agent(name: str) -> dict[str, object]:
    return {
        "publish": [f"taskyard.report.{name}", f"taskyard.heartbeat.{name}", f"taskyard.output.{name}.*"],
        "subscribe": [f"taskyard.agent.{name}.>", f"_INBOX_{name}.>"],
        "allow_responses": {"max": REPLIES_PER_REQUEST_MAX, "expires": f"{REPLY_SECONDS_MAX}s"},
    }


def _of_client(name: str) -> dict[str, object]:
    publish = [f"taskyard.request.{name}.>", f"taskyard.command.{name}.>"]
    return {"publish": publish, "subscribe": [f"_INBOX_{name}.>"]}


def _of_viewer(name: str) -> dict[str, object]:
    return {"publish": [f"taskyard.request.{name}.>"], "subscribe": [f"_INBOX_{name}.>"]}
