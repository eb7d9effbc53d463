"""What our nats-servers are told: where they listen, how they store, and who may do what (`nats_users`).

Nobody connects without a password.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from taskyard.embedded.nats_users import NatsUser, agent_user, client_user, fixed_users, make_accounts, viewer_user

ROUTE_USER = "route"
MAX_PAYLOAD_BYTES = 1 << 20


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

    @property
    def rows(self) -> list[NatsUser]:
        """All users of the accounts."""
        principals = [*map(client_user, self.clients), *map(viewer_user, self.viewers)]
        return [*fixed_users(), *map(agent_user, self.agents), *principals]


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
        # An acknowledged write must survive a power failure; by default it is flushed every two minutes. And a request that
        # says what this server does not know is refused, rather than done without it.
        "jetstream": {"store_dir": str(place.directory / "store"), "sync_interval": "always", "strict": True},
        **({} if place.member is None else {"cluster": _cluster(place.member, passwords[ROUTE_USER])}),
        "system_account": "SYS",
        "accounts": make_accounts(users.rows, passwords.__getitem__),
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
