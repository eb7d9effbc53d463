"""The services and workers of one run as programs, each with the settings that it is to read in a file."""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from taskyard.contracts.values import Role
from taskyard.dev.layout import Layout, Ports
from taskyard.dev.options import SERVICES, Options, numbered
from taskyard.dev.together import ServiceUsers, Together
from taskyard.embedded import processes
from taskyard.embedded.errors import ProgramMissing
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.nats_users import AGENTS_KEEPER, CONTROL_KEEPER, agents_user, control_user
from taskyard.embedded.postgres import Postgres
from taskyard.embedded.processes import Program
from taskyard.embedded.terraform import find_terraform
from taskyard.settings import AgentSettings, Principal, Settings

HOST = "127.0.0.1"
ADMIN = "admin"
ROLES: Mapping[str, Role] = {ADMIN: Role.ADMIN, "operator": Role.OPERATOR, "viewer": Role.VIEWER}

WORKER_DRAIN_SECONDS = 5.0
"""Who ends a system on the own machine waits for it: much less than a worker elsewhere gives its tasks."""


class Programs:
    """Makes them. `tokens` are those of the principals, by name."""

    def __init__(
        self,
        layout: Layout,
        options: Options,
        *,
        nats: NatsServer,
        postgres: Postgres,
        ports: Ports,
        tokens: Mapping[str, str],
    ) -> None:
        self._layout = layout
        self._options = options
        self._nats = nats
        self._postgres = postgres
        self._ports = ports
        self._tokens = tokens

    def services(self) -> Iterator[Program]:
        """All instances of all services. Writes the settings of each instance; all but the first get a free HTTP port."""
        settings = self._keeper_settings()
        for number in self._options.instance_numbers:
            if number > 1:
                settings = msgspec.structs.replace(settings, http_port=processes.free_port())
            self._layout.write_configuration(numbered("services", number), settings)
            together = self._together(settings)
            if self._options.separate:
                own = {name: together.of(name) for name in SERVICES}
                files = {name: self._layout.write_configuration(numbered(name, number), own[name]) for name in SERVICES}
            else:
                files = {"services": self._layout.write_configuration("together", together)}
            for name, file in files.items():
                yield self._program(numbered(name, number), self._options.modules[name], file)

    def setup(self) -> Program:
        """What makes the streams, and ends. Its settings are those of the operator too, and written by `services`."""
        return self._program("setup", self._options.modules["setup"], self._layout.configuration_file("services"))

    def worker(self, name: str) -> Program:
        """One worker. Writes its settings."""
        try:
            terraform = find_terraform()
        except ProgramMissing:
            # Tasks of other kinds can run all the same; the worker refuses those that need it.
            terraform = None
        settings = AgentSettings(
            nats_urls=[self._nats.url],
            name=name,
            password=self._nats.password(name),
            directory=str(self._layout.worker_directory(name)),
            slots=[list(kinds) for kinds in self._options.slots],
            terraform=terraform,
            drain_seconds=WORKER_DRAIN_SECONDS,
            terraform_roots=["/"],
            allow_root=True,
        )
        file = self._layout.write_configuration(name, settings)
        return self._program(name, self._options.modules["worker"], file)

    def _together(self, settings: Settings) -> Together:
        """The settings of the services, each of which connects as itself."""
        nobody: dict[str, Any] = {"makes_streams": False, **dict.fromkeys(ServiceUsers.__struct_fields__, "")}
        shared: dict[str, Any] = msgspec.structs.asdict(settings) | nobody
        return Together(**shared, users={service: self._users_of(service) for service in SERVICES})

    def _users_of(self, service: str) -> ServiceUsers:
        control, agents = control_user(service), agents_user(service)
        return ServiceUsers(
            control_user=control,
            control_password=self._nats.password(control),
            fleet_user=agents,
            fleet_password=self._nats.password(agents),
        )

    def _keeper_settings(self) -> Settings:
        return Settings(
            nats_urls=[self._nats.url],
            control_user=CONTROL_KEEPER,
            control_password=self._nats.password(CONTROL_KEEPER),
            fleet_user=AGENTS_KEEPER,
            fleet_password=self._nats.password(AGENTS_KEEPER),
            postgres_dsn=self._postgres.dsn,
            makes_streams=True,
            http_host=HOST,
            http_port=self._ports.http,
            nats_monitoring_urls=[self._nats.monitor_url],
            nats_store_directory=str(self._layout.nats),
            log_archive=str(self._layout.archive),
            principals=[
                Principal(name=name, role=role, token_sha256=hashlib.sha256(self._tokens[name].encode()).hexdigest())
                for name, role in ROLES.items()
            ],
        )

    def _program(self, name: str, module: str, configuration: Path) -> Program:
        return Program(
            name=name,
            argv=(sys.executable, "-m", module, "--config", str(configuration)),
            log_file=self._layout.log_file(name),
        )
