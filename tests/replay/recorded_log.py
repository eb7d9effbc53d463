"""Recorded logs for the tests: what the real machines decide over commands of a script, as commits with their times."""

from random import Random
from typing import Any

from taskyard.api.past.state import PastState
from taskyard.contracts.events import AttemptFailed, AttemptSucceeded, Changes, TaskError, TaskPlanned
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.values import SECOND, Instant, TaskId, make_uuid7
from taskyard.eventlog.commit import StoredCommit
from taskyard.replay.recorded import RecordedTask, RecordedWorker, Recording, Run
from taskyard.replay.running import WhatIf, _Replay

START = Instant(1_795_000_000 * SECOND)
SLOTS = (("any",), ("plan",), ("plan",))


def a_task(
    number: int, *, at: float = 0.0, kind: str = "plan", runs: list[Run] | None = None, **more: Any
) -> RecordedTask:
    """A task of a script: submitted so many seconds after START."""
    submitted = Instant(START + round(at * SECOND))
    values: dict[str, Any] = {
        "id": TaskId(make_uuid7(submitted, number)), "kind": kind, "pool": "default", "queue": "prod", "by": "alice",
        "priority": 5, "timeout_seconds": 1800.0, "max_attempts": 3, "auto_confirm": False, "not_before": None,
        "schedule_to_start_timeout_seconds": None, "submitted_at": submitted, "is_carried_over": False, "order": number,
        "runs": [ran(10.0)] if runs is None else runs,
    }  # fmt: skip
    return RecordedTask(**(values | more))


def ran(seconds: float, start: float = 0.01) -> Run:
    return Run(start_seconds=start, run_seconds=seconds, outcome=AttemptSucceeded(task=TaskId(""), attempt=1))


def planned(seconds: float) -> Run:
    outcome = TaskPlanned(task=TaskId(""), attempt=1, changes=Changes(add=1))
    return Run(start_seconds=0.01, run_seconds=seconds, outcome=outcome)


def failed(seconds: float) -> Run:
    error = TaskError(code="exit_status", message="ended with 1", retryable=True)
    return Run(start_seconds=0.01, run_seconds=seconds, outcome=AttemptFailed(task=TaskId(""), attempt=1, error=error))


def a_worker(name: str = "worker-1", *, slots: tuple[tuple[str, ...], ...] = SLOTS, at: float = 0.0) -> RecordedWorker:
    joined = Instant(START + round(at * SECOND))
    return RecordedWorker(name=name, pool="default", slots=slots, kinds=tuple(KINDS), joined=joined)


def record(
    tasks: list[RecordedTask], workers: list[RecordedWorker] | None = None, settings: list[Any] | None = None
) -> list[StoredCommit[Any]]:
    """The log that the real machines write of a script."""
    recording = Recording(
        began=START,
        ended=max(task.submitted_at for task in tasks),
        tasks=tasks,
        settings=settings or [],
        workers=workers or [a_worker()],
        typical={},
    )
    run = _Replay(recording, recording.workers, WhatIf())
    run.run(lambda _: None)
    return run._yard.commits


def busy_day(seed: int, tasks: int = 60) -> list[StoredCommit[Any]]:
    """A log with plans, applies, commands and no-ops of several queues and priorities, failures and answers included."""
    chance = Random(seed)
    script: list[RecordedTask] = []
    for number in range(tasks):
        kind = chance.choice(("plan", "plan", "plan_and_apply", "command", "noop"))
        runs = [ran(chance.uniform(0.5, 30.0), chance.uniform(0.002, 0.02))]
        if kind == "plan_and_apply":
            runs = [planned(chance.uniform(1.0, 10.0)), *runs]
        elif chance.random() < 0.2:
            runs = [failed(chance.uniform(0.5, 5.0)), *runs]
        script.append(
            a_task(
                number,
                at=chance.uniform(0.0, 120.0),
                kind=kind,
                runs=runs,
                queue=chance.choice(("prod", "dev", "net")),
                priority=chance.randint(1, 10),
                auto_confirm=kind == "plan_and_apply",
            )
        )
    script.sort(key=lambda task: task.submitted_at)
    for order, task in enumerate(script):
        task.order = order
    return record(script, [a_worker("worker-1"), a_worker("worker-2", at=20.0)])


def before(commits: list[StoredCommit[Any]], sequence: int) -> PastState:
    """The state before the commit at `sequence`."""
    state = PastState()
    for stored in commits[: sequence - 1]:
        state.fold(stored, (stored.sequence + 1 << 10) - 1)  # type: ignore[arg-type]
    return state
