"""The system under faults: `taskyard dev --separate` with two instances of each service, as a child of the suite.

Run as a program, `python -m taskyard.chaos.system DIR`, it is that child.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from taskyard.chaos.agents import stand_still
from taskyard.chaos.disks import OwnDisk, why_no_disks
from taskyard.chaos.errors import NotHealed, SystemNotStarted
from taskyard.dev.app import run_to_end
from taskyard.dev.layout import Layout
from taskyard.dev.options import Options
from taskyard.private_files import make_folder, open_to_append
from taskyard.settings import Settings, load

INSTANCES = 2
NATS = "nats-server"
WORKERS = ("worker-1", "worker-2")
WORKER_WITH_DISK = WORKERS[-1]
"""The worker whose folder is a disk of its own."""
INTRUDER, OPERATOR = "intruder", "operator"
"""Who means harm where harm is meant: an agent that nobody has started, and a principal."""
SLOTS = (*(("any",),) * 64, ("plan",), ("plan",))
SOON_LOST = {"TASKYARD_SUSPECT_SECONDS": "3", "TASKYARD_WORKER_LOST_SECONDS": "6"}
"""A silent worker is lost earlier than usual, so that what follows from it happens often."""

STOP_SECONDS_MAX = 50.0
HEALED_SECONDS_MAX = 120.0
POLL_SECONDS = 0.05


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """What `connection.json` says."""

    http_url: str
    admin_token: str
    nats_url: str
    nats_user: str
    nats_password: str
    nats_inbox_prefix: str
    processes: dict[str, int]


class System:
    """The child, its processes, and the disks of some. `http_urls` is where the instances of the API listen."""

    def __init__(self, directory: Path) -> None:
        self.layout = Layout(directory)
        self.disks: dict[str, OwnDisk] = {}
        self.http_urls: tuple[str, ...] = ()
        self._child: subprocess.Popen[str] | None = None

    # -- all of it -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, and return once a task could run. Raises `SystemNotStarted`."""
        argv = (sys.executable, "-m", "taskyard.chaos.system", str(self.layout.directory))
        make_folder(self.layout.directory)
        with open_to_append(self.layout.directory / "dev.log") as log:
            self._child = subprocess.Popen(
                argv,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **SOON_LOST},
                start_new_session=True,  # Ctrl-C reaches the suite alone, which then stops the system
            )
        assert self._child.stdout is not None
        if self._child.stdout.readline() != "ready\n":
            status = self._child.wait(STOP_SECONDS_MAX)
            raise SystemNotStarted(f"the system ended with {status} before it was ready, see {log.name}")
        second = load(Settings, self.layout.configuration_file("services-2"), {})
        self.http_urls = (self.connection.http_url, f"http://{second.http_host}:{second.http_port}")

    def stop(self) -> int:
        """Ask everything to stop by TERM; the exit status, 0 if it was orderly."""
        if self._child is None:
            return 0
        child, self._child = self._child, None
        child.send_signal(signal.SIGCONT)
        child.send_signal(signal.SIGTERM)
        try:
            return child.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait(STOP_SECONDS_MAX)
        finally:
            _close_output(child)

    def kill_everything(self) -> int:
        """`kill -9` of the supervisor and of all that it runs, as when the power goes; how many processes that were."""
        assert self._child is not None
        child, self._child = self._child, None
        pids = set(self.connection.processes.values())
        child.kill()
        child.wait(STOP_SECONDS_MAX)
        _close_output(child)
        for pid in pids:
            _send(pid, signal.SIGKILL)
        return len(pids) + 1

    @property
    def connection(self) -> Connection:
        """What `connection.json` says now."""
        return msgspec.json.decode(self.layout.connection_file.read_bytes(), type=Connection)

    @property
    def services(self) -> Settings:
        """The settings of the services: they open the log."""
        return load(Settings, self.layout.configuration_file("services"), {})

    # -- one process ---------------------------------------------------------------------------------------------------

    def password(self, user: str) -> str:
        """The password of a user of NATS."""
        return msgspec.json.decode((self.layout.nats / "passwords.json").read_bytes(), type=dict[str, str])[user]

    def token(self, principal: str) -> str:
        """The token of a principal."""
        return self.layout.credentials(()).tokens[principal]

    def pid(self, process: str) -> int:
        """The pid of a process now."""
        return self.connection.processes[process]

    def kill(self, process: str) -> int:
        """`kill -9` of one process; its pid."""
        pid = self.pid(process)
        _send(pid, signal.SIGKILL)
        return pid

    def restarted(self, process: str, old_pid: int) -> None:
        """Wait until a process was started anew. Raises `NotHealed`."""
        self._until(lambda: self.pid(process) != old_pid, f"{process} was not started again")

    @contextmanager
    def frozen(self, processes: Iterable[str]) -> Iterator[None]:
        """These processes stand still at once for as long as the block lasts. Raises `NotBroken`."""
        pids = [self.pid(process) for process in processes]
        try:
            stand_still(iter(pids))
            yield
        finally:
            for pid in pids:
                _send(pid, signal.SIGCONT)

    @contextmanager
    def nobody_restarts(self) -> Iterator[None]:
        """The supervisor stands still: what is killed stays away until the end of the block."""
        assert self._child is not None
        child = self._child
        child.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            child.send_signal(signal.SIGCONT)

    # -- disks ---------------------------------------------------------------------------------------------------------

    def mount_disks(self) -> str | None:
        """Give nats-server and a worker disks of their own that can be made full; why that is not possible, if it is not."""
        workers = self.layout.directory / "workers"
        folders = {NATS: self.layout.nats / "store", WORKER_WITH_DISK: workers / WORKER_WITH_DISK}
        if (reason := why_no_disks()) is not None:
            return reason
        make_folder(workers)
        for name, folder in folders.items():
            disk = OwnDisk(folder)
            if (reason := disk.mount()) is not None:
                return reason
            self.disks[name] = disk
        return None

    def unmount_disks(self, *, is_kept: bool) -> None:
        """Take them away; what is on them is put in their place if it `is_kept`. Nothing may run any more."""
        for name in list(self.disks):
            self.disks.pop(name).unmount(is_kept=is_kept)

    def _until(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + HEALED_SECONDS_MAX
        while not condition():
            if time.monotonic() > deadline:
                raise NotHealed(f"{otherwise} within {HEALED_SECONDS_MAX:.0f} s")
            time.sleep(POLL_SECONDS)


def instances_of(service: str) -> tuple[str, ...]:
    """The names of the processes of a service."""
    return (service, *(f"{service}-{number}" for number in range(2, INSTANCES + 1)))


def _close_output(child: "subprocess.Popen[str]") -> None:
    if child.stdout is not None:
        child.stdout.close()


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


if __name__ == "__main__":
    sys.exit(
        run_to_end(
            Options(
                data=Path(sys.argv[1]),
                workers=len(WORKERS),
                separate=True,
                instances=INSTANCES,
                slots=SLOTS,
                guests=(INTRUDER,),
            )
        )
    )
