"""`taskyard dev`: start everything in order, say when a task could run, and stop everything in reverse order."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen

from taskyard.contracts.values import Role
from taskyard.dev.errors import DevError, NotReady, describe
from taskyard.dev.last_words import last_words
from taskyard.dev.layout import Layout, RunningProcess
from taskyard.dev.left_over import end_absent_workers, stop_left_over
from taskyard.dev.options import SERVICES, WORKERS_MAX, Options, numbered
from taskyard.dev.ports import choose_ports, port_in_use
from taskyard.dev.programs import ADMIN, HOST, ROLES, Programs
from taskyard.dev.readiness import what_is_missing
from taskyard.dev.supervisor import Supervisor
from taskyard.embedded import processes
from taskyard.embedded.errors import EmbeddedError
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.postgres import Postgres
from taskyard.embedded.processes import ProcessIdentity, Program

START_SECONDS_MAX = 120.0
START_TRIES_MAX = 5
"""A program that has ended so often before the system was ready will not start: we say why, and end too."""
PROGRESS_SECONDS = 5.0
"""How often a slow start tells what it waits for."""
READY_POLL_SECONDS = 0.05
DISK_CHECK_SECONDS = 2.0
SCARCE_BYTES = 16 << 20
"""With less room on the disk a start that takes long is told of it: the servers' own words may not fit on it any more."""

# A worker finishes what is nearly done and hands back the rest. It gets as long as it may need to stop an apply in order:
# killed before, it would leave Terraform running when everything else is gone.
WORKERS_STOP_SECONDS = 30.0
SERVICES_STOP_SECONDS = 6.0
SERVERS_STOP_SECONDS = 3.0


def main(*, data: Path, http_port: int, nats_port: int, workers: int, separate: bool) -> int:
    """Run in the foreground until INT or TERM, and return the exit status."""
    return run_to_end(Options(data=data, http_port=http_port, nats_port=nats_port, workers=workers, separate=separate))


def run_to_end(options: Options) -> int:
    """Run until INT, TERM or HUP; return 0, or 1 when the system could not start, after saying why."""
    status = 0
    try:
        asyncio.run(run(options))
    except* (DevError, EmbeddedError, OSError) as group:
        status = 1
        for error in group.exceptions:
            _report(describe(error) if isinstance(error, OSError) else str(error))
    return status


