"""A keeper: a fork of the supervisor that runs one program at a time and is the subreaper of all that it starts.

It has a socket to the supervisor, and of the program's pipes the ends for reading too: should the supervisor die, the
program is stopped in order and its last words find a reader. A keeper whose program has ended, with all that it
started, has no child left and takes the next one.
"""

import ctypes
import errno
import os
import select
import signal
import socket
import struct
import time
from contextlib import suppress
from typing import NoReturn

import msgspec

from taskyard.agent.supervisor.protocol import User

LEFTOVER_GRACE_SECONDS = 1.0
"""What a program leaves behind when it ends by itself gets this long between the first signal and KILL."""
ORPHAN_GRACE_SECONDS = 10.0
"""How long a program may take to end in order when the supervisor has died."""
STOP_POLL_SECONDS = 0.05
REAP_SECONDS = 10.0
NOT_BEGUN = 125
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit statuses, as shells give them."""

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_LENGTH = struct.Struct("!I")
_FDS = 5
_libc = ctypes.CDLL(None, use_errno=True)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A program to run. With it come five descriptors: to write standard output and error, the gate, to read both."""

    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str]
    stop_signal: int
    user: User | None = None


class Stopping(msgspec.Struct, frozen=True, kw_only=True):
    """End the program."""

    stop_signal: int
    grace_seconds: float


