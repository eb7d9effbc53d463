"""One attempt while it runs: what its executor may do."""

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from taskyard.agent import clock
from taskyard.agent.errors import AttemptStoppedError, SupervisorLostError
from taskyard.agent.executors import Completed, Executor, Outcome, Tap
from taskyard.agent.journal import Journal
from taskyard.agent.outbox import Outbox
from taskyard.agent.output import AttemptOutput, Sender
from taskyard.agent.process import (
    ENV_ATTEMPT,
    ENV_DIRECTORY,
    ENV_STOP_SIGNAL,
    ENV_TASK,
    ENV_WORKER,
    check_found,
    identity_of,
)
from taskyard.agent.programs import Program
from taskyard.agent.progress import ProgressTold
from taskyard.agent.slots import SlotMemory
from taskyard.agent.stopping import TIMED_OUT, StopRequest
from taskyard.agent.supervised import Supervised
from taskyard.agent.supervisor.protocol import STREAMS, AttemptState, Room
from taskyard.agent.task_users import TaskUsers
from taskyard.agent.tracing import Tracing
from taskyard.contracts.agent_protocol import (
    MESSAGE_CHARACTERS_MAX,
    PROGRESS_SECONDS_MIN,
    Assignment,
    Progressed,
    Started,
)

TAP_BYTES = 65536
STARTED_AFTER_SECONDS = 0.25
"""An executor that works for so long without a program of its own has started."""
CLEAN_UP_SECONDS = 5.0
"""What an executor may still do once its program was stopped; so long it has to come back to one of an earlier run."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """What attempts of one agent share."""

    name: str
    directory: Path
    output_bytes_max: int
    memory: SlotMemory
    journal: Journal
    outbox: Outbox
    sender: Sender
    supervised: Supervised
    executors: Mapping[str, Executor]
    users: TaskUsers
    tracing: Tracing | None


class Attempt:
    """One attempt while it runs: the context of its executor. `left` is what an earlier run of the agent has of it."""

    def __init__(self, assignment: Assignment, host: Host, left: AttemptState | None) -> None:
        self.assignment = assignment
        self.stop_request: StopRequest | None = None
        self.is_resumed = left is not None
        self.is_lost = False
        self.user = host.users.of_slot(assignment.slot)
        self._host = host
        self._stopped = asyncio.Event()
        self._has_started = self.is_resumed and host.memory.has_begun(assignment.position)
        self._programs_running = 0
        self._has_programs = left is not None and bool(left.programs)
        self._bound: asyncio.Timeout | None = None
        self._progress = ProgressTold(self._send_progress, seconds_min=PROGRESS_SECONDS_MIN)
        self.output = AttemptOutput(
            agent=host.name,
            assignment=assignment,
            sender=host.sender,
            tell=lambda sent: host.supervised.about_to_send(assignment.position, sent),
            sent=left.sent if left is not None else b"",
        )
        if left is not None and left.stopped is not None:
            self._note_stop(msgspec.msgpack.decode(left.stopped, type=StopRequest))
        elif left is not None and left.timed_out:
            self._note_stop(TIMED_OUT)

    def stop(self, request: StopRequest) -> None:
        """Stop it. The first reason counts; a shorter grace of a later one does not."""
        if self.stop_request is None:
            self._note_stop(request)
            reason = msgspec.msgpack.encode(request)
            self._host.supervised.stop(self.assignment.position, request.grace_seconds, reason)

    def lose(self) -> None:
        """The supervisor is gone, and with it what the attempt has run."""
        self.is_lost = True
        self._stopped.set()
        self._cancel_if_idle()

    async def within_its_time(self, run: Awaitable[Outcome]) -> Outcome:
        """What the executor comes to. It has started when its first program runs, or when it has worked without one for a
        moment; where it is to stop and no program of it runs, it is cancelled.

        Raises:
            AttemptStoppedError, SupervisorLostError: it was stopped, or lost.
        """
        starts = asyncio.get_running_loop().call_later(STARTED_AFTER_SECONDS, self._start_without_program)
        try:
            async with asyncio.timeout(None) as self._bound:
                self._cancel_if_idle()
                outcome = await run
        except TimeoutError:
            if self._bound is not None and self._bound.expired():
                self._raise_if_stopped()
            raise
        finally:
            self._bound = None
            starts.cancel()
        if isinstance(outcome, Completed):
            self._tell_started()
        return outcome

    async def run(
        self,
        argv: Sequence[str],
        *,
        step: str,
        cwd: Path,
        env: Mapping[str, str],
        tap: Tap | None = None,
        hidden_bytes_max: int | None = None,
    ) -> int:
        """See `Context.run`."""
        host, position = self._host, self.assignment.position
        half = host.output_bytes_max // 2
        stream = Room(half, host.output_bytes_max - half)
        rooms = (stream if hidden_bytes_max is None else Room(hidden_bytes_max, 0), stream)
        program = host.supervised.program(position, step, rooms)
        if program is None:
            self._raise_if_stopped()
            check_found(argv[0], cwd, env)
        with self._running_a_program():
            if program is None:
                program = await host.supervised.start(
                    position, step, argv, cwd=cwd, env={**env, **self._marks()}, rooms=rooms, user=self.user
                )
            if hidden_bytes_max is None:
                self.output.show(program)
            await self._begin(program)
            status = await _hear(program, tap)
        self._raise_if_stopped()
        return status

    async def pause(self, duration_seconds: float) -> None:
        """See `Context.pause`."""
        try:
            async with asyncio.timeout(duration_seconds):
                await self._stopped.wait()
        except TimeoutError:
            return
        self._raise_if_stopped()

    def progress(self, percent: int, message: str) -> None:
        """See `Context.progress`."""
        self._progress.tell(percent, message)

    def end_progress(self) -> None:
        """Its end is reported next: what was not told yet is told before."""
        self._progress.end()

    def _send_progress(self, percent: int, message: str) -> None:
        one = self.assignment
        text = message[:MESSAGE_CHARACTERS_MAX]
        self._host.outbox.add(
            [Progressed(task=one.task, attempt=one.attempt, at=clock.now(), progress=percent, message=text)]
        )

    async def _begin(self, program: Program) -> None:
        """Let a program run, once its process id is on disk."""
        state = await program.made()
        if state.has_begun or state.status is not None:
            return
        host, one = self._host, self.assignment
        host.memory.spawned(one.position, identity_of(state.pid, state.start_ticks))
        self._tell_started()
        host.journal.write_memory(host.memory.take_changes())
        await host.journal.sync()
        host.supervised.go(program)

    def _start_without_program(self) -> None:
        self._tell_started()
        self._host.journal.write_memory(self._host.memory.take_changes())

    def _tell_started(self) -> None:
        """Whoever calls this has the memory written next."""
        if not self._has_started:
            self._has_started = True
            host, one = self._host, self.assignment
            host.memory.began(one.position)
            host.outbox.add([Started(task=one.task, attempt=one.attempt, at=clock.now())])

    def _marks(self) -> dict[str, str]:
        return {
            ENV_TASK: self.assignment.task,
            ENV_ATTEMPT: str(self.assignment.attempt),
            ENV_WORKER: self._host.name,
            ENV_DIRECTORY: str(self._host.directory.resolve()),
            ENV_STOP_SIGNAL: str(int(self._host.executors[self.assignment.kind].stop_signal)),
        }

    def _note_stop(self, request: StopRequest) -> None:
        self.stop_request = request
        self._stopped.set()
        self._cancel_if_idle()

    @contextmanager
    def _running_a_program(self) -> Iterator[None]:
        self._programs_running += 1
        self._has_programs = True
        self._bound_after(None)
        try:
            yield
        finally:
            self._programs_running -= 1
            self._cancel_if_idle()

    def _cancel_if_idle(self) -> None:
        """The end of a program tells its executor that the attempt is stopped; where none runs, this does."""
        if self._stopped.is_set() and not self._programs_running:
            self._bound_after(CLEAN_UP_SECONDS if self._has_programs else 0.0)

    def _bound_after(self, seconds: float | None) -> None:
        if self._bound is not None and not self._bound.expired():
            self._bound.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)

    def _raise_if_stopped(self) -> None:
        if self.is_lost:
            raise SupervisorLostError
        if self.stop_request is not None:
            raise AttemptStoppedError(self.stop_request)


async def _hear(program: Program, tap: Tap | None) -> int:
    """Give the tap what a program says, until it has ended. Returns its exit status."""
    readers = [(stream, program.reader(stream)) for stream in STREAMS] if tap is not None else []
    try:
        while True:
            status = program.state.status
            for stream, reader in readers:
                while piece := reader.next(TAP_BYTES):
                    reader.moved(piece)
                    if tap is not None and isinstance(piece, bytes):
                        tap(stream, piece)
            if status is not None:
                return status
            await program.changed()
    finally:
        for _, reader in readers:
            reader.close()
