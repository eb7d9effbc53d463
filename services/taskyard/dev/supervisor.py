"""Programs that are kept running: one that ends is started again, later each time, until it stays up for a while."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from subprocess import Popen
from types import TracebackType
from typing import Self

from taskyard.dev.errors import describe
from taskyard.dev.last_words import last_words
from taskyard.embedded.processes import ProcessIdentity, Program, identify, spawn

RESTART_SECONDS_FIRST = 0.2
RESTART_SECONDS_MAX = 5.0
HEALTHY_SECONDS = 10.0
PROGRAMS_MAX = 128


class Supervisor:
    """Keeps programs running from `start` to `stop`, inside `async with`. Each has a name of its own.

    `started` is called with the program and its new process after every start, and may raise `OSError`: the process is
    ended then, and another one started later. `report` is called with a sentence when one ended.
    Leaving the context without `stop` leaves the programs running.
    """

    def __init__(
        self, started: Callable[[Program, ProcessIdentity], None], report: Callable[[str], None] = lambda _: None
    ) -> None:
        self._started = started
        self._report = report
        self._children: dict[str, Popen[bytes]] = {}
        self._programs: dict[str, Program] = {}
        self._stopping: dict[str, asyncio.Event] = {}
        self._ended: dict[str, asyncio.Task[None]] = {}
        self.ends: dict[str, int] = {}
        """How often each program has ended by itself since it last stayed up for a while."""
        self.reasons: dict[str, str] = {}
        """Why each program has ended the last time."""
        # A thread per program waits for its end: that way every platform tells us at once, and takes the status.
        self._waiters = ThreadPoolExecutor(PROGRAMS_MAX, thread_name_prefix="waits for")
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        """Begin supervising."""
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the programs to be stopped."""
        await self._group.__aexit__(kind, error, trace)
        self._waiters.shutdown(wait=False)

    def start(self, program: Program) -> None:
        """Start the program and keep it running."""
        assert program.name not in self._programs, f"{program.name} is started twice"
        assert len(self._programs) < PROGRAMS_MAX
        self._programs[program.name] = program
        self._stopping[program.name] = asyncio.Event()
        self._ended[program.name] = self._group.create_task(self._keep_running(program))

    async def stop(self, names: Iterable[str], grace_seconds: float) -> None:
        """Stop these programs together; those that have not ended after `grace_seconds` are killed."""
        chosen = [name for name in names if name in self._programs]
        for name in chosen:
            self._stopping[name].set()
            self._signal(name, self._programs[name].stop_signal)
            self._signal(name, signal.SIGCONT)  # one that stands still could not end in order
        ends = [self._ended[name] for name in chosen]
        if ends and (await asyncio.wait(ends, timeout=grace_seconds))[1]:
            for name in chosen:
                self._signal(name, signal.SIGKILL)
            await asyncio.wait(ends)

    def restart(self, name: str) -> None:
        """Ask a program to end; it is started again as any that ended."""
        self._signal(name, self._programs[name].stop_signal)

    async def _keep_running(self, program: Program) -> None:
        stopping = self._stopping[program.name]
        restart_seconds = RESTART_SECONDS_FIRST
        while not stopping.is_set():
            begun = time.monotonic()
            end = await self._run_once(program)
            if stopping.is_set():
                return
            if time.monotonic() - begun > HEALTHY_SECONDS:
                restart_seconds = RESTART_SECONDS_FIRST
                self.ends[program.name] = 0
            self.ends[program.name] = self.ends.get(program.name, 0) + 1
            self.reasons[program.name] = end.reason or end.how
            told = f"{end.how}: {end.reason}" if end.reason else end.how
            self._report(f"{program.name} {told}; it starts again in {restart_seconds} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), restart_seconds)
            restart_seconds = min(2 * restart_seconds, RESTART_SECONDS_MAX)

    async def _run_once(self, program: Program) -> "_End":
        try:
            child = spawn(program)
        except OSError as error:
            return _End(how="could not be started", reason=describe(error))
        # Recorded without an await in between: what is not recorded could not be stopped after we were killed.
        identity = identify(child.pid)
        try:
            if identity:
                self._started(program, identity)
        except OSError as error:
            _end_at_once(child)
            return _End(how="was ended, since nobody could record that it runs", reason=describe(error))
        except BaseException:
            _end_at_once(child)
            raise
        self._children[program.name] = child
        try:
            status = await asyncio.get_running_loop().run_in_executor(self._waiters, child.wait)
        finally:
            del self._children[program.name]
        if status < 0:
            return _End(how=f"was ended by {_name_of(-status)}")
        return _End(how=f"ended with {status}", reason=last_words(program.log_file))

    def _signal(self, name: str, number: int) -> None:
        if child := self._children.get(name):
            child.send_signal(number)


@dataclass(frozen=True, kw_only=True)
class _End:
    """How a program has ended, and why, as far as anybody told."""

    how: str
    reason: str = ""


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def _end_at_once(child: "Popen[bytes]") -> None:
    child.kill()
    child.wait()
