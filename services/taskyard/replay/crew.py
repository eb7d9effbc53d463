"""The workers of a replay: they take whatever they are given and need the time that it took when it was recorded."""

from collections.abc import Callable, Sequence
from functools import partial

from msgspec import Struct

from taskyard.contracts.agent_protocol import (
    AnyReport,
    Assignment,
    Failed,
    Heartbeat,
    Planned,
    Started,
    Succeeded,
)
from taskyard.contracts.events import AttemptFailed, AttemptSucceeded, Changes, TaskError, TaskPlanned
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.values import Instant, Position, TaskId
from taskyard.dispatcher.delivery import SendAssignments, SendCancels
from taskyard.replay.recorded import Outcome, RecordedTask, RecordedWorker, Run
from taskyard.replay.yard import INCARNATION, Yard
from taskyard.slot_allocator.liveness import HeartbeatSeen

Told = Callable[[TaskId, str], None]


class Job(Struct):
    """An attempt that runs; `is_over` once it was reported."""

    assignment: Assignment
    is_over: bool = False


class Crew:
    """All workers. `on_begin` is told of each start and plan of a task, as those who answer or stop it wait for that."""

    def __init__(self, tasks: dict[TaskId, RecordedTask], typical: dict[str, float]) -> None:
        self.estimated: set[TaskId] = set()
        self.yard: Yard
        self.on_begin: Told = lambda _task, _what: None
        self._tasks = tasks
        self._typical = typical
        self._runs_begun: dict[TaskId, int] = {}
        self._jobs: dict[Position, Job] = {}

    def join(self, worker: RecordedWorker) -> None:
        """A worker is there from now on, and until it leaves."""
        self._beat(worker, leaving=False)
        if worker.left is not None:
            self.yard.at(worker.left, lambda: self._beat(worker, leaving=True))

    def _beat(self, worker: RecordedWorker, *, leaving: bool) -> None:
        heartbeat = Heartbeat(
            incarnation=INCARNATION, pool=worker.pool, slots=worker.slots, kinds=worker.kinds, leaving=leaving
        )
        self.yard.hear(HeartbeatSeen(agent=worker.name, heartbeat=heartbeat))

    # -- work ----------------------------------------------------------------------------------------------------------

    def take(self, request: SendAssignments | SendCancels) -> None:
        """A worker is sent something: it accepts."""
        if isinstance(request, SendCancels):
            self.yard.answer(request, [cancel.position for cancel in request.cancels])
            for cancel in request.cancels:
                error = TaskError(code=cancel.cause, message=f"stopped: {cancel.cause}")
                self._end(request.agent, cancel.position, partial(_failed, error=error))
            return
        self.yard.answer(request, [assignment.position for assignment in request.assignments])
        for assignment in request.assignments:
            self._begin(request.agent, assignment)

    def _begin(self, agent: str, assignment: Assignment) -> None:
        task = self._tasks[assignment.task]
        run = self._next_run(task)
        job = self._jobs[assignment.position] = Job(assignment)

        def start() -> None:
            if job.is_over:
                return
            if run.has_started:
                self.yard.report(agent, Started(task=task.id, attempt=assignment.attempt, at=self.yard.now))
                self.on_begin(task.id, "start")
            self._run(agent, assignment, run)

        self.yard.later(run.start_seconds, start)

    def _run(self, agent: str, assignment: Assignment, run: Run) -> None:
        limit = assignment.timeout_seconds
        if run.outcome is None or run.run_seconds >= limit:  # it would go on until it is stopped, or out of time
            out_of_time = TaskError(code="timeout", message="execution timeout")
            self.yard.later(limit, lambda: self._end(agent, assignment.position, partial(_failed, error=out_of_time)))
        else:
            report = partial(_outcome, outcome=run.outcome)
            self.yard.later(run.run_seconds, lambda: self._end(agent, assignment.position, report))

    def _end(self, agent: str, position: Position, report: Callable[[Assignment, Instant], AnyReport]) -> None:
        job = self._jobs.get(position)
        if job is None or job.is_over:
            return
        job.is_over = True
        del self._jobs[position]
        told = report(job.assignment, self.yard.now)
        self.yard.report(agent, told)
        if isinstance(told, Planned):
            self.on_begin(told.task, "plan")

    def _next_run(self, task: RecordedTask) -> Run:
        """The next recorded run of a task; where history knows none, one of the usual length for its kind."""
        number = self._runs_begun.get(task.id, 0)
        self._runs_begun[task.id] = number + 1
        runs: Sequence[Run] = task.runs
        if number < len(runs) and not runs[number].is_cut:
            return runs[number]
        self.estimated.add(task.id)
        known = runs[number].run_seconds if number < len(runs) else 0.0
        outcome = _usual(task, number)
        return Run(start_seconds=0.0, run_seconds=max(known, self._typical.get(task.kind, 0.0)), outcome=outcome)


def _usual(task: RecordedTask, number: int) -> Outcome:
    """What a run that nobody recorded is taken to come to: a plan where there was none, else success."""
    has_plan = any(isinstance(run.outcome, TaskPlanned) for run in task.runs[:number])
    if task.kind in KINDS and KINDS[task.kind].approval and not has_plan:
        return TaskPlanned(task=task.id, attempt=1, changes=Changes())
    return AttemptSucceeded(task=task.id, attempt=1)


def _outcome(one: Assignment, at: Instant, outcome: object) -> AnyReport:
    task, attempt = TaskId(one.task), one.attempt
    match outcome:
        case TaskPlanned() if not one.apply:
            return Planned(task=task, attempt=attempt, at=at, changes=outcome.changes)
        case AttemptFailed():
            return Failed(task=task, attempt=attempt, at=at, error=outcome.error)
        case _:
            return Succeeded(task=task, attempt=attempt, at=at)


def _failed(one: Assignment, at: Instant, error: TaskError) -> Failed:
    return Failed(task=TaskId(one.task), attempt=one.attempt, at=at, error=error)
