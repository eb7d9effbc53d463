"""The attempts that a simulated agent runs: each is a process with its time, its outcome and its end."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from taskyard.agent.slots import ProcessIdentity, SlotMemory
from taskyard.agent.stopping import TIMED_OUT, StopRequest
from taskyard.contracts.agent_protocol import AnyReport, Assignment, Failed, Planned, Progressed, Started, Succeeded
from taskyard.contracts.events import Changes, TaskError
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.lifecycle import PLAN_MISSING
from taskyard.contracts.values import Instant, Position, TaskId
from taskyard.judge.evidence import Ran
from taskyard.simulation.host import Disk, Witness
from taskyard.simulation.journal import Journal
from taskyard.simulation.time import Process

STOP_SECONDS_MAX = 1.5
RUN_SECONDS = (0.01, 0.1, 0.5, 1.0, 2.0, 4.0, 12.0)
FAILS, FAILS_RETRYABLY = 0.15, 0.08
"""Shares of attempts that end badly, and of those among them that may be tried again."""


@dataclass(kw_only=True)
class _Attempt:
    assignment: Assignment
    stop: StopRequest | None = None
    run: Ran | None = None


class Attempts:
    """What runs in one life of an agent on a host. `slowness` stretches how long everything takes."""

    def __init__(
        self,
        agent: Process,
        host: str,
        disk: Disk,
        memory: SlotMemory,
        journal: Journal,
        *,
        witness: Witness,
        slowness: float,
    ) -> None:
        self._agent = agent
        self._host = host
        self._disk = disk
        self._memory = memory
        self._journal = journal
        self._witness = witness
        self._slowness = slowness
        self._running: dict[Position, _Attempt] = {}

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, assignments: list[Assignment]) -> None:
        """Run accepted attempts once they are durable. They can be stopped from now on."""
        for one in assignments:
            attempt = _Attempt(assignment=one)
            self._running[one.position] = attempt
            self._journal.sync(lambda attempt=attempt: self._spawn(attempt))

    def complete_at_once(self, one: Assignment) -> bool:
        """Complete what takes no time and no process."""
        if one.kind != "noop":
            return False
        now = self._agent.wall
        end = Succeeded(task=one.task, attempt=one.attempt, at=now)
        self._memory.ended(one.position, end)
        self._journal.report((Started(task=one.task, attempt=one.attempt, at=now), end))
        # Before it is durable nobody hears of it, and a crash undoes it.
        self._journal.sync(lambda: self._witness.ends(self._witness.begins(self._ran(one))))
        return True

    def stop(self, position: Position, request: StopRequest) -> None:
        """Stop one attempt, if it runs: it ends a while later."""
        attempt = self._running.get(position)
        if attempt is None or attempt.stop is not None:
            return
        attempt.stop = request
        run = attempt.run
        if run is None:
            return  # it will not begin

        def killed() -> None:
            if run.ended is None:
                self._witness.ends(run)
                self._agent.later(0.0, lambda: self._exited(attempt, 0.0))

        self._agent.later(self._agent.random.uniform(0.0, STOP_SECONDS_MAX), killed)

    def stop_where(self, condition: Callable[[Assignment], bool], request: Callable[[Assignment], StopRequest]) -> None:
        """Stop all attempts that fulfil the condition."""
        for position, attempt in list(self._running.items()):
            if condition(attempt.assignment):
                self.stop(position, request(attempt.assignment))

    def _spawn(self, attempt: _Attempt) -> None:
        """Make the process; its program runs only when it is written down."""
        one, now = attempt.assignment, self._agent.wall
        if attempt.stop is not None:
            self._ended(attempt, _stopped(one, attempt.stop, now))
            return
        if one.apply and (one.task, one.plan_attempt or 0) not in self._disk.plans:
            error = TaskError(code=PLAN_MISSING, message="the plan is not on this worker")
            self._ended(attempt, _failed(one, error, now))
            return
        self._memory.spawned(one.position, ProcessIdentity(pid=one.position, start_ticks=1, boot="simulated"))
        self._memory.began(one.position)
        self._journal.report((Started(task=one.task, attempt=one.attempt, at=now),))
        self._journal.write(self._memory.take_changes())
        self._journal.sync(lambda: self._open_gate(attempt))

    def _open_gate(self, attempt: _Attempt) -> None:
        one, agent = attempt.assignment, self._agent
        if attempt.stop is not None:
            self._ended(attempt, _stopped(one, attempt.stop, agent.wall))
            return
        attempt.run = run = self._witness.begins(self._ran(one))
        if not one.apply:
            self._disk.forget_plans(one.task)
        takes = agent.random.choice(RUN_SECONDS) * agent.random.uniform(0.5, 1.5) * self._slowness
        outcome = agent.random.random()
        agent.later(takes / 2, lambda: self._progress(attempt))
        agent.later(one.timeout_seconds, lambda: self.stop(one.position, TIMED_OUT))

        def exited() -> None:
            if run.ended is None:
                self._witness.ends(run)
                agent.later(0.0, lambda: self._exited(attempt, outcome))

        agent.world.later(takes, exited)

    def _exited(self, attempt: _Attempt, outcome: float) -> None:
        one, now = attempt.assignment, self._agent.wall
        if attempt.stop is not None:
            report: AnyReport = _stopped(one, attempt.stop, now)
        elif outcome > 1.0 - FAILS:
            error = TaskError(code="exit_status", message="failed", retryable=outcome > 1.0 - FAILS_RETRYABLY)
            report = _failed(one, error, now)
        elif KINDS[one.kind].approval and not one.apply:
            self._disk.plans.add((one.task, one.attempt))
            changes = Changes(add=1 + one.attempt, change=0, destroy=0)
            report = Planned(task=one.task, attempt=one.attempt, at=now, changes=changes)
        else:
            report = Succeeded(task=one.task, attempt=one.attempt, at=now, result=msgspec.Raw(b'{"exit_code":0}'))
        self._ended(attempt, report)

    def _ended(self, attempt: _Attempt, report: AnyReport) -> None:
        one = attempt.assignment
        if not isinstance(report, Planned):
            self._disk.forget_plans(one.task)
        self._memory.ended(one.position, report)
        self._journal.write(self._memory.take_changes())
        self._journal.report((report,))
        del self._running[one.position]
        self._journal.sync()

    def _progress(self, attempt: _Attempt) -> None:
        if attempt.run is not None and attempt.run.ended is None:
            one = attempt.assignment
            half = Progressed(task=one.task, attempt=one.attempt, at=self._agent.wall, progress=50, message="half")
            self._journal.report((half,))
            self._journal.sync()

    def _ran(self, one: Assignment) -> Ran:
        return Ran(
            host=self._host,
            worker=self._agent.name,
            slot=one.slot,
            position=one.position,
            task=one.task,
            attempt=one.attempt,
            kind=one.kind,
            apply=one.apply,
            began=self._agent.world.now,
        )


def _stopped(one: Assignment, request: StopRequest, at: Instant) -> Failed:
    return _failed(one, TaskError(code=request.code, message=request.message, retryable=request.retryable), at)


def _failed(one: Assignment, error: TaskError, at: Instant) -> Failed:
    return Failed(task=TaskId(one.task), attempt=one.attempt, at=at, error=error)
