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

Hear = Callable[[keeper.Told], None]


class Keeper:
    """One keeper, as its supervisor sees it."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.control = control
        self.frames = Frames()
        self.hear: Hear | None = None

    def stop(self, stop_signal: int, grace_seconds: float) -> None:
        """Have it end its program."""
        if self.hear is not None:
            with suppress(OSError):  # it is gone, which is noticed elsewhere
                keeper.send(self.control, keeper.Stopping(stop_signal=stop_signal, grace_seconds=grace_seconds))


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

    def run(self, job: keeper.Job, descriptors: tuple[int, ...], hear: Hear) -> Keeper:
        """Have a program run; `hear` is called with what becomes of it. Raises `OSError`: there can be no process."""
        while self._free:
            one = self._free.pop()
            with suppress(OSError):  # it was killed while it waited: what is noticed elsewhere is no reason to fail
                keeper.send(one.control, job, descriptors)
                one.hear = hear
                return one
        one = self._make()
        keeper.send(one.control, job, descriptors)
        one.hear = hear
        return one

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
            if not isinstance(told, keeper.Made):
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
        if (hear := one.hear) is not None:  # it was killed over a program, whose tree is ours now
            while self._end_strays():
                time.sleep(STRAYS_SECONDS)
            hear(keeper.Over(status=-signal.SIGKILL))

    def _end_strays(self) -> bool:
        """Kill whatever is our child and no keeper; True if there was any."""
        strays = [pid for pid in _children() if pid not in self._all]
        for pid in strays:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        return bool(strays)


def _children() -> list[int]:
    """All children, zombies among them."""
    own = os.getpid()
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 (names only)
    return [pid for pid in pids if (fields := keeper.read_stat(pid)) is not None and int(fields[1]) == own]
