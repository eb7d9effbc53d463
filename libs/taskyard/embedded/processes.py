"""Processes of this machine: what to start, who is who, and how to stop one for sure.

A pid alone does not name a process, since the kernel gives it to another one later. Together with the start time of the
process and the boot that this is counted from it does. So what an earlier run left can be stopped without ever hitting
a stranger. Linux only (`/proc`).
"""

import contextlib
import os
import pwd
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import msgspec

from taskyard.private_files import make_folder, open_to_append

POLL_SECONDS = 0.02
KILL_WAIT_SECONDS = 5.0
FREE_PORT_TRIES_MAX = 200
LOWEST_FREE_PORT = 10_000
DEFAULT_EPHEMERAL_PORTS = (32_768, 60_999)
LISTENING = "0A"
"""The state of a socket in /proc/net/tcp."""


class ProcessIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """One process, for ever: `start_ticks` is its start time in clock ticks since the boot that `boot_id` names."""

    pid: int
    start_ticks: int
    boot_id: str


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A program to run: `argv`, the file that its output is appended to, and how it wants to be stopped.

    `environment` is added to ours. `user` is the name of the system user that it runs as, `None` for our own. It is put into
    `directory` before it becomes that user, who need not be able to go there.
    """

    name: str
    argv: tuple[str, ...]
    log_file: Path
    environment: Mapping[str, str] = {}
    user: str | None = None
    directory: str = "/"
    stop_signal: int = signal.SIGTERM


def identify(pid: int) -> ProcessIdentity | None:
    """Return the identity of the running process `pid`, or `None` if there is none (a zombie is none)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in parentheses and may itself hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    if fields[0] in ("Z", "X"):
        return None
    return ProcessIdentity(pid=pid, start_ticks=int(fields[19]), boot_id=_boot_id())


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether this very process still runs."""
    return identify(identity.pid) == identity


def stop(identity: ProcessIdentity, grace_seconds: float, stop_signal: int = signal.SIGTERM) -> bool:
    """Ask the process to end, and kill it after `grace_seconds`; return whether it was alive at first.

    A process that has taken over the pid is left alone. Blocks until the process is gone.
    """
    return bool(stop_all({identity: stop_signal}, grace_seconds))


def stop_all(stop_signals: Mapping[ProcessIdentity, int], grace_seconds: float) -> list[ProcessIdentity]:
    """Stop these processes together as `stop` does, and return those that were alive at first."""
    alive = [identity for identity in stop_signals if is_alive(identity)]
    for identity in alive:
        _send(identity, stop_signals[identity])
    if left := _wait_gone(alive, grace_seconds):
        for identity in left:
            _send(identity, signal.SIGKILL)
        _wait_gone(left, KILL_WAIT_SECONDS)
    return alive


def has_argument(identity: ProcessIdentity, argument: str) -> bool:
    """Whether the process was started with this very argument: a file of ours there tells that it is ours."""
    return argument in command_line(identity)


def command_line(identity: ProcessIdentity) -> list[str]:
    """What the process was started with, the program first; empty for one that is gone."""
    try:
        arguments = Path(f"/proc/{identity.pid}/cmdline").read_bytes()
    except OSError:
        return []
    return os.fsdecode(arguments).split("\0")[:-1]


def all_running() -> Iterator[ProcessIdentity]:
    """Every process of this machine that we can see."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (identity := identify(int(entry.name))):
            yield identity


def works_in(identity: ProcessIdentity, folder: Path) -> bool:
    """Whether the working directory of the process is this folder, as far as we may know it."""
    try:
        return Path(f"/proc/{identity.pid}/cwd").readlink() == folder
    except OSError:
        return False


def pid_in(file: Path) -> int:
    """The pid in the first line of a file in which a server tells it, 0 if there is none (or only half a file)."""
    try:
        first_line = file.read_text(encoding="ascii", errors="replace").partition("\n")[0].strip()
    except OSError:
        return 0
    return abs(int(first_line)) if first_line.lstrip("-").isdecimal() else 0


def stop_child(child: subprocess.Popen[bytes], grace_seconds: float, stop_signal: int = signal.SIGTERM) -> int:
    """Stop a process that we have started, and return its exit status (negative: the signal that ended it)."""
    if child.poll() is None:
        child.send_signal(stop_signal)
        try:
            child.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait(KILL_WAIT_SECONDS)


def spawn(program: Program) -> subprocess.Popen[bytes]:
    """Start the program in a session of its own, so that Ctrl-C in a terminal reaches only who supervises it."""
    make_folder(program.log_file.parent)
    account = pwd.getpwnam(program.user) if program.user else None
    with open_to_append(program.log_file) as log:
        return subprocess.Popen(
            program.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **program.environment},
            start_new_session=True,
            cwd=program.directory,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )


def free_port() -> int:
    """Return a TCP port of loopback that nothing listens on, outside the range of outgoing connections.

    A port inside that range could be taken by any connection while its server restarts; a client that tries to
    reach the absent server can even be connected to itself.
    """
    lowest_ephemeral, highest_ephemeral = _ephemeral_ports()
    candidates = range(LOWEST_FREE_PORT, max(lowest_ephemeral, LOWEST_FREE_PORT + 1))
    if len(candidates) < FREE_PORT_TRIES_MAX:
        candidates = range(highest_ephemeral + 1, 65_536)
    for port in random.sample(candidates, min(FREE_PORT_TRIES_MAX, len(candidates))):
        if is_port_free(port):
            return port
    message = "no free TCP port was found on loopback"
    raise OSError(message)


def is_port_free(port: int) -> bool:
    """Whether a server could listen on this TCP port of loopback now."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier run that linger in TIME_WAIT do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def listener_of(port: int) -> str | None:
    """Who listens on this TCP port of this machine, as `name (pid 123)`; `None` where the kernel does not tell us."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").iterdir():
        if not sockets or not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if any(os.readlink(file) in sockets for file in (process / "fd").iterdir()):  # noqa: PTH115 (no path)
                return (
                    f"{(process / 'comm').read_text(encoding='utf-8', errors='replace').strip()} (pid {process.name})"
                )
    return None


@lru_cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _ephemeral_ports() -> tuple[int, int]:
    try:
        lowest, highest = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    except OSError:
        return DEFAULT_EPHEMERAL_PORTS
    return int(lowest), int(highest)


def _listening_inodes(port: int) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", name).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _send(identity: ProcessIdentity, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(identity.pid, number)


def _wait_gone(identities: list[ProcessIdentity], wait_seconds: float) -> list[ProcessIdentity]:
    """Wait until these processes are gone, and return those that are not when the time is up."""
    deadline = time.monotonic() + wait_seconds
    while left := [identity for identity in identities if is_alive(identity)]:
        if time.monotonic() > deadline:
            return left
        time.sleep(POLL_SECONDS)
    return []
