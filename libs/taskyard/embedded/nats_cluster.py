"""Three real nats-servers on loopback that keep every stream three times: any one of them may be killed.

The accounts, users and passwords are those of the single server. The files of server `n` live in `server-<n>`.
"""

from collections.abc import Iterable
from pathlib import Path

from taskyard.embedded import processes
from taskyard.embedded.nats_configuration import ClusterMember
from taskyard.embedded.nats_server import NatsServer
from taskyard.private_files import own_folder

SERVERS = 3


class NatsCluster:
    """Three servers below `directory` (made private). `servers` may be stopped, killed and started one by one.

    They talk to one another on `route_ports`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clients: Iterable[str] = ("admin",),
        viewers: Iterable[str] = (),
        agents: Iterable[str] = (),
    ) -> None:
        own_folder(directory)
        clients, viewers, agents = list(clients), list(viewers), list(agents)
        ports = _free_ports(2 * SERVERS)
        routes = self.route_ports = tuple(ports[SERVERS:])
        self.servers = [
            NatsServer(
                directory / f"server-{number}",
                port=ports[number - 1],
                clients=clients,
                viewers=viewers,
                agents=agents,
                member=ClusterMember(
                    server_name=f"taskyard-{number}",
                    route_port=routes[number - 1],
                    route_ports=routes,
                    passwords_file=directory / "passwords.json",
                ),
            )
            for number in range(1, SERVERS + 1)
        ]

    @property
    def urls(self) -> list[str]:
        """Where clients connect: any one is enough."""
        return [server.url for server in self.servers]

    @property
    def monitor_urls(self) -> list[str]:
        """Where the servers tell about themselves over HTTP."""
        return [server.monitor_url for server in self.servers]

    def password(self, user: str) -> str:
        """The password of a user: see `NatsServer.password`."""
        return self.servers[0].password(user)

    def named(self, server_name: str) -> NatsServer:
        """The server that JetStream calls so, as in the leader of a stream."""
        return self.servers[int(server_name.rpartition("-")[2]) - 1]

    def start(self) -> None:
        """Start all and return when all are ready. Raises `StartFailed`."""
        for server in self.servers:
            server.spawn()
        for server in self.servers:
            server.wait_until_ready()

    def stop(self) -> None:
        """Stop those that run."""
        for server in self.servers:
            server.stop()


def _free_ports(count: int) -> list[int]:
    ports: set[int] = set()
    while len(ports) < count:  # nothing listens on them yet, so one may be given twice
        ports.add(processes.free_port())
    return sorted(ports)
