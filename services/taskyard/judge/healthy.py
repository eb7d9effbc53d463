"""Healthy attempts: nothing happened to them or to their worker, so only their program, a person or their time ends them."""

from collections.abc import Sequence
from dataclasses import dataclass

from taskyard.contracts.events import (
    AnyEvent,
    AttemptFailed,
    AttemptLost,
    SlotAssigned,
    TaskStopRequested,
    UnknownEvent,
    WorkerJoined,
    WorkerLost,
)
from taskyard.judge.evidence import Evidence, Ran, Trouble
from taskyard.judge.faults import Faults, Rule
from taskyard.judge.life import OPEN, Stage
from taskyard.judge.lives import Step

AFTERWARDS_SECONDS = 15.0
"""So long after something happened to a worker what it ran may be told to be lost because of it."""
IN_TIME_SECONDS = 2.0
"""A program that ended so long before its time was up has ended in time, whoever heard of it when."""
_NOT_BY_ITSELF = frozenset(
    ("worker_lost", "self_fenced", "worker_stopped", "worker_replaced", "cancelled", "agent_error")
)
"""Codes of attempts that their worker ended, and not their program; nobody had asked for it, or they were stopping."""
_MAY_HAVE_ENDED_IT = (WorkerLost, WorkerJoined, AttemptLost)


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """An attempt that was ended by what is not its own: where and when, and since when it was its worker's."""

    task: str
    attempt: int
    worker: str
    since: float
    seconds: float
    where: str


class Healthy:
    """Notes what ends attempts while the log is read; tells at the end which of them were healthy."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._since: dict[str, float] = {}
        self._ended: list[_Ended] = []
        self._timed_out: dict[tuple[str, int], tuple[_Ended, float]] = {}

    def check(self, event: AnyEvent | UnknownEvent, step: Step, seconds: float, where: str) -> None:
        """An event took effect on a task; it was stored at `seconds` of the witnesses' clock."""
        life = step.life
        if isinstance(event, SlotAssigned):
            self._since[life.id] = seconds
        if step.before not in OPEN or step.before is Stage.STOPPING or step.held is None:
            return
        since = self._since[life.id]
        ended = _Ended(
            task=life.id, attempt=life.attempt, worker=step.held[0], since=since, seconds=seconds, where=where
        )
        if isinstance(event, TaskStopRequested) and event.cause == "timeout":
            self._timed_out[life.id, life.attempt] = (ended, life.policy.timeout_seconds)
        is_over = life.stage not in OPEN and life.stage is not Stage.PLANNED
        was_ended = isinstance(event, AttemptFailed) and event.error.code in _NOT_BY_ITSELF
        if is_over and (was_ended or isinstance(event, _MAY_HAVE_ENDED_IT)):
            self._ended.append(ended)

    def conclude(self, evidence: Evidence) -> None:
        """Compare with what happened to workers, and with what really ran."""
        if evidence.troubles is None:
            return
        for one in self._ended:
            if (one.task, one.attempt) not in evidence.lied and not _is_excused(one, evidence.troubles):
                text = f"{one.where}: attempt {one.attempt} of {one.task} was ended, and nothing had happened to {one.worker}"
                self._faults.add(Rule.HEALTHY, text, task=one.task)
        for run in evidence.ran:
            if (run.task, run.attempt) in self._timed_out:
                self._in_time(run, evidence)

    def _in_time(self, run: Ran, evidence: Evidence) -> None:
        one, limit = self._timed_out[run.task, run.attempt]
        is_known = run.ended is not None and run.ended > run.began
        if not is_known or (run.task, run.attempt) in evidence.lied or _is_excused(one, evidence.troubles or ()):
            return
        if run.ended is not None and run.ended < min(one.seconds, run.began + limit) - IN_TIME_SECONDS:
            text = f"{one.where}: attempt {one.attempt} of {one.task} timed out, and had ended in time"
            self._faults.add(Rule.HEALTHY, text, task=one.task)


def _is_excused(one: _Ended, troubles: Sequence[Trouble]) -> bool:
    return any(
        trouble.worker == one.worker
        and trouble.began <= one.seconds
        and one.since <= trouble.ended + AFTERWARDS_SECONDS
        for trouble in troubles
    )
