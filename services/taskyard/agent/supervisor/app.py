"""The supervisor as a running program: one loop over its socket, the pipes of programs, and the keepers."""

import os
import selectors
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from taskyard.agent.supervisor import keeper
from taskyard.agent.supervisor.aside import by_itself
from taskyard.agent.supervisor.connections import Connections
from taskyard.agent.supervisor.holdings import Attempt, Program, Stream
from taskyard.agent.supervisor.keepers import STRAYS_SECONDS, Keepers
from taskyard.agent.supervisor.protocol import (
    STREAMS,
    Changed,
    Command,
    Forget,
    Go,
    Hello,
    NotStarted,
    Open,
    Quit,
    Room,
    Sent,
    Squeeze,
    Start,
    Stop,
    TimedOut,
    spool_file,
)
from taskyard.agent.supervisor.spool import Spool

IDLE_SECONDS = 5.0
"""Without an agent and with nothing kept for so long it ends."""
KEPT_SECONDS = 7 * 86_400.0
"""How long exit statuses wait for an agent."""
TICK_SECONDS = 1.0
WROTE_SECONDS = 0.1
"""An agent is told of new output at most so often."""
READ_BYTES = 65536
PIPE_PATIENCE_SECONDS = 1.0
"""How long output may still come when nothing of a program lives: a stranger may have been given its pipe."""
FOLDER_GONE_GRACE_SECONDS = 10.0


