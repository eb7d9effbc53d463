"""`taskyard dev`: start everything in order, say when a task could run, and stop everything in reverse order."""

import asyncio
import hashlib
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from taskyard.dev.errors import DevError, NotReady
from taskyard.dev.last_words import last_words
from taskyard.dev.layout import Layout, RunningProcess
from taskyard.dev.left_over import stop_left_over
from taskyard.dev.ports import choose_ports, port_in_use
from taskyard.dev.readiness import what_is_missing
from taskyard.dev.supervisor import PROGRAMS_MAX, Supervisor
from taskyard.embedded import processes
from taskyard.embedded.errors import EmbeddedError, ProgramMissing
from taskyard.embedded.nats_server import FLEET_USER, SERVICE_USER, NatsServer
from taskyard.embedded.postgres import Postgres
from taskyard.embedded.processes import ProcessIdentity, Program
from taskyard.embedded.terraform import find_terraform
from taskyard.settings import DEFAULT_SLOTS, AgentSettings, Principal, Role, Settings

HOST = "127.0.0.1"
ADMIN = "admin"
SERVICES = ("scheduler", "slot_allocator", "dispatcher", "state_projector", "api")
ROLES = {ADMIN: Role.ADMIN, "operator": Role.OPERATOR, "viewer": Role.VIEWER}
WORKERS_MAX = PROGRAMS_MAX - len(SERVICES) - 2

# The module that each program runs: services that share a process are one program.
MODULES: Mapping[str, str] = {
    **{name: f"taskyard.{name}" for name in SERVICES},
    "services": "taskyard.dev.services",
    "worker": "taskyard.agent",
}

START_SECONDS_MAX = 120.0
START_TRIES_MAX = 5
"""A program that has ended so often before the system was ready will not start: we say why, and end too."""
PROGRESS_SECONDS = 5.0
"""How often a slow start tells what it waits for."""
READY_POLL_SECONDS = 0.05
DISK_CHECK_SECONDS = 2.0

# A worker finishes what is nearly done and hands back the rest. It gets as long as it may need to stop an apply in order:
# killed before, it would leave Terraform running when everything else is gone.
WORKERS_STOP_SECONDS = 22.0
SERVICES_STOP_SECONDS = 6.0
SERVERS_STOP_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run. Port 0 means the port of the last run if it is still free, else any free one.

    `slots` is what each slot of every worker accepts. Where services are `separate` there are so many `instances` of
    each: the second of the scheduler is the program `scheduler-2`, with the settings `services-2`.
    """

    data: Path
    http_port: int = 0
    nats_port: int = 0
    workers: int = 1
    separate: bool = False
    instances: int = 1
    slots: Sequence[Sequence[str]] = DEFAULT_SLOTS
    modules: Mapping[str, str] = field(default_factory=lambda: MODULES)


def main(*, data: Path, http_port: int, nats_port: int, workers: int, separate: bool) -> int:
    """Run in the foreground until INT or TERM, and return the exit status."""
    return run_to_end(Options(data=data, http_port=http_port, nats_port=nats_port, workers=workers, separate=separate))


def run_to_end(options: Options) -> int:
    """Run until INT or TERM; return 0, or 1 when the system could not start, after saying why."""
    status = 0
    try:
        asyncio.run(run(options))
    except* (DevError, EmbeddedError, OSError) as group:
        status = 1
        for error in group.exceptions:
            _report(f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error))
    return status


async def run(options: Options) -> None:
    """Run until INT or TERM. Raises `DevError` or `EmbeddedError`, alone or in a group."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if not 0 <= options.workers <= WORKERS_MAX:
        message = f"the number of workers must be from 0 to {WORKERS_MAX}"
        raise DevError(message)
    layout = Layout(options.data)
    with layout.locked():
        await asyncio.to_thread(stop_left_over, layout, _report)
        await _System(layout, options, stop).run()


