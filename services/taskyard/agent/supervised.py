"""The agent's side of its supervisor: what runs there, by messages over one socket, started when none answers."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from taskyard.agent.aside import standing_aside
from taskyard.agent.errors import SupervisorLostError
from taskyard.agent.locks import is_free
from taskyard.agent.programs import Program
from taskyard.agent.supervisor.protocol import (
    AttemptState,
    Changed,
    Command,
    Event,
    Forget,
    Frames,
    Go,
    Hello,
    NotStarted,
    Open,
    ProgramState,
    Quit,
    Room,
    Sent,
    Squeeze,
    Start,
    Stop,
    TimedOut,
    User,
    decode_event,
    encode_frame,
    socket_address,
)
from taskyard.contracts.values import Position
from taskyard.private_files import make_folder

FOLDER = "supervisor"
START_SECONDS_MAX = 20.0
START_POLL_SECONDS = 0.02
AGAIN_SECONDS = 1.0
READ_BYTES = 1 << 20
QUIT_GRACE_SECONDS = 5.0
QUIT_SECONDS_MAX = QUIT_GRACE_SECONDS + 5.0
"""How long a supervisor that is told to end may take; then it is killed, and its keepers end what is left in order."""


class Supervised:
    """The supervisor of the agent in `directory`. `on_timeout` and `on_lost` are called with positions of attempts."""

    def __init__(self, directory: Path) -> None:
        self._folder = directory / FOLDER
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.StreamReader | None = None
        self._frames = Frames()
        self._child: int | None = None
        self._pid = 0
        self._knows_users = False
        self._is_closing = False
        self._up = asyncio.Event()
        self._programs: dict[tuple[int, str], Program] = {}
        self._open: set[int] = set()
        self.left: dict[int, AttemptState] = {}
        """What an earlier run of the agent has left there."""
        self.on_timeout: Callable[[Position], None] = lambda _: None
        self.on_lost: Callable[[Position], None] = lambda _: None

    async def connect(self) -> None:
        """Connect to the supervisor; start it when none answers.

        Raises:
            OSError, TimeoutError: there can be none.
        """
        async with asyncio.timeout(START_SECONDS_MAX):
            while not await self._connect_once():
                if not self._is_there():
                    self._child = self._start_supervisor()
                await asyncio.sleep(START_POLL_SECONDS)
        self._up.set()

    async def run(self) -> None:
        """Hear what the supervisor says until `close`; one that is gone is replaced, and what it had is lost."""
        while True:
            await self._hear_until_gone()
            if self._is_closing:
                return
            self._up.clear()
            self._frames = Frames()
            if self._writer is not None:
                self._writer.close()
            while not self._up.is_set():
                try:
                    await self.connect()
                except OSError:
                    self._lose_all_but(set())
                    await asyncio.sleep(AGAIN_SECONDS)
            self._lose_all_but(set(self.left))

    async def open(self, attempt: Position, asked: Open) -> None:
        """Begin an attempt."""
        await self._up.wait()
        self._open.add(attempt)
        self._send(asked)

    def adopt(self, attempt: Position) -> None:
        """Go on with an attempt that is there."""
        self._open.add(attempt)

    def program(self, attempt: Position, step: str, rooms: tuple[Room, Room]) -> Program | None:
        """The program of a step that was started, by this run of the agent or an earlier one."""
        known = self._programs.get((attempt, step))
        left = self.left.get(attempt)
        if known is None and left is not None:
            for state in left.programs:
                if state.step == step:
                    known = self._programs[attempt, step] = Program(attempt, step, rooms, self._folder)
                    known.become(state)
        return known

    async def start(
        self,
        attempt: Position,
        step: str,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        rooms: tuple[Room, Room],
        user: User | None = None,
    ) -> Program:
        """Make the process of a program; it waits until `go`."""
        await self._up.wait()
        if attempt not in self._open:
            raise SupervisorLostError
        if user is not None and not self._knows_users:
            raise OSError(
                "the supervisor is an older agent's and cannot run tasks as another user: stop the agent in order"
            )
        program = self._programs[attempt, step] = Program(attempt, step, rooms, self._folder)
        self._send(
            Start(
                attempt=attempt,
                step=step,
                argv=tuple(argv),
                cwd=str(cwd),
                env=dict(env),
                stdout=rooms[0],
                stderr=rooms[1],
                user=user,
            )
        )
        return program

    def go(self, program: Program) -> None:
        """Its pid is on disk: it may run."""
        self._send(Go(attempt=program.attempt, step=program.state.step))

    def stop(self, attempt: Position, grace_seconds: float, reason: bytes) -> None:
        """Stop an attempt."""
        self._send(Stop(attempt=attempt, grace_seconds=grace_seconds, reason=reason))

    async def about_to_send(self, attempt: Position, sent: bytes) -> None:
        """Leave word for the next run of the agent; returns when the kernel has it."""
        self._send(Sent(attempt=attempt, sent=sent))
        if self._writer is not None:
            with suppress(OSError):
                await self._writer.drain()

    def forget(self, attempt: Position) -> None:
        """The end of the attempt is on disk."""
        self._send(Forget(attempt=attempt))
        self._open.discard(attempt)
        self.left.pop(attempt, None)
        for key in [key for key in self._programs if key[0] == attempt]:
            del self._programs[key]

    def squeeze(self) -> None:
        """The disk is full."""
        self._send(Squeeze())

    async def close(self, *, leave_running: bool) -> None:
        """Let go of the supervisor. Unless it is to go on, it ends with all that it has, and is gone on return."""
        self._is_closing = True
        if self._writer is None:
            return
        if not leave_running:
            self._send(Quit(grace_seconds=QUIT_GRACE_SECONDS))
        with suppress(OSError):
            await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()
        if not leave_running and not await self._is_gone(QUIT_SECONDS_MAX):
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            await self._is_gone(QUIT_SECONDS_MAX)
        self._is_there()

    async def _is_gone(self, wait_seconds: float) -> bool:
        """Wait so long for the supervisor's end: it holds its lock as long as it lives."""
        with suppress(FileNotFoundError), (self._folder / "lock").open() as lock:
            deadline = time.monotonic() + wait_seconds
            while not is_free(lock.fileno()):
                if time.monotonic() > deadline:
                    return False
                await asyncio.sleep(START_POLL_SECONDS)
        return True

    async def _connect_once(self) -> bool:
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        try:
            with socket_address(self._folder) as address:
                await asyncio.get_running_loop().sock_connect(ours, address)
            self._reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        except OSError:
            ours.close()
            return False
        # What is written must be the kernel's, and not ours, when a wait for it returns: we may be killed.
        self._writer.transport.set_write_buffer_limits(high=0)
        while True:
            data = await self._reader.read(READ_BYTES)
            if not data:
                return False
            bodies = list(self._frames.add(data))
            for body in bodies:
                self._hear(body)
            if bodies:  # the first says everything there is
                return True

    async def _hear_until_gone(self) -> None:
        assert self._reader is not None
        with suppress(OSError, ValueError):  # what is no frame comes of no supervisor: it is asked anew what there is
            while data := await self._reader.read(READ_BYTES):
                for body in self._frames.add(data):
                    self._hear(body)

    def _hear(self, body: bytes) -> None:
        with standing_aside("what the supervisor says"):
            self._take(decode_event(body))

    def _take(self, event: Event) -> None:
        match event:
            case Hello(pid=pid, attempts=attempts, knows_users=knows_users):
                self._pid, self._knows_users = pid, knows_users
                self.left = {one.attempt: one for one in attempts}
                for one in attempts:
                    for state in one.programs:
                        self._update(one.attempt, state)
            case Changed(attempt=attempt, program=state):
                self._update(attempt, state)
            case NotStarted(attempt=attempt, step=step, reason=reason):
                if (program := self._programs.pop((attempt, step), None)) is not None:
                    program.fail(OSError(reason))
            case TimedOut(attempt=attempt):
                if (left := self.left.get(attempt)) is not None:
                    self.left[attempt] = msgspec.structs.replace(left, timed_out=True)
                self.on_timeout(Position(attempt))

    def _update(self, attempt: int, state: ProgramState) -> None:
        if (program := self._programs.get((attempt, state.step))) is not None:
            program.become(state)
        elif (left := self.left.get(attempt)) is not None:  # nobody goes on with it yet
            others = tuple(one for one in left.programs if one.step != state.step)
            self.left[attempt] = msgspec.structs.replace(left, programs=(*others, state))

    def _lose_all_but(self, attempts: set[int]) -> None:
        for attempt in sorted(self._open - attempts):
            self._open.discard(attempt)
            for (of, _), program in self._programs.items():
                if of == attempt:
                    program.fail(SupervisorLostError())
            with standing_aside("the loss of an attempt", position=attempt):
                self.on_lost(Position(attempt))

    def _send(self, command: Command) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(encode_frame(command))

    def _start_supervisor(self) -> int:
        """In a session of its own, without what only the agent is to know, and without any of its files."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("TASKYARD_")}
        make_folder(self._folder)
        to_log = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "taskyard.agent.supervisor", str(self._folder.absolute())],
            env | {"PYTHONPATH": os.pathsep.join(sys.path)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._folder / "log"), to_log, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )

    def _is_there(self) -> bool:
        """Whether the supervisor that we started lives; takes its status when it does not."""
        if self._child is None:
            return False
        with suppress(ChildProcessError):
            if os.waitpid(self._child, os.WNOHANG)[0] == 0:
                return True
        self._child = None
        return False
