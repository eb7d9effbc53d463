"""Where things are in the folder of `taskyard dev`, and how they are kept there.

PostgreSQL, which runs as another user when we are root, needs no way through the folder, but an earlier version left it one. So
whatever is secret lies in a folder of mode 700 or in a file of mode 600.
"""

import fcntl
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from taskyard.dev.data_format import open_format
from taskyard.dev.errors import DirectoryInUse, FolderDamaged
from taskyard.embedded.processes import ProcessIdentity
from taskyard.private_files import make_folder, open_to_append, own_folder, write_private

TOKEN_BYTES = 32
LOG_BYTES_MAX = 8 << 20

Kept = TypeVar("Kept", bound=msgspec.Struct)
Read = TypeVar("Read")


class Credentials(msgspec.Struct, kw_only=True):
    """Bearer tokens of the principals, by name. They are made once and kept."""

    tokens: dict[str, str] = {}


class Ports(msgspec.Struct, kw_only=True):
    """The ports of the last run, 0 for none: whoever knows the address of the system finds it again after a restart."""

    http: int = 0
    nats: int = 0


class RunningProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A program of the last run, and the signal that it wants to be stopped by."""

    identity: ProcessIdentity
    stop_signal: int


class Layout:
    """The paths below one folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.connection_file = self.directory / "connection.json"
        self.nats = self.directory / "nats"
        self.postgres = self.directory / "postgres"
        self.archive = self.directory / "archive"
        self._logs = self.directory / "logs"
        self.configuration = self.directory / "config"
        self._workers = self.directory / "workers"
        self._credentials_file = self.directory / "credentials.json"
        self._ports_file = self.directory / "ports.json"
        self._processes_file = self.directory / "processes.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and hold it; the kernel lets go when this process ends.

        Raises:
            DirectoryInUse: another run holds it.
            NotPrivate: it belongs to others, or they may write there.
            FormatTooNew, FolderDamaged: see `open_format`; nothing was touched.
        """
        own_folder(self.directory)
        with open_to_append(self.directory / "lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                message = f"{self.directory} is in use by another taskyard dev"
                raise DirectoryInUse(message) from error
            open_format(self.directory)
            for folder in (self._logs, self.configuration, self._workers):
                own_folder(folder)
            yield

    def log_file(self, name: str) -> Path:
        """The log of the program `name`."""
        return self._logs / f"{name}.log"

    def rotate_log(self, name: str) -> None:
        """Put the log aside when it has grown too long; one former log is kept."""
        log = self.log_file(name)
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_suffix(".log.1"))

    def worker_directory(self, name: str) -> Path:
        """The data of the worker `name`."""
        directory = self._workers / name
        make_folder(directory)
        return directory

    def worker_directories(self) -> list[Path]:
        """The data of all workers that there have ever been here."""
        return sorted(self._workers.iterdir())

    def configuration_file(self, name: str) -> Path:
        """The settings of the program `name`; those of all services are called `services`."""
        return self.configuration / f"{name}.json"

    def write_configuration(self, name: str, settings: msgspec.Struct) -> Path:
        """Write the settings that the program `name` is to read, and return their file."""
        path = self.configuration_file(name)
        _write(path, settings)
        return path

    def write_connection(self, connection: dict[str, Any]) -> None:
        """Write what others need to use the system."""
        _write(self.connection_file, connection)

    def credentials(self, principals: tuple[str, ...]) -> Credentials:
        """Return the tokens of the principals; those that have none yet get one."""
        kept = _read(self._credentials_file, Credentials)
        for name in principals:
            kept.tokens.setdefault(name, secrets.token_urlsafe(TOKEN_BYTES))
        _write(self._credentials_file, kept)
        return kept

    def ports(self) -> Ports:
        """The ports of the last run."""
        return _read(self._ports_file, Ports)

    def write_ports(self, ports: Ports) -> None:
        """Keep the ports for the next run."""
        _write(self._ports_file, ports)

    def processes(self) -> dict[str, RunningProcess]:
        """What ran last, by name: after a clean end nothing."""
        if not self._processes_file.exists():
            return {}
        return _decode(self._processes_file, dict[str, RunningProcess])

    def write_processes(self, running: dict[str, RunningProcess]) -> None:
        """Record what runs, for a next start that finds it still running."""
        _write(self._processes_file, running)

    def forget_processes(self) -> None:
        """Nothing runs any more. Needs no room on the disk."""
        self._processes_file.unlink(missing_ok=True)


def _read(path: Path, kind: type[Kept]) -> Kept:
    return _decode(path, kind) if path.exists() else kind()


def _decode(path: Path, kind: type[Read]) -> Read:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.DecodeError as error:
        raise FolderDamaged(f"{path} cannot be read ({error}); restore it from a copy, or remove it") from error


def _write(path: Path, content: object) -> None:
    write_private(path, msgspec.json.format(msgspec.json.encode(content)) + b"\n")