class Supervisor:
    """Everything that runs for one agent folder. `listener` is its socket."""

    def __init__(self, folder: Path, listener: socket.socket) -> None:
        self._folder = folder
        self._inode = _inode(folder)
        self._selector = selectors.DefaultSelector()
        self._connections = Connections(
            listener, self._selector, greet=self._greet, obey=self._obey, on_gone=self._note_need
        )
        self._attempts: dict[int, Attempt] = {}
        self._wrote: dict[Program, None] = {}
        self._wrote_told_at = 0.0
        self._draining: dict[Program, None] = {}
        self._last_needed_at = _now()
        self._ticked_at = _now()
        self._keepers = Keepers(self._watch, self._selector.unregister)
        self._leaving = False

    def ask_to_end(self) -> None:
        """Stop everything, and end."""
        self._quit(FOLDER_GONE_GRACE_SECONDS)

    def run(self) -> None:
        """Serve until there is nothing to do any more."""
        while not self._is_done():
            for key, _ in self._selector.select(self._patience_seconds()):
                by_itself(key.data)
            now = _now()
            by_itself(self._tell_what_was_written, now)
            by_itself(self._end_drains, now)
            if self._keepers.has_strays:
                by_itself(self._keepers.end_strays)
            if now - self._ticked_at >= TICK_SECONDS or self._next_deadline() <= now:
                by_itself(self._tick, now)
        self._keepers.close()

    def _is_done(self) -> bool:
        if self._leaving:
            return not any(one.running for one in self._attempts.values())
        return False

    def _patience_seconds(self) -> float:
        if self._keepers.has_strays:
            return STRAYS_SECONDS
        if self._wrote or self._draining:
            return WROTE_SECONDS
        return max(0.0, min(TICK_SECONDS, self._next_deadline() - _now()))

    def _next_deadline(self) -> float:
        return min((one.ends_at for one in self._attempts.values() if not one.timed_out), default=float("inf"))

    def _tick(self, now: float) -> None:
        self._ticked_at = now
        for number, attempt in self._attempts.items():
            if attempt.ends_at <= now and not attempt.timed_out:
                attempt.timed_out = True
                by_itself(self._stop_programs, attempt, attempt.asked.timeout_grace_seconds)
                self._connections.tell(TimedOut(attempt=number))
        self._keepers.end_overdue()
        if _inode(self._folder) != self._inode:
            self._quit(FOLDER_GONE_GRACE_SECONDS)
        if self._connections or any(one.running for one in self._attempts.values()):
            self._last_needed_at = now
        patience_seconds = KEPT_SECONDS if self._attempts else IDLE_SECONDS
        if now - self._last_needed_at > patience_seconds:
            self._leaving = True

    def _greet(self) -> Hello:
        now = _now()
        attempts = tuple(one.state(now) for one in self._attempts.values() if not one.is_forgotten)
        return Hello(pid=os.getpid(), attempts=attempts, knows_users=True)

    def _note_need(self) -> None:
        self._last_needed_at = _now()

    def _obey(self, command: Command) -> None:
        match command:
            case Open(attempt=number):
                self._attempts.setdefault(number, Attempt(command, _now()))
            case Start():
                self._start(command)
            case Go(attempt=number, step=step):
                self._go(number, step)
            case Stop(attempt=number, grace_seconds=grace_seconds, reason=reason):
                if (attempt := self._attempts.get(number)) is not None and attempt.stopped is None:
                    attempt.stopped = reason
                    self._stop_programs(attempt, grace_seconds)
            case Sent(attempt=number, sent=sent):
                if (attempt := self._attempts.get(number)) is not None:
                    attempt.sent = sent
            case Forget(attempt=number):
                self._forget(number)
            case Squeeze():
                self._squeeze()
            case Quit(grace_seconds=grace_seconds):
                self._quit(grace_seconds)

    def _start(self, asked: Start) -> None:
        attempt = self._attempts.get(asked.attempt)
        if attempt is None or not attempt.may_begin or self._leaving:
            self._connections.tell(NotStarted(attempt=asked.attempt, step=asked.step, reason="the attempt was stopped"))
            return
        if asked.step in attempt.programs:
            return
        try:
            self._spawn(attempt, asked)
        except OSError as error:
            self._connections.tell(
                NotStarted(attempt=asked.attempt, step=asked.step, reason=error.strerror or str(error))
            )
        except Exception as error:  # noqa: BLE001 (who asked for it must not wait for ever)
            traceback.print_exc()
            self._connections.tell(NotStarted(attempt=asked.attempt, step=asked.step, reason=repr(error)))

    def _spawn(self, attempt: Attempt, asked: Start) -> None:
        pipes = [os.pipe() for _ in range(3)]
        (out_reader, out), (err_reader, err), (gate_reader, gate) = pipes
        streams = [
            self._stream(asked, stream, reader, room)
            for stream, reader, room in zip(
                STREAMS, (out_reader, err_reader), (asked.stdout, asked.stderr), strict=True
            )
        ]
        stop_signal = attempt.asked.stop_signal
        program = Program(asked.attempt, asked.step, streams, gate, stop_signal)
        job = keeper.Job(argv=asked.argv, cwd=asked.cwd, env=asked.env, stop_signal=stop_signal, user=asked.user)
        try:
            program.keeper = self._keepers.run(
                job,
                (out, err, gate_reader, out_reader, err_reader),
                lambda told: self._hear_of(program, told),
            )
        except OSError:
            for one in (out_reader, err_reader, gate):
                os.close(one)
            raise
        finally:
            for one in (out, err, gate_reader):
                os.close(one)
        attempt.programs[asked.step] = program
        for stream in streams:
            os.set_blocking(stream.reader, False)
            self._watch(stream.reader, _reading(self._read, program, stream))

    def _stream(self, asked: Start, stream: str, reader: int, room: Room) -> Stream:
        return Stream(reader, Spool(spool_file(self._folder, asked.attempt, asked.step, stream), room))

    def _go(self, number: int, step: str) -> None:
        attempt = self._attempts.get(number)
        program = attempt.programs.get(step) if attempt is not None else None
        if attempt is not None and program is not None and program.gate is not None and attempt.may_begin:
            program.has_begun = True
            with suppress(BrokenPipeError):  # it was ended before
                os.write(program.gate, b"g")
            program.close_gate()

    def _hear_of(self, program: Program, told: keeper.Told) -> None:
        match told:
            case keeper.Made(pid=pid, start_ticks=start_ticks):
                program.pid, program.start_ticks = pid, start_ticks
                self._connections.tell(Changed(attempt=program.attempt, program=program.state))
            case keeper.NotMade(reason=reason):
                for stream in program.streams:
                    self._close_stream(stream)
                program.close_gate()
                program.is_over = True
                del self._attempts[program.attempt].programs[program.step]
                self._connections.tell(NotStarted(attempt=program.attempt, step=program.step, reason=reason))
            case keeper.Over(status=status):
                program.exit_status = status
                program.close_gate()
                program.ended_at = _now()
                self._draining[program] = None
                for stream in program.streams:
                    self._read_rest(program, stream)
                self._end_drains(program.ended_at)

    def _read(self, program: Program, stream: Stream) -> None:
        if (
            not stream.is_open
        ):  # closed by what was handled before, of the same look: its number may be another's by now
            return
        try:
            data = os.read(stream.reader, READ_BYTES)
        except BlockingIOError:
            return
        if data:
            stream.spool.write(data)
            self._wrote[program] = None
        else:
            self._close_stream(stream)

    def _read_rest(self, program: Program, stream: Stream) -> None:
        """What is in the pipe of a program of which nothing lives: at most what a pipe holds."""
        for _ in range(32):
            if stream.is_open:
                self._read(program, stream)

    def _close_stream(self, stream: Stream) -> None:
        if stream.is_open:
            stream.is_open = False
            with suppress(KeyError):
                self._selector.unregister(stream.reader)
            os.close(stream.reader)
            with suppress(OSError):  # what could not be written is missing from the output, and nothing else
                stream.spool.close()

    def _end_drains(self, now: float) -> None:
        for program in list(self._draining):
            is_late = program.ended_at is not None and now - program.ended_at > PIPE_PATIENCE_SECONDS
            if not is_late and any(stream.is_open for stream in program.streams):
                continue
            for stream in program.streams:
                self._close_stream(stream)
            del self._draining[program]
            self._wrote.pop(program, None)
            program.is_over = True
            self._connections.tell(Changed(attempt=program.attempt, program=program.state))
            if self._attempts[program.attempt].is_forgotten:
                self._forget(program.attempt)

    def _stop_programs(self, attempt: Attempt, grace_seconds: float) -> None:
        for program in attempt.running:
            program.close_gate()
            if program.keeper is not None:
                program.keeper.stop(attempt.asked.stop_signal, grace_seconds)

    def _forget(self, number: int) -> None:
        attempt = self._attempts.get(number)
        if attempt is None:
            return
        attempt.is_forgotten = True
        if attempt.running:  # nobody asks for it, and it is not to go on
            self._stop_programs(attempt, attempt.asked.timeout_grace_seconds)
            return
        for program in attempt.programs.values():
            for stream in program.streams:
                stream.spool.remove()
        del self._attempts[number]

    def _squeeze(self) -> None:
        for attempt in self._attempts.values():
            for program in attempt.running:
                for stream in program.streams:
                    stream.spool.squeeze()

    def _quit(self, grace_seconds: float) -> None:
        self._leaving = True
        for attempt in self._attempts.values():
            by_itself(self._stop_programs, attempt, grace_seconds)

    def _tell_what_was_written(self, now: float) -> None:
        if not self._wrote or now - self._wrote_told_at < WROTE_SECONDS:
            return
        if self._connections.is_behind:
            return  # whoever does not listen is told the newest when it does
        self._wrote_told_at = now
        for program in self._wrote:
            self._connections.tell(Changed(attempt=program.attempt, program=program.state))
        self._wrote.clear()

    def _watch(self, what: "socket.socket | int", call: Callable[[], None]) -> None:
        self._selector.register(what, selectors.EVENT_READ, call)


def _reading(read: Callable[[Program, Stream], None], program: Program, stream: Stream) -> Callable[[], None]:
    return lambda: read(program, stream)


def _inode(folder: Path) -> int | None:
    try:
        return os.stat(folder / "socket").st_ino  # noqa: PTH116
    except OSError:
        return None


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
