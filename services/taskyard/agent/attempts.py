"""The attempts that run: each is a task of the event loop around one executor, with its deadline, output and end."""

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from taskyard.agent import clock
from taskyard.agent.errors import AttemptStoppedError, JournalError
from taskyard.agent.executors import Completed, Executor, Outcome, PlanKept, Tap, Unsuccessful
from taskyard.agent.journal import Journal
from taskyard.agent.logs import fields
from taskyard.agent.outbox import Outbox
from taskyard.agent.output import OUTPUT_CLOSE_SECONDS, AttemptOutput
from taskyard.agent.process import ENV_ATTEMPT, ENV_TASK, LEFTOVER_GRACE_SECONDS, Program, spawn, stop_group
from taskyard.agent.progress import ProgressTold
from taskyard.agent.slots import SlotMemory
from taskyard.agent.stopping import TIMED_OUT, StopRequest
from taskyard.agent.tracing import Tracing
from taskyard.contracts.agent_protocol import (
    MESSAGE_CHARACTERS_MAX,
    PROGRESS_SECONDS_MIN,
    AnyReport,
    Assignment,
    Failed,
    Planned,
    Progressed,
    Started,
    Succeeded,
)
from taskyard.contracts.events import TaskError
from taskyard.contracts.values import Position, TaskId, is_uuid7

_log = logging.getLogger(__name__)


class Attempt:
    """One attempt while it runs: the context of its executor."""

    def __init__(
        self, assignment: Assignment, *, memory: SlotMemory, journal: Journal, outbox: Outbox, output: AttemptOutput
    ) -> None:
        self.assignment = assignment
        self.stop_request: StopRequest | None = None
        self._stopped = asyncio.Event()
        self._memory = memory
        self._journal = journal
        self._outbox = outbox
        self._output = output
        self._has_started = False
        self._progress = ProgressTold(self._send_progress, seconds_min=PROGRESS_SECONDS_MIN)

    def stop(self, request: StopRequest) -> None:
        """Stop it. The first reason counts; a shorter grace of a later one does not."""
        if self.stop_request is None:
            self.stop_request = request
            self._stopped.set()

    async def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        tap: Tap | None = None,
        is_shown: bool = True,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> int:
        """See `Context.run`."""
        self._raise_if_stopped()

        def take(stream: str, data: bytes) -> None:
            if is_shown:
                self._output.write(stream, data)
            if tap is not None:
                tap(stream, data)

        marked = {**env, ENV_TASK: self.assignment.task, ENV_ATTEMPT: str(self.assignment.attempt)}
        program = await spawn(argv, cwd=cwd, env=marked, take_output=take)
        self._output.hold_by(program.set_flow)
        try:
            return await self._supervise(program, stop_signal)
        except BaseException as error:
            if not isinstance(error, AttemptStoppedError):
                program.kill_now()  # the agent is falling; nobody would wait for the group
            raise
        finally:
            self._output.hold_by(None)

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
        self._outbox.add(
            [Progressed(task=one.task, attempt=one.attempt, at=clock.now(), progress=percent, message=text)]
        )

    async def _supervise(self, program: Program, stop_signal: signal.Signals) -> int:
        position, pid = self.assignment.position, program.identity.pid
        self._memory.spawned(position, program.identity)
        if not self._has_started:
            self._has_started = True
            self._memory.began(position)
            one = self.assignment
            self._outbox.add([Started(task=one.task, attempt=one.attempt, at=clock.now())])
        self._journal.write_memory(self._memory.take_changes())
        await self._journal.sync()
        if self.stop_request is None:
            program.open_gate()
            await self._until_exit_or_stop(program)
        if (request := self.stop_request) is not None:
            await stop_group(pid, first=stop_signal, grace_seconds=request.grace_seconds)
        else:
            await stop_group(pid, first=stop_signal, grace_seconds=LEFTOVER_GRACE_SECONDS)
        exit_code = await program.exited()
        await program.drain()
        if request is not None:
            raise AttemptStoppedError(request)
        return exit_code

    async def _until_exit_or_stop(self, program: Program) -> None:
        waits = [asyncio.create_task(program.exited()), asyncio.create_task(self._stopped.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    def _raise_if_stopped(self) -> None:
        if self.stop_request is not None:
            raise AttemptStoppedError(self.stop_request)


class Attempts:
    """All running attempts. `group` is where their tasks live."""

    def __init__(
        self,
        *,
        group: asyncio.TaskGroup,
        memory: SlotMemory,
        journal: Journal,
        outbox: Outbox,
        executors: Mapping[str, Executor],
        make_output: Callable[[TaskId, int], AttemptOutput],
        tracing: Tracing | None = None,
    ) -> None:
        self._group = group
        self._memory = memory
        self._journal = journal
        self._outbox = outbox
        self._executors = executors
        self._make_output = make_output
        self._tracing = tracing
        self._running: dict[Position, Attempt] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, assignments: Iterable[Assignment]) -> None:
        """Run accepted attempts, as soon as what the journal was given is on disk. They can be stopped from now on."""
        for assignment in assignments:
            output = self._make_output(assignment.task, assignment.attempt)
            attempt = Attempt(
                assignment, memory=self._memory, journal=self._journal, outbox=self._outbox, output=output
            )
            self._running[assignment.position] = attempt
            self._idle.clear()
            self._group.create_task(self._run(attempt, output), name=f"attempt {assignment.task}")

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

    async def _run(self, attempt: Attempt, output: AttemptOutput) -> None:
        assignment = attempt.assignment
        await self._journal.sync()
        pump = asyncio.create_task(output.run())
        timer = asyncio.get_running_loop().call_later(assignment.timeout_seconds, attempt.stop, TIMED_OUT)
        began = clock.now()
        _log.info("an attempt began", extra=_fields(assignment))
        try:
            report = _report(assignment, await self._execute(attempt))
            timer.cancel()
            await _finish(output, pump)
        finally:
            timer.cancel()
            pump.cancel()
            attempt.end_progress()
        self._memory.ended(assignment.position, report)
        self._journal.write_memory(self._memory.take_changes())
        self._outbox.add([report])
        await self._journal.sync()
        del self._running[assignment.position]
        if not self._running:
            self._idle.set()
        error = report.error.code if isinstance(report, Failed) else None
        if self._tracing is not None:
            self._tracing.ran(assignment, began, clock.now(), error)
        _log.info("an attempt ended", extra=_fields(assignment, outcome=type(report).__name__, error=error))

    async def _execute(self, attempt: Attempt) -> Outcome:
        assignment = attempt.assignment
        try:
            if not is_uuid7(assignment.task):  # it becomes a subject and a path
                return _unsuccessful("invalid_input", "the id of the task is not a UUIDv7", retryable=False)
            return await self._executors[assignment.kind].run(assignment, attempt)
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
