"""`taskyard dev`: start everything in order, say when a task could run, and stop everything in reverse order."""

import asyncio
import hashlib
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec

from taskyard.dev.errors import DevError, NotReady, PortInUse
from taskyard.dev.layout import Layout, Ports, RunningProcess
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
READY_POLL_SECONDS = 0.05
REQUEST_SECONDS_MAX = 2.0

# Together below twenty seconds. A worker gets most of it: it finishes what is nearly done and hands back the rest.
WORKERS_STOP_SECONDS = 10.0
SERVICES_STOP_SECONDS = 6.0
SERVERS_STOP_SECONDS = 3.0
LEFT_OVER_STOP_SECONDS = 4.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run. Port 0 means the port of the last run if it is still free, else any free one.

    `slots` is what each slot of every worker accepts.
    """

    data: Path
    http_port: int = 0
    nats_port: int = 0
    workers: int = 1
    separate: bool = False
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
    except* (DevError, EmbeddedError) as group:
        status = 1
        for error in group.exceptions:
            _report(str(error))
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
        await asyncio.to_thread(_stop_left_over, layout)
        await _System(layout, options, stop).run()


class _System:
    """One run of everything."""

    def __init__(self, layout: Layout, options: Options, stop: asyncio.Event) -> None:
        self._layout = layout
        self._options = options
        self._stop = stop
        self._workers = tuple(f"worker-{number}" for number in range(1, options.workers + 1))
        self._ports = _choose_ports(layout.ports(), options)
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
        async with Supervisor(self._started, _report) as supervisor:
            try:
                await self._start(supervisor)
                await self._stop.wait()
            finally:
                await self._shut_down(supervisor)
        self._layout.write_processes({})

    def _prepare_servers(self) -> None:
        self._nats.stop_left_over()
        self._postgres.stop_left_over()
        self._postgres.prepare()

    async def _start(self, supervisor: Supervisor) -> None:
        servers = (self._nats.program, self._postgres.program)
        services, workers = self._service_programs(), [self._worker_program(name) for name in self._workers]
        for program in (*servers, *services, *workers):
            self._layout.rotate_log(program.name)
        for program in servers:
            supervisor.start(program)
        if not await self._wait_until(lambda: self._nats.is_ready() and self._postgres.is_ready()):
            return
        for program in (*services, *workers):
            supervisor.start(program)
        if not await self._wait_until(self._could_run_a_task):
            return
        self._is_ready = True
        self._write_connection()
        print("ready", flush=True)

    async def _shut_down(self, supervisor: Supervisor) -> None:
        await supervisor.stop(self._workers, WORKERS_STOP_SECONDS)
        await supervisor.stop(("services", *SERVICES), SERVICES_STOP_SECONDS)
        await supervisor.stop((self._postgres.program.name, self._nats.program.name), SERVERS_STOP_SECONDS)

    async def _wait_until(self, condition: Callable[[], bool]) -> bool:
        """Poll until the condition holds, and return whether it did before we were told to stop. Raises `NotReady`."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not await asyncio.to_thread(condition):
            if time.monotonic() > deadline:
                message = f"not ready after {START_SECONDS_MAX:.0f} s, see {self._layout.log_file('*')}"
                raise NotReady(message)
            try:
                await asyncio.wait_for(self._stop.wait(), READY_POLL_SECONDS)
            except TimeoutError:
                continue
            return False
        return not self._stop.is_set()

    def _could_run_a_task(self) -> bool:
        headers = {"Authorization": f"Bearer {self._tokens[ADMIN]}"}
        try:
            with httpx.Client(base_url=self._http_url, timeout=REQUEST_SECONDS_MAX, trust_env=False) as client:
                ready = msgspec.json.decode(client.get("/readyz").raise_for_status().content, type=_Readiness)
                answer = client.get("/api/v1/workers", headers=headers).raise_for_status()
        except httpx.HTTPError:
            return False
        listed = msgspec.json.decode(answer.content, type=_WorkerList).items
        are_there = set(self._workers) <= {worker.id for worker in listed if worker.status != "lost"}
        return are_there and all(ready.leaders.values())

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
            principals=[
                Principal(name=name, role=role, token_sha256=hashlib.sha256(self._tokens[name].encode()).hexdigest())
                for name, role in ROLES.items()
            ],
        )
        file = self._layout.write_configuration("services", settings)
        names = SERVICES if self._options.separate else ("services",)
        return [self._program(name, self._options.modules[name], file) for name in names]

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


class _Worker(msgspec.Struct):
    id: str
    status: str


class _Readiness(msgspec.Struct):
    leaders: dict[str, str | None]


class _WorkerList(msgspec.Struct):
    items: list[_Worker]


def _stop_left_over(layout: Layout) -> None:
    """Stop what an earlier run, which was killed, has left: workers first and servers last, as in an orderly end."""
    left = layout.processes()
    servers = {name for name in left if name in ("nats-server", "postgres")}
    workers = {name for name in left if name.startswith("worker-")}
    for names in (workers, left.keys() - servers - workers, servers):
        signals = {left[name].identity: left[name].stop_signal for name in names}
        for identity in processes.stop_all(signals, LEFT_OVER_STOP_SECONDS):
            _report(f"stopped process {identity.pid} of an earlier run")
    layout.write_processes({})


def _choose_ports(last: Ports, options: Options) -> Ports:
    http = _choose_port(options.http_port, last.http)
    nats = _choose_port(options.nats_port, last.nats)
    while nats == http:
        nats = _choose_port(options.nats_port, 0)
    return Ports(http=http, nats=nats)


def _choose_port(wanted: int, last: int) -> int:
    if wanted and not processes.is_port_free(wanted):
        message = f"port {wanted} is in use by another program; choose another one, or 0 for any"
        raise PortInUse(message)
    if wanted or (last and processes.is_port_free(last)):
        return wanted or last
    return processes.free_port()


def _report(text: str) -> None:
    print(f"taskyard dev: {text}", file=sys.stderr, flush=True)
