"""The attempts that run: each is a task of the event loop around one executor, with its deadline, output and end."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from taskyard.agent import clock
from taskyard.agent.errors import AttemptStoppedError, JournalError, SupervisorLostError
from taskyard.agent.executors import Completed, Executor, Outcome, PlanKept, Tap, Unsuccessful
from taskyard.agent.journal import Journal
from taskyard.agent.logs import fields
from taskyard.agent.outbox import Outbox
from taskyard.agent.output import OUTPUT_CLOSE_SECONDS, AttemptOutput, Sender
from taskyard.agent.process import (
    ENV_ATTEMPT,
    ENV_DIRECTORY,
    ENV_TASK,
    ENV_WORKER,
    check_found,
    end_marked,
    identity_of,
)
from taskyard.agent.progress import ProgressTold
from taskyard.agent.slots import SlotMemory
from taskyard.agent.stopping import TIMED_OUT, TIMEOUT_GRACE_SECONDS, StopRequest
from taskyard.agent.supervised import Program, Supervised
from taskyard.agent.supervisor.protocol import STREAMS, AttemptState, Open, Room
from taskyard.agent.tracing import Tracing
from taskyard.contracts.agent_protocol import (
    MESSAGE_CHARACTERS_MAX,
    PROGRESS_SECONDS_MIN,
    AnyReport,
    Assignment,
    Failed,
    Lost,
    Planned,
    Progressed,
    Started,
    Succeeded,
)
from taskyard.contracts.events import TaskError
from taskyard.contracts.values import Position, is_uuid7

TAP_BYTES = 65536

_log = logging.getLogger(__name__)


class Attempt:
    """One attempt while it runs: the context of its executor. `left` is what an earlier run of the agent has of it."""

    def __init__(self, assignment: Assignment, host: "Host", left: AttemptState | None) -> None:
        self.assignment = assignment
        self.stop_request: StopRequest | None = None
        self.is_resumed = left is not None
        self.is_lost = False
        self._host = host
        self._stopped = asyncio.Event()
        self._has_started = self.is_resumed and host.memory.has_begun(assignment.position)
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
            program = await host.supervised.start(
                position, step, argv, cwd=cwd, env={**env, **self._marks()}, rooms=rooms
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
        if not self._has_started:
            self._has_started = True
            host.memory.began(one.position)
            host.outbox.add([Started(task=one.task, attempt=one.attempt, at=clock.now())])
        host.journal.write_memory(host.memory.take_changes())
        await host.journal.sync()
        host.supervised.go(program)

    def _marks(self) -> dict[str, str]:
        return {
            ENV_TASK: self.assignment.task,
            ENV_ATTEMPT: str(self.assignment.attempt),
            ENV_WORKER: self._host.name,
            ENV_DIRECTORY: str(self._host.directory.resolve()),
        }

    def _note_stop(self, request: StopRequest) -> None:
        self.stop_request = request
        self._stopped.set()

    def _raise_if_stopped(self) -> None:
        if self.is_lost:
            raise SupervisorLostError
        if self.stop_request is not None:
            raise AttemptStoppedError(self.stop_request)


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
    tracing: Tracing | None


class Attempts:
    """All running attempts. `group` is where their tasks live."""

    def __init__(self, *, group: asyncio.TaskGroup, host: Host) -> None:
        self._group = group
        self._host = host
        self._running: dict[Position, Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        host.supervised.on_timeout = lambda position: self.stop(position, TIMED_OUT)
        host.supervised.on_lost = self._lose

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, assignments: Iterable[Assignment]) -> None:
        """Run accepted attempts, as soon as what the journal was given is on disk. They can be stopped from now on."""
        for assignment in assignments:
            self._add(assignment, None)

    def resume(self, left: AttemptState) -> None:
        """Go on with an attempt that an earlier run of the agent began."""
        self._host.supervised.adopt(Position(left.attempt))
        self._add(msgspec.json.decode(left.note, type=Assignment), left)

    def let_go(self) -> None:
        """The agent goes, and what runs goes on: the next agent takes it over."""
        for task in self._tasks:
            task.cancel()

    def stop(self, position: Position, request: StopRequest) -> None:
        """Stop one attempt, if it runs."""
        if (attempt := self._running.get(position)) is not None:
            _log.info("stopping an attempt", extra=_fields(attempt.assignment, reason=request.message))
            attempt.stop(request)

    def stop_where(self, condition: Callable[[Assignment], bool], request: Callable[[Assignment], StopRequest]) -> None:
        """Stop all attempts that fulfil the condition."""
        for position, attempt in list(self._running.items()):
            if attempt.stop_request is None and condition(attempt.assignment):
                self.stop(position, request(attempt.assignment))

    def force_where(
        self, condition: Callable[[Assignment], bool], request: Callable[[Assignment], StopRequest]
    ) -> None:
        """Stop all attempts that fulfil the condition, with a warning for each."""
        for attempt in self._running.values():
            if attempt.stop_request is None and condition(attempt.assignment):
                _log.warning("stops a task that did not end in time", extra=_fields(attempt.assignment))
        self.stop_where(condition, request)

    def any_applies(self) -> bool:
        """Whether an apply runs."""
        return any(attempt.assignment.apply for attempt in self._running.values())

    async def idle(self, *, timeout_seconds: float | None) -> bool:
        """Wait until nothing runs (`None`: however long their ends take); False if that took too long."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _add(self, assignment: Assignment, left: AttemptState | None) -> None:
        attempt = Attempt(assignment, self._host, left)
        self._running[assignment.position] = attempt
        self._idle.clear()
        task = self._group.create_task(self._run(attempt), name=f"attempt {assignment.task}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _lose(self, position: Position) -> None:
        if (attempt := self._running.get(position)) is not None:
            _log.error("the supervisor of an attempt is gone", extra=_fields(attempt.assignment))
            attempt.lose()

    async def _run(self, attempt: Attempt) -> None:
        assignment, host, output = attempt.assignment, self._host, attempt.output
        await host.journal.sync()
        if not attempt.is_resumed:
            await self._open(assignment)
            if attempt.stop_request is not None:  # before the supervisor knew of it
                reason = msgspec.msgpack.encode(attempt.stop_request)
                host.supervised.stop(assignment.position, attempt.stop_request.grace_seconds, reason)
        pump = asyncio.create_task(output.run())
        began = clock.now()
        _log.info("an attempt began", extra=_fields(assignment))
        try:
            report = await self._execute(attempt)
            await _finish(output, pump)
        finally:
            pump.cancel()
            attempt.end_progress()
        self._host.memory.ended(assignment.position, report)
        self._host.journal.write_memory(self._host.memory.take_changes())
        self._host.outbox.add([report])
        await self._host.journal.sync()
        host.supervised.forget(assignment.position)
        del self._running[assignment.position]
        if not self._running:
            self._idle.set()
        error = report.error.code if isinstance(report, Failed) else None
        if self._host.tracing is not None:
            self._host.tracing.ran(assignment, began, clock.now(), error)
        _log.info("an attempt ended", extra=_fields(assignment, outcome=type(report).__name__, error=error))

    async def _open(self, assignment: Assignment) -> None:
        executor = self._host.executors[assignment.kind]
        asked = Open(
            attempt=assignment.position,
            note=msgspec.json.encode(assignment),
            seconds_left=assignment.timeout_seconds,
            stop_signal=executor.stop_signal,
            timeout_grace_seconds=TIMEOUT_GRACE_SECONDS,
        )
        await self._host.supervised.open(assignment.position, asked)

    async def _execute(self, attempt: Attempt) -> AnyReport:
        """Run it to its end; what is reported is true when this returns."""
        assignment = attempt.assignment
        outcome = await self._outcome(attempt)
        if outcome is None:
            await end_marked(self._host.directory, assignment.task)
            self._host.executors[assignment.kind].forget(assignment.task)
            message = "the supervisor of the worker was ended, and with it what it ran"
            return Lost(task=assignment.task, attempt=assignment.attempt, at=clock.now(), message=message)
        return _report(assignment, outcome)

    async def _outcome(self, attempt: Attempt) -> Outcome | None:
        """How it ended; None: it is lost."""
        assignment = attempt.assignment
        try:
            if not is_uuid7(assignment.task):  # it becomes a subject and a path
                return _unsuccessful("invalid_input", "the id of the task is not a UUIDv7", retryable=False)
            return await self._host.executors[assignment.kind].run(assignment, attempt)
        except SupervisorLostError:
            return None
        except AttemptStoppedError as stopped:
            request = stopped.request
            return _unsuccessful(request.code, request.message, retryable=request.retryable)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            return _unsuccessful("invalid_input", str(error), retryable=False)
        except JournalError:
            raise
        except OSError as error:
            return _unsuccessful("host_error", str(error), retryable=True)
        except Exception:  # noqa: BLE001 (a fault of one executor must not end the other attempts)
            _log.exception("an executor failed", extra=_fields(assignment))
            return _unsuccessful("agent_error", "the executor failed; see the log of the worker", retryable=False)


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


async def _finish(output: AttemptOutput, pump: "asyncio.Task[None]") -> None:
    output.close()
    done, _ = await asyncio.wait([pump], timeout=OUTPUT_CLOSE_SECONDS)
    if not done:
        _log.warning("the rest of an output was dropped: it could not be stored in time")


def _report(assignment: Assignment, outcome: Outcome) -> AnyReport:
    task, attempt, at = assignment.task, assignment.attempt, clock.now()
    match outcome:
        case Completed(result=result):
            return Succeeded(task=task, attempt=attempt, at=at, result=result)
        case PlanKept(changes=changes):
            return Planned(task=task, attempt=attempt, at=at, changes=changes)
        case Unsuccessful(error=error, result=result):
            return Failed(task=task, attempt=attempt, at=at, error=error, result=result)


def _unsuccessful(code: str, message: str, *, retryable: bool) -> Unsuccessful:
    return Unsuccessful(error=TaskError(code=code, message=message[:MESSAGE_CHARACTERS_MAX], retryable=retryable))


def _fields(assignment: Assignment, **more: object) -> dict[str, object]:
    return fields(task=assignment.task, attempt=assignment.attempt, slot=assignment.slot, kind=assignment.kind, **more)