class Made(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The process exists and waits at its gate."""

    pid: int
    start_ticks: int


class NotMade(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """There could be no process."""

    reason: str


class Over(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Nothing of it lives."""

    status: int


Told = Made | NotMade | Over
decode_told = msgspec.msgpack.Decoder(Told).decode
_decode_job = msgspec.msgpack.Decoder(Job).decode
_decode_stopping = msgspec.msgpack.Decoder(Stopping).decode
_encode = msgspec.msgpack.Encoder().encode


def become_subreaper() -> None:
    """From now on whose parent dies becomes our child, if it stems from us."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def become_unreadable() -> None:
    """From now on no other process of our user may look into our memory, environment and files, unless it is root's."""
    if _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def send(control: socket.socket, message: object, descriptors: tuple[int, ...] = ()) -> None:
    """Send one message, with descriptors."""
    body = _encode(message)
    socket.send_fds(control, [_LENGTH.pack(len(body))], descriptors)
    control.sendall(body)


def run(control: socket.socket) -> NoReturn:
    """Run programs until the supervisor is gone. Called in the fork; everything else must be closed by now."""
    become_subreaper()
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the supervisor says when
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    while True:
        header, descriptors, _, _ = socket.recv_fds(control, _LENGTH.size, _FDS)
        if not header:
            os._exit(0)
        job = _decode_job(_receive(control, _LENGTH.unpack(header)[0]))
        _Run(control, wake, job, descriptors).to_end()


class _Run:
    """One program from its fork to the end of the last of its tree."""

    def __init__(self, control: socket.socket, wake: int, job: Job, descriptors: list[int]) -> None:
        self._control = control
        self._wake = wake
        self._job = job
        self._descriptors = descriptors
        self._readers = descriptors[3:]
        self._pid = 0
        self._status: int | None = None
        self._kill_at: float | None = None
        self._is_orphan = False
        self._has_children = True

    def to_end(self) -> None:
        try:
            self._pid = os.fork()
        except OSError as error:
            for one in self._descriptors:
                os.close(one)
            send(self._control, NotMade(reason=error.strerror or str(error)))
            return
        if self._pid == 0:
            _become(self._job, self._descriptors)
        for one in self._descriptors[:3]:
            os.close(one)
        stat = read_stat(self._pid)
        send(self._control, Made(pid=self._pid, start_ticks=int(stat[19]) if stat else 0))
        self._wait()
        for one in self._readers:
            os.close(one)
        if self._is_orphan:
            os._exit(0)
        send(self._control, Over(status=self._status or 0))

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            self._reap()
            if self._status is not None:
                if not self._has_children:
                    return
                if self._kill_at is None:
                    self._stop(self._job.stop_signal, LEFTOVER_GRACE_SECONDS)
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._signal_tree(signal.SIGKILL)  # again each time: it may have grown meanwhile
            seconds = REAP_SECONDS if self._kill_at is None else STOP_POLL_SECONDS
            for descriptor, _ in poll.poll(seconds * 1000):
                if descriptor == self._wake:
                    with suppress(BlockingIOError):
                        os.read(self._wake, 4096)
                elif descriptor == self._control.fileno():
                    self._hear(poll)
                elif not os.read(descriptor, 65536):  # the supervisor is gone: somebody must read what is told last
                    poll.unregister(descriptor)

    def _hear(self, poll: "select.poll") -> None:
        header = self._control.recv(_LENGTH.size)
        if header:
            request = _decode_stopping(_receive(self._control, _LENGTH.unpack(header)[0]))
            self._stop(request.stop_signal, request.grace_seconds)
            return
        self._is_orphan = True
        poll.unregister(self._control)
        for one in self._readers:
            poll.register(one, select.POLLIN)
        self._stop(self._job.stop_signal, ORPHAN_GRACE_SECONDS)

    def _stop(self, number: int, grace_seconds: float) -> None:
        """The first signal, once: a second one would tell Terraform to let go of its state."""
        if self._kill_at is None:
            self._signal_tree(number)
            self._kill_at = time.monotonic() + grace_seconds

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._has_children = False
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._status = os.waitstatus_to_exitcode(status)

    def _signal_tree(self, number: int) -> None:
        """Signal the group of the program, and each of its tree that has left the group."""
        with suppress(OSError):
            os.killpg(self._pid, number)
        for pid, group in descendants(os.getpid()):
            if group != self._pid:
                with suppress(OSError):
                    os.kill(pid, number)


def _become(job: Job, descriptors: list[int]) -> NoReturn:
    """In the process of the program: wait at the gate, then become the program."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in range(1, signal.NSIG):  # Python ignores some, and what is ignored stays so in the program
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        out, err, gate = descriptors[:3]
        # The gate is closed by the supervisor's end without a word: then nothing of the program ever runs.
        if os.read(gate, 1) != b"g":
            os._exit(NOT_BEGUN)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.closerange(3, _open_files_max())
        if job.user is not None:
            _become_user(job.user)
        os.chdir(job.cwd)
        if os.getcwd() != job.cwd:  # noqa: PTH109 (what the kernel says)
            raise OSError(errno.ELOOP, "a link has taken the place of its directory")
        _execute(job)
    except BaseException as error:  # noqa: BLE001 (nothing of the keeper may go on in this process)
        text = error.strerror if isinstance(error, OSError) else str(error)
        with suppress(OSError):
            os.write(2, f"taskyard: {job.argv[0]}: {text}\n".encode())
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError | NotADirectoryError) else NOT_EXECUTABLE)


def _become_user(user: User) -> None:
    """Nothing that a task says has had a part in this process until now, and from here on we are not root any more."""
    for stream in (1, 2):
        os.fchown(stream, user.uid, user.gid)  # or /dev/stderr could not be opened
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)


def _execute(job: Job) -> NoReturn:
    try:
        os.execvpe(job.argv[0], job.argv, job.env)  # noqa: S606 (that is what it is for)
    except OSError as error:
        if error.errno != errno.ENOEXEC:  # a script without its first line, which shells run
            raise
        os.execve("/bin/sh", ("sh", *job.argv), job.env)  # noqa: S606 (as above)


def descendants(root: int) -> list[tuple[int, int]]:
    """The living processes that stem from `root`, with their groups; zombies and `root` itself are not among them."""
    parents: dict[int, list[tuple[int, int, bool]]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 (names only)
        if entry.isdigit() and (fields := read_stat(int(entry))) is not None:
            one = (int(entry), int(fields[2]), fields[0] not in "ZX")
            parents.setdefault(int(fields[1]), []).append(one)
    found: list[tuple[int, int]] = []
    waiting = [root]
    while waiting:
        for pid, group, lives in parents.get(waiting.pop(), ()):
            waiting.append(pid)
            if lives:
                found.append((pid, group))
    return found


def read_stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on: the name before may hold spaces and brackets."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 (the hot part of a walk through all processes)
            return file.read().decode(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _receive(control: socket.socket, size: int) -> bytes:
    data = control.recv(size, socket.MSG_WAITALL)
    if len(data) < size:  # the supervisor died in the middle of a word
        os._exit(0)
    return data


def _open_files_max() -> int:
    return os.sysconf("SC_OPEN_MAX")