class _System:
    """One run of everything."""

    def __init__(self, layout: Layout, options: Options, stop: asyncio.Event) -> None:
        self._layout = layout
        self._options = options
        self._stop = stop
        self._workers = tuple(f"worker-{number}" for number in range(1, options.workers + 1))
        self._ports = choose_ports(layout.ports(), http=options.http_port, nats=options.nats_port)
        self._tokens = layout.credentials(tuple(ROLES)).tokens
        self._nats = NatsServer(
            layout.nats,
            port=self._ports.nats,
            clients=[name for name, role in ROLES.items() if role is not Role.VIEWER],
            viewers=[name for name, role in ROLES.items() if role is Role.VIEWER],
            agents=self._workers,
        )
        self._postgres = Postgres(layout.postgres)
        self._running: dict[str, RunningProcess] = {}
        self._is_ready = False

    async def run(self) -> None:
        """Start in order, wait for the signal, stop in reverse order."""
        self._layout.write_ports(self._ports)
        self._layout.connection_file.unlink(missing_ok=True)
        await asyncio.to_thread(self._prepare_servers)
        if self._stop.is_set():
            return
        async with Supervisor(self._started, _report) as supervisor:
            try:
                await self._start(supervisor)
                await self._watch_disk(supervisor)
            finally:
                await self._shut_down(supervisor)

    def _prepare_servers(self) -> None:
        self._nats.stop_left_over()
        self._postgres.stop_left_over()
        if not self._layout.postgres.exists():
            _report("makes a PostgreSQL cluster, once")
        self._postgres.prepare()

    async def _start(self, supervisor: Supervisor) -> None:
        servers = (self._nats.program, self._postgres.program)
        services, workers = self._service_programs(), [self._worker_program(name) for name in self._workers]
        for program in (*servers, *services, *workers):
            self._layout.rotate_log(program.name)
        _report(
            f"starts nats-server, PostgreSQL, {len(SERVICES)} services, {len(workers)} worker{'s'[len(workers) == 1 :]}"
        )
        for program in servers:
            supervisor.start(program)
        if not await self._wait_until_nothing(self._servers_missing, supervisor):
            return
        for program in (*services, *workers):
            supervisor.start(program)
        if not await self._wait_until_nothing(self._services_missing, supervisor):
            return
        self._is_ready = True
        self._write_connection()
        _report(f"{self._http_url}/docs, credentials in {self._layout.connection_file}, Ctrl-C stops everything")
        print("ready", flush=True)

    async def _shut_down(self, supervisor: Supervisor) -> None:
        _report("stops, workers first and servers last")
        await supervisor.stop(self._workers, WORKERS_STOP_SECONDS)
        names = SERVICES if self._options.separate else ("services",)
        numbered = [_numbered(name, number) for name in names for number in self._instance_numbers]
        await supervisor.stop(numbered, SERVICES_STOP_SECONDS)
        await supervisor.stop((self._postgres.program.name, self._nats.program.name), SERVERS_STOP_SECONDS)
        self._layout.write_processes({})

    async def _watch_disk(self, supervisor: Supervisor) -> None:
        """Until we are told to stop: a nats-server whose disk was full is started again once there is room."""
        known = None
        while not self._stop.is_set():
            error = await asyncio.to_thread(self._nats.write_error)
            if error is not None and error != known:
                _report(f"nats-server stores nothing: {error}")
            if error is not None and self._nats.has_room():
                _report("the disk of nats-server has room again")
                supervisor.restart(self._nats.program.name)
            known = error
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), DISK_CHECK_SECONDS)

    async def _wait_until_nothing(self, missing: Callable[[], str | None], supervisor: Supervisor) -> bool:
        """Poll until nothing is missing, and return whether it came about before we were told to stop.

        Raises:
            NotReady, PortInUse: it did not come about in time, or never will.
        """
        begun = told = time.monotonic()
        while (what := await asyncio.to_thread(missing)) is not None:
            self._require_hope(supervisor)
            now = time.monotonic()
            if now - begun > START_SECONDS_MAX:
                message = f"not ready after {START_SECONDS_MAX:.0f} s: {what}; see {self._layout.log_file('*')}"
                raise NotReady(message)
            if now - told > PROGRESS_SECONDS:
                _report(f"still waits: {what}")
                told = now
            try:
                await asyncio.wait_for(self._stop.wait(), READY_POLL_SECONDS)
            except TimeoutError:
                continue
            return False
        return not self._stop.is_set()

    def _require_hope(self, supervisor: Supervisor) -> None:
        """Raise what a person should know when waiting on is in vain."""
        if supervisor.ends.get("nats-server") and not processes.is_port_free(self._ports.nats):
            raise port_in_use(self._ports.nats)
        for name, ends in supervisor.ends.items():
            if ends >= START_TRIES_MAX:
                log = self._log_file(name)
                raise NotReady(f"{name} does not start ({last_words(log) or 'it says nothing'}); see {log}")

    def _log_file(self, name: str) -> Path:
        servers = {program.name: program.log_file for program in (self._nats.program, self._postgres.program)}
        return servers.get(name) or self._layout.log_file(name)

    def _servers_missing(self) -> str | None:
        ready = {"nats-server": self._nats.is_ready(), "PostgreSQL": self._postgres.is_ready()}
        missing = [name for name, is_ready in ready.items() if not is_ready]
        return f"{' and '.join(missing)} not ready yet" if missing else None

    def _services_missing(self) -> str | None:
        return what_is_missing(self._http_url, self._tokens[ADMIN], self._workers)

    def _service_programs(self) -> list[Program]:
        settings = Settings(
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
        names = SERVICES if self._options.separate else ("services",)
        programs: list[Program] = []
        for number in self._instance_numbers:
            if number > 1:
                settings = msgspec.structs.replace(settings, http_port=processes.free_port())
            file = self._layout.write_configuration(_numbered("services", number), settings)
            programs += [self._program(_numbered(name, number), self._options.modules[name], file) for name in names]
        return programs

    @property
    def _instance_numbers(self) -> range:
        return range(1, self._options.instances + 1)

    def _worker_program(self, name: str) -> Program:
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
        )
        file = self._layout.write_configuration(name, settings)
        return self._program(name, self._options.modules["worker"], file)

    def _program(self, name: str, module: str, configuration: Path) -> Program:
        return Program(
            name=name,
            argv=(sys.executable, "-m", module, "--config", str(configuration)),
            log_file=self._layout.log_file(name),
        )

    def _started(self, program: Program, identity: ProcessIdentity) -> None:
        self._running[program.name] = RunningProcess(identity=identity, stop_signal=program.stop_signal)
        self._layout.write_processes(self._running)
        if self._is_ready:
            self._write_connection()

    def _write_connection(self) -> None:
        pids = {name: running.identity.pid for name, running in self._running.items() if name != "services"}
        if not self._options.separate:
            pids |= dict.fromkeys(SERVICES, self._running["services"].identity.pid)
        self._layout.write_connection(
            {
                "http_url": self._http_url,
                "admin_token": self._tokens[ADMIN],
                "nats_url": self._nats.url,
                "nats_user": ADMIN,
                "nats_password": self._nats.password(ADMIN),
                "nats_inbox_prefix": f"_INBOX_{ADMIN}",
                "processes": pids,
            }
        )

    @property
    def _http_url(self) -> str:
        return f"http://{HOST}:{self._ports.http}"


def _numbered(name: str, number: int) -> str:
    """The name of the instance `number`: the first bears the bare name."""
    return name if number == 1 else f"{name}-{number}"


def _report(text: str) -> None:
    print(f"taskyard dev: {text}", file=sys.stderr, flush=True)
