"""The keepers of a supervisor: forks that run one program after another, made when none is free."""

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from taskyard.agent.supervisor import keeper
from taskyard.agent.supervisor.protocol import Frames

FREE_MAX = 4
"""So many wait for the next program; who is free beside them ends."""
STRAYS_SECONDS = 0.05
"""How often is looked after what a killed keeper has left."""
OVERDUE_SECONDS = 5.0
"""A keeper that is so much later than the grace of its program stands still, and is killed."""
CLOSE_SECONDS_MAX = 2.0
CLOSE_POLL_SECONDS = 0.005

Hear = Callable[[keeper.Told], None]


class Keeper:
    """One keeper, as its supervisor sees it."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.control = control
        self.frames = Frames()
        self.hear: Hear | None = None
        self.stop_signal = 0
        self.program = 0
        """The pid of its program."""
        self.program_status: int | None = None
        """How that ended, where it was not the keeper that took its status."""
        self.due: float | None = None
        """When its program is to have ended, once it was told to end it."""

    def stop(self, stop_signal: int, grace_seconds: float) -> None:
        """Have it end its program. The program may have stopped it: it is of the same user where that is the agent's own."""
        if self.hear is not None:
            self.due = self.due or time.monotonic() + grace_seconds + OVERDUE_SECONDS
            with suppress(OSError):  # it is gone, which is noticed elsewhere
                keeper.send(self.control, keeper.Stopping(stop_signal=stop_signal, grace_seconds=grace_seconds))
                os.kill(self.pid, signal.SIGCONT)


class Keepers:
    """All keepers. `watch` and `forget` are how the loop is told to call when a descriptor can be read."""

    def __init__(
        self,
        watch: Callable[["socket.socket | int", Callable[[], None]], None],
        forget: Callable[["socket.socket | int"], object],
    ) -> None:
        self._watch = watch
        self._forget = forget
        self._all: dict[int, Keeper] = {}
        self._free: list[Keeper] = []
        self._killed: dict[Keeper, float] = {}
        """Those that were killed over a program, whose tree is ours now, and until when that may end in order."""

    @property
    def has_strays(self) -> bool:
        """Whether there may be something that a keeper should have ended."""
        return bool(self._killed)

    def run(self, job: keeper.Job, descriptors: tuple[int, ...], hear: Hear) -> Keeper:
        """Have a program run; `hear` is called with what becomes of it. Raises `OSError`: there can be no process."""
        while self._free:
            one = self._free.pop()
            with suppress(OSError):  # it was killed while it waited: what is noticed elsewhere is no reason to fail
                return _give(one, job, descriptors, hear)
        return _give(self._make(), job, descriptors, hear)

    def end_overdue(self) -> None:
        """Kill keepers that do not end what they were told to end: what they leave is ended as ours."""
        now = time.monotonic()
        for one in self._all.values():
            if one.hear is not None and one.due is not None and one.due <= now:
                with suppress(OSError):
                    os.kill(one.pid, signal.SIGKILL)

    def end_strays(self) -> None:
        """Go on to end what keepers that were killed have left, and tell when nothing of it lives any more."""
        now = time.monotonic()
        strays = self._strays()
        if not strays:
            killed, self._killed = self._killed, {}
            for one in killed:
                if one.hear is not None:
                    one.hear(_end_of(one))
        elif now >= max(self._killed.values()):
            for pid, _ in strays:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Let all go, and wait until they are gone: no program of theirs runs any more."""
        for one in self._all.values():
            one.control.close()
        deadline = time.monotonic() + CLOSE_SECONDS_MAX
        left = set(self._all)
        while left and time.monotonic() < deadline:
            left = {pid for pid in left if _take_status(pid) is None}
            time.sleep(CLOSE_POLL_SECONDS)

    def _make(self) -> Keeper:
        ours, its = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            os.dup2(its.fileno(), 3)
            os.closerange(4, os.sysconf("SC_OPEN_MAX"))
            try:
                keeper.run(socket.socket(fileno=3))
            finally:
                os._exit(1)
        its.close()
        one = Keeper(pid, ours)
        self._all[pid] = one
        self._watch(ours, lambda: self._hear(one))
        return one

    def _hear(self, one: Keeper) -> None:
        try:
            data = one.control.recv(65536)
        except OSError:
            data = b""
        for body in one.frames.add(data):
            hear, told = one.hear, keeper.decode_told(body)
            if isinstance(told, keeper.Made):
                one.program = told.pid
            else:
                one.hear = None
                self._set_free(one)
            if hear is not None:
                hear(told)
        if not data:
            self._bury(one)

    def _set_free(self, one: Keeper) -> None:
        if len(self._free) < FREE_MAX:
            self._free.append(one)
        else:
            one.control.shutdown(socket.SHUT_WR)  # it reads the end, and goes

    def _bury(self, one: Keeper) -> None:
        self._forget(one.control)
        one.control.close()
        del self._all[one.pid]
        if one in self._free:
            self._free.remove(one)
        with suppress(ChildProcessError):
            os.waitpid(one.pid, 0)
        if one.hear is not None:
            known = {other.program for other in self._killed}
            self._killed[one] = time.monotonic() + keeper.ORPHAN_GRACE_SECONDS
            for pid, group in self._strays():
                if group not in known:
                    with suppress(OSError):
                        os.kill(pid, one.stop_signal)

    def _strays(self) -> list[tuple[int, int]]:
        """What stems from us and from no keeper, with groups. Takes the status of what of it has ended."""
        programs = {one.program: one for one in self._killed}
        strays: list[tuple[int, int]] = []
        for pid, group in _children():
            if pid in self._all:
                continue
            if (status := _take_status(pid)) is None:
                strays += [(pid, group), *keeper.descendants(pid)]
            elif pid in programs:
                programs[pid].program_status = status
        return strays


def _end_of(killed: Keeper) -> keeper.Told:
    """What became of the program of a keeper that was killed, of which nothing lives."""
    if not killed.program:
        return keeper.NotMade(reason="its keeper was killed")  # of such a one nobody would hear that it exists
    return keeper.Over(status=-signal.SIGKILL if killed.program_status is None else killed.program_status)


def _give(one: Keeper, job: keeper.Job, descriptors: tuple[int, ...], hear: Hear) -> Keeper:
    keeper.send(one.control, job, descriptors)
    one.hear, one.stop_signal, one.program, one.due = hear, job.stop_signal, 0, None
    return one


def _take_status(child: int) -> int | None:
    """The exit status of a child that has ended, None for one that lives."""
    try:
        pid, status = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:
        return -signal.SIGKILL
    return os.waitstatus_to_exitcode(status) if pid else None


def _children() -> list[tuple[int, int]]:
    """All children with their groups, zombies among them."""
    own = os.getpid()
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 (names only)
    found = [(pid, fields) for pid in pids if (fields := keeper.read_stat(pid)) is not None]
    return [(pid, int(fields[2])) for pid, fields in found if int(fields[1]) == own]
