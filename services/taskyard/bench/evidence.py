"""What the log says became of the tasks that were submitted, by the judge: pure, and apart from the code that is measured."""

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

from taskyard.contracts.values import Instant
from taskyard.judge.faults import Rule
from taskyard.judge.verdict import Verdict

MICROSECONDS_PER_MILLISECOND = 1_000


class Findings(Struct, frozen=True, kw_only=True):
    """Numbers of tasks; `faults` are all breaches of a rule that the judge found in the whole log.

    Without fault are tasks that were accepted once, ran in one attempt, and completed in it.
    """

    tasks: int
    completed_once: int
    not_accepted: int
    accepted_twice: int
    not_completed: int
    run_twice: int
    faults: int

    @property
    def is_clean(self) -> bool:
        """Whether every task completed exactly once, and no rule was broken."""
        return self.completed_once == self.tasks and not self.faults


class Percentiles(Struct, frozen=True, kw_only=True):
    """Of durations, in milliseconds: at most that long took 50, 95, 99 and 100 of 100."""

    p50: float
    p95: float
    p99: float
    max: float


def find(verdict: Verdict, tasks: Sequence[str]) -> Findings:
    """What became of these tasks."""
    lives = verdict.lives
    twice = {fault.task for fault in verdict.faults if fault.rule is Rule.ENDED_ONCE}
    completed = {task for task in tasks if task in lives and lives[task].status == "completed"}
    run_twice = {task for task in tasks if verdict.attempts_started[task] > 1}
    return Findings(
        tasks=len(tasks),
        completed_once=len(completed - run_twice - twice),
        not_accepted=sum(task not in lives for task in tasks),
        accepted_twice=sum(task in twice for task in tasks),
        not_completed=len(tasks) - len(completed),
        run_twice=len(run_twice),
        faults=len(verdict.faults),
    )


def start_milliseconds(verdict: Verdict, sent_at: Mapping[str, Instant]) -> list[float]:
    """From sending to the first start as the log dates it, of those tasks that have started."""
    return [
        (verdict.started_at[task] - at) / MICROSECONDS_PER_MILLISECOND
        for task, at in sent_at.items()
        if task in verdict.started_at
    ]


def percentiles(values: Sequence[float]) -> Percentiles | None:
    """By nearest rank, so that each is a value that was measured; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    p50, p95, p99, largest = (round(ordered[math.ceil(share * len(ordered)) - 1], 3) for share in (0.5, 0.95, 0.99, 1))
    return Percentiles(p50=p50, p95=p95, p99=p99, max=largest)
