"""The attempts that run: each is a task of the event loop around one executor, with its deadline, output and end."""

import asyncio
import logging
from collections.abc import Callable, Iterable

import msgspec

from taskyard.agent import clock
from taskyard.agent.aside import standing_aside
from taskyard.agent.attempt import Attempt, Host
from taskyard.agent.errors import AttemptStoppedError, JournalError, SupervisorLostError
from taskyard.agent.executors import Completed, Outcome, PlanKept, Unsuccessful
from taskyard.agent.logs import fields
from taskyard.agent.output import OUTPUT_CLOSE_SECONDS, AttemptOutput
from taskyard.agent.process import end_marked
from taskyard.agent.stopping import GRACE_SECONDS, TIMED_OUT, StopRequest
from taskyard.agent.supervisor.protocol import AttemptState, Open
from taskyard.contracts.agent_protocol import (
    MESSAGE_CHARACTERS_MAX,
    AnyReport,
    Assignment,
    Failed,
    Lost,
    Planned,
    Succeeded,
)
from taskyard.contracts.events import TaskError
from taskyard.contracts.values import Position, is_uuid7

_log = logging.getLogger(__name__)


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
            try:
                self._add(assignment, None)
            except Exception:  # noqa: BLE001 (one of them must not keep the others from running)
                _log.exception("an attempt could not begin", extra=_fields(assignment))
                self._end(assignment, _report(assignment, _agent_error()))

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
            with standing_aside("a stop", **_of(attempt.assignment)):
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
        try:
            await self._run_to_end(attempt)
        except JournalError:
            raise
        except Exception:  # noqa: BLE001 (whatever is wrong over one attempt must not end the others)
            _log.exception("an attempt could not be run to its end", extra=_fields(attempt.assignment))
            await self._give_up(attempt)

    async def _give_up(self, attempt: Attempt) -> None:
        """End what runs of it, and tell that it is lost. Where even that raises, its slot stays taken, which can be seen."""
        assignment, host = attempt.assignment, self._host
        with standing_aside("the end of an attempt", **_of(assignment)):
            host.supervised.forget(assignment.position)
            await end_marked(host.directory, assignment.task)
            message = "the worker could not run it to its end; see its log"
            self._end(
                assignment, Lost(task=assignment.task, attempt=assignment.attempt, at=clock.now(), message=message)
            )
            await host.journal.sync()
        self._gone(assignment.position)

    async def _run_to_end(self, attempt: Attempt) -> None:
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
        self._end(assignment, report)
        await host.journal.sync()
        host.supervised.forget(assignment.position)
        self._gone(assignment.position)
        error = report.error.code if isinstance(report, Failed) else None
        if host.tracing is not None:
            with standing_aside("a trace", **_of(assignment)):
                host.tracing.ran(assignment, began, clock.now(), error)
        _log.info("an attempt ended", extra=_fields(assignment, outcome=type(report).__name__, error=error))

    def _end(self, assignment: Assignment, report: AnyReport) -> None:
        """Remember and tell how it ended, once the journal is on disk."""
        self._host.memory.ended(assignment.position, report)
        self._host.journal.write_memory(self._host.memory.take_changes())
        self._host.outbox.add([report])

    def _gone(self, position: Position) -> None:
        self._running.pop(position, None)
        if not self._running:
            self._idle.set()

    async def _open(self, assignment: Assignment) -> None:
        executor = self._host.executors[assignment.kind]
        asked = Open(
            attempt=assignment.position,
            note=msgspec.json.encode(assignment),
            seconds_left=assignment.timeout_seconds,
            stop_signal=executor.stop_signal,
            timeout_grace_seconds=GRACE_SECONDS,
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
            run = self._host.executors[assignment.kind].run(assignment, attempt)
            return await attempt.within_its_time(run)
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
            return _agent_error()


async def _finish(output: AttemptOutput, pump: "asyncio.Task[None]") -> None:
    output.close()
    done, _ = await asyncio.wait([pump], timeout=OUTPUT_CLOSE_SECONDS)
    if not done:
        _log.warning("the rest of an output was dropped: it could not be stored in time")
    elif (error := pump.exception()) is not None:
        _log.error("the rest of an output was dropped", exc_info=error)


def _report(assignment: Assignment, outcome: Outcome) -> AnyReport:
    task, attempt, at = assignment.task, assignment.attempt, clock.now()
    match outcome:
        case Completed(result=result):
            return Succeeded(task=task, attempt=attempt, at=at, result=result)
        case PlanKept(changes=changes):
            return Planned(task=task, attempt=attempt, at=at, changes=changes)
        case Unsuccessful(error=error, result=result):
            # What a host says may hold what is no text (the name of a file), and could not be written down.
            words = error.message[:MESSAGE_CHARACTERS_MAX].encode(errors="replace").decode()
            error = msgspec.structs.replace(error, message=words)
            return Failed(task=task, attempt=attempt, at=at, error=error, result=result)


def _agent_error() -> Unsuccessful:
    return _unsuccessful("agent_error", "the executor failed; see the log of the worker", retryable=False)


def _unsuccessful(code: str, message: str, *, retryable: bool) -> Unsuccessful:
    return Unsuccessful(error=TaskError(code=code, message=message, retryable=retryable))


def _of(assignment: Assignment) -> dict[str, object]:
    return {"task": assignment.task, "attempt": assignment.attempt, "slot": assignment.slot, "kind": assignment.kind}


def _fields(assignment: Assignment, **more: object) -> dict[str, object]:
    return fields(**_of(assignment), **more)
