"""What the log says became of the tasks that were submitted: pure, and apart from the code that is measured."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from msgspec import Struct

from taskyard.contracts.events import AnyEvent, AttemptSucceeded, TaskStarted, TaskSubmitted, UnknownEvent
from taskyard.contracts.values import Instant

MICROSECONDS_PER_MILLISECOND = 1_000


class Findings(Struct, frozen=True, kw_only=True):
    """Numbers of tasks. Without fault are those that were accepted once, ran in one attempt, and completed in it."""

    tasks: int
    completed_once: int
    not_accepted: int
    accepted_twice: int
    not_completed: int
    run_twice: int

    @property
    def is_clean(self) -> bool:
        """Whether every task completed exactly once."""
        return self.completed_once == self.tasks


class Percentiles(Struct, frozen=True, kw_only=True):
    """Of durations, in milliseconds: at most that long took 50, 95, 99 and 100 of 100."""

    p50: float
    p95: float
    p99: float
    max: float


class Evidence:
    """Collects events of the log in its order."""

    def __init__(self) -> None:
        self._submitted: Counter[str] = Counter()
        self._attempts: defaultdict[str, set[int]] = defaultdict(set)
        self._completed: set[str] = set()
        self._started_at: dict[str, Instant] = {}

    def add(self, events: Iterable[AnyEvent | UnknownEvent], at: Instant) -> None:
        """Take in the events of one commit, stored at `at`."""
        for event in events:
            match event:
                case TaskSubmitted():
                    self._submitted[event.task] += 1
                case TaskStarted():
                    # A report that came twice is of the same attempt; the first one tells when it started.
                    self._attempts[event.task].add(event.attempt)
                    self._started_at.setdefault(event.task, at)
                case AttemptSucceeded():
                    self._attempts[event.task].add(event.attempt)
                    self._completed.add(event.task)
                case _:
                    pass

    def judge(self, tasks: Sequence[str]) -> Findings:
        """What became of these tasks."""
        without_fault = [
            task
            for task in tasks
            if self._submitted[task] == 1 and task in self._completed and len(self._attempts[task]) == 1
        ]
        return Findings(
            tasks=len(tasks),
            completed_once=len(without_fault),
            not_accepted=sum(self._submitted[task] == 0 for task in tasks),
            accepted_twice=sum(self._submitted[task] > 1 for task in tasks),
            not_completed=sum(task not in self._completed for task in tasks),
            run_twice=sum(len(self._attempts[task]) > 1 for task in tasks),
        )

    def start_milliseconds(self, sent_at: dict[str, Instant]) -> list[float]:
        """From sending to the start as the log dates it, of those tasks that have started."""
        return [
            (self._started_at[task] - at) / MICROSECONDS_PER_MILLISECOND
            for task, at in sent_at.items()
            if task in self._started_at
        ]


def percentiles(values: Sequence[float]) -> Percentiles | None:
    """By nearest rank, so that each is a value that was measured; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    p50, p95, p99, largest = (round(ordered[math.ceil(share * len(ordered)) - 1], 3) for share in (0.5, 0.95, 0.99, 1))
    return Percentiles(p50=p50, p95=p95, p99=p99, max=largest)