async def run(options: Options) -> None:
    """Run until INT or TERM. Raises `DevError` or `EmbeddedError`, alone or in a group."""
    stop = asyncio.Event()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` leaves it
        numbers.append(signal.SIGHUP)  # who closes the terminal wants an end too
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if not 0 <= options.workers <= WORKERS_MAX:
        message = f"the number of workers must be from 0 to {WORKERS_MAX}"
        raise DevError(message)
    layout = Layout(options.data)
    with layout.locked():
        await asyncio.to_thread(stop_left_over, layout, _report)
        await end_absent_workers(layout, options.worker_names, _report)
        await _System(layout, options, stop).run()


class _System:
    """One run of everything."""

    def __init__(self, layout: Layout, options: Options, stop: asyncio.Event) -> None:
        self._layout = layout
        self._options = options
        self._stop = stop
        self._ports = choose_ports(layout.ports(), http=options.http_port, nats=options.nats_port)
        self._tokens = layout.credentials(tuple(ROLES)).tokens
        self._nats = NatsServer(
            layout.nats,
            port=self._ports.nats,
            clients=[name for name, role in ROLES.items() if role is not Role.VIEWER],
            viewers=[name for name, role in ROLES.items() if role is Role.VIEWER],
            agents=(*options.worker_names, *options.guests),
        )
        self._postgres = Postgres(layout.postgres)
        self._programs = Programs(
            layout, options, nats=self._nats, postgres=self._postgres, ports=self._ports, tokens=self._tokens
        )
        self._begun_at = datetime.now(UTC)
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
        for folder in self._postgres.closed_folders():
            _report(
                f"opens {folder} for walking through (o+x): PostgreSQL, as another user, cannot reach its programs there"
            )
        if not self._layout.postgres.exists():
            _report("makes a PostgreSQL cluster, once")
        self._postgres.prepare()

    async def _start(self, supervisor: Supervisor) -> None:
        servers = (self._nats.program, self._postgres.program)
        services = list(self._programs.services())
        workers = [self._programs.worker(name) for name in self._options.worker_names]
        for program in (*servers, *services, *workers):
            self._layout.rotate_log(program.name)
        _report(
            f"starts nats-server, PostgreSQL, {len(SERVICES)} services, {len(workers)} worker{'s'[len(workers) == 1 :]}"
        )
        for program in servers:
            supervisor.start(program)
        if workers and os.geteuid() == 0:
            _report("tasks run as root, as this does: whoever may submit a command is root on this machine")
        logs = ", ".join(str(program.log_file) for program in servers)
        if not await self._wait_until_nothing(self._servers_missing, supervisor, logs):
            return
        setup = processes.spawn(self._programs.setup())
        for program in (*services, *workers):  # they wait for the streams
            supervisor.start(program)
        try:
            if not await self._wait_until_nothing(lambda: self._streams_missing(setup), supervisor, self._setup_log):
                return
        finally:
            processes.stop_child(setup, SERVERS_STOP_SECONDS)
        if not await self._wait_until_nothing(self._services_missing, supervisor, str(self._layout.log_file("*"))):
            return
        self._is_ready = True
        self._write_connection()
        _report(f"{self._http_url}/docs, credentials in {self._layout.connection_file}, Ctrl-C stops everything")
        print("ready", flush=True)

    async def _shut_down(self, supervisor: Supervisor) -> None:
        _report("stops, workers first and servers last")
        options = self._options
        await supervisor.stop(options.worker_names, WORKERS_STOP_SECONDS)
        services = [numbered(name, number) for name in options.service_names for number in options.instance_numbers]
        await supervisor.stop(services, SERVICES_STOP_SECONDS)
        await supervisor.stop((self._postgres.program.name, self._nats.program.name), SERVERS_STOP_SECONDS)
        self._layout.forget_processes()

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

    async def _wait_until_nothing(self, missing: Callable[[], str | None], supervisor: Supervisor, logs: str) -> bool:
        """Poll until nothing is missing, and return whether it came about before we were told to stop.

        `logs` is where it may stand why something is.

        Raises:
            NotReady, PortInUse: it did not come about in time, or never will.
        """
        begun = told = time.monotonic()
        while (what := await asyncio.to_thread(missing)) is not None:
            self._require_hope(supervisor)
            now = time.monotonic()
            if now - begun > START_SECONDS_MAX:
                message = f"not ready after {START_SECONDS_MAX:.0f} s: {what}{self._scarce_room()}; see {logs}"
                raise NotReady(message)
            if now - told > PROGRESS_SECONDS:
                _report(f"still waits: {what}{self._scarce_room()}")
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
                raise NotReady(f"{name} does not start ({supervisor.reasons[name]}); see {self._log_file(name)}")

    def _scarce_room(self) -> str:
        free = shutil.disk_usage(self._layout.directory).free
        return f", and its disk has only {free >> 20} MiB left" if free < SCARCE_BYTES else ""

    def _log_file(self, name: str) -> Path:
        servers = {program.name: program.log_file for program in (self._nats.program, self._postgres.program)}
        return servers.get(name) or self._layout.log_file(name)

    def _servers_missing(self) -> str | None:
        ready = {"nats-server": self._nats.is_ready(), "PostgreSQL": self._postgres.is_ready()}
        missing = [name for name, is_ready in ready.items() if not is_ready]
        return f"{' and '.join(missing)} not ready yet" if missing else None

    def _streams_missing(self, setup: Popen[bytes]) -> str | None:
        status = setup.poll()
        if status:
            said = last_words(self._layout.log_file("setup"))
            raise NotReady(f"the streams are not as they must be ({said}); see {self._setup_log}")
        return "the streams are not made yet" if status is None else None

    @property
    def _setup_log(self) -> str:
        return str(self._layout.log_file("setup"))

    def _services_missing(self) -> str | None:
        tokens, workers = self._tokens, self._options.worker_names
        return what_is_missing(self._http_url, tokens[ADMIN], workers, joined_since=self._begun_at)

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


def _report(text: str) -> None:
    with suppress(OSError):  # whoever listened may be gone: no reason to let go of what runs
        print(f"taskyard dev: {text}", file=sys.stderr, flush=True)
