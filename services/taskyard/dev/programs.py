"""The services and workers of one run as programs, each with the settings that it is to read in a file."""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from taskyard.dev.layout import Layout, Ports
from taskyard.dev.options import Options, numbered
from taskyard.embedded import processes
from taskyard.embedded.errors import ProgramMissing
from taskyard.embedded.nats_server import FLEET_USER, SERVICE_USER, NatsServer
from taskyard.embedded.postgres import Postgres
from taskyard.embedded.processes import Program
from taskyard.embedded.terraform import find_terraform
from taskyard.settings import AgentSettings, Principal, Role, Settings

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
        settings = self._service_settings()
        for number in self._options.instance_numbers:
            if number > 1:
                settings = msgspec.structs.replace(settings, http_port=processes.free_port())
            file = self._layout.write_configuration(numbered("services", number), settings)
            for name in self._options.service_names:
                yield self._program(numbered(name, number), self._options.modules[name], file)

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

    def _service_settings(self) -> Settings:
        return Settings(
            nats_urls=[self._nats.url],
            control_user=SERVICE_USER,
            control_password=self._nats.password(SERVICE_USER),
            fleet_user=FLEET_USER,
            fleet_password=self._nats.password(FLEET_USER),
            postgres_dsn=self._postgres.dsn,
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
