"""A log in memory that tests write events into, and random but plausible histories for it."""

import random
from itertools import count
from typing import Any

from msgspec import Raw

from taskyard.contracts.events import (
    AnyEvent,
    ApplyConfirmed,
    ApplyDiscarded,
    AttemptFailed,
    AttemptLost,
    AttemptSucceeded,
    Changes,
    CommandRejected,
    ForceStopped,
    NotDelivered,
    PlacingFailed,
    PlacingResumed,
    PoolConfigured,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    QueueUnlocked,
    SlotAssigned,
    TaskDispatched,
    TaskError,
    TaskPlanned,
    TaskProgressed,
    TaskReprioritised,
    TaskScheduled,
    TaskStarted,
    TaskStopRequested,
    TaskSubmitted,
    WorkerDrainRequested,
    WorkerJoined,
    WorkerLost,
    WorkerRecovered,
    WorkerSuspected,
    decode_event,
)
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.values import SECOND, Instant, TaskId, make_uuid7
from taskyard.eventlog.commit import Commit, CommitCodec
from taskyard.eventlog.memory import MemoryLog, MemoryStream

START = Instant(1_790_000_000 * SECOND)
PREFIX = "taskyard.log.0"


def task_id(number: int) -> TaskId:
    return TaskId(make_uuid7(START, number))


def submitted(task: TaskId, **fields: Any) -> TaskSubmitted:
    kind = KINDS[fields.setdefault("kind", "noop")]
    values: dict[str, Any] = {
        "pool": "default",
        "queue": "default",
        "by": "alice",
        "input": Raw(b'{"secret":"input"}'),
        "digest": "d",
        "timeout_seconds": kind.timeout_seconds,
        "max_attempts": kind.max_attempts,
        "lock": kind.lock,
        "approval": kind.approval,
        "on_lost": kind.on_lost,
    }
    return TaskSubmitted(task=task, **(values | fields))


class Story:
    """The log of one test. Each commit is stored one second after the one before."""

    def __init__(self) -> None:
        self.now = START
        self.codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
        self.stream = MemoryStream("log", lambda: self.now)
        self.log: MemoryLog[Any] = MemoryLog(self.stream, PREFIX, self.codec)
        self._numbers = count(1)

    @property
    def head(self) -> int:
        return self.stream.head

    def commit(self, *events: Any, writer: str = "scheduler", after_seconds: float = 1.0) -> int:
        self.now = Instant(self.now + round(after_seconds * SECOND))
        data = self.codec.encode(Commit(writer=writer, instance="test", epoch=1, at=self.now, events=events))
        return self.stream.store(f"{PREFIX}.{writer}", data)

    def submit(self, **fields: Any) -> TaskId:
        task = task_id(next(self._numbers))
        self.commit(submitted(task, **fields))
        return task

    def submit_again(self, task: TaskId, **fields: Any) -> None:
        self.commit(submitted(task, **fields))

    def join(self, worker: str = "worker-1", incarnation: int = 1, pool: str = "default") -> None:
        slots = (("any",), ("plan",), ("plan",))
        event = WorkerJoined(worker=worker, incarnation=incarnation, pool=pool, slots=slots, kinds=tuple(KINDS))
        self.commit(event, writer="slot_allocator")

    def assign(self, task: TaskId, attempt: int = 1, slot: int = 0, worker: str = "worker-1") -> None:
        event = SlotAssigned(task=task, attempt=attempt, worker=worker, incarnation=1, slot=slot)
        self.commit(event, writer="slot_allocator")

    def start(self, task: TaskId, attempt: int = 1, slot: int = 0) -> None:
        self.commit(TaskScheduled(task=task))
        self.assign(task, attempt, slot)
        self.commit(TaskDispatched(task=task, attempt=attempt), writer="dispatcher")
        self.commit(TaskStarted(task=task, attempt=attempt), writer="dispatcher")

    def succeed(self, task: TaskId, attempt: int = 1) -> None:
        event = AttemptSucceeded(task=task, attempt=attempt, result=Raw(b'{"exit_code":0}'))
        self.commit(event, writer="dispatcher")

    def plan(self, task: TaskId, attempt: int = 1) -> None:
        event = TaskPlanned(task=task, attempt=attempt, changes=Changes(add=1))
        self.commit(event, writer="dispatcher")

    def tell_anything(self, seed: int, commits: int) -> None:
        """Random commits in which most events are legal where they come."""
        chance = random.Random(seed)
        for _ in range(commits):
            events = [self._anything(chance) for _ in range(chance.randint(0, 12))]
            self.commit(*events, writer=chance.choice(("scheduler", "slot_allocator", "dispatcher")))

    def _anything(self, chance: random.Random) -> Any:
        known = next(self._numbers)
        self._numbers = count(known)  # looking does not take the number
        if known < 3 or chance.random() < 0.15:
            return self._new_task(chance)
        task = task_id(chance.randint(max(1, known - 8), known - 1))
        attempt = chance.choice((1, 1, 1, 2, 2, 3))
        worker, incarnation = f"worker-{chance.randint(1, 2)}", chance.randint(1, 3)
        error = TaskError(
            code=chance.choice(("exit_status", "timeout")), message="x\x00y", retryable=chance.random() < 0.5
        )
        queue = chance.choice(("default", "prod"))
        choices: list[Any] = [
            TaskScheduled(task=task),
            TaskScheduled(task=task),
            SlotAssigned(task=task, attempt=attempt, worker=worker, incarnation=incarnation, slot=0),
            SlotAssigned(task=task, attempt=attempt, worker=worker, incarnation=incarnation, slot=1),
            TaskDispatched(task=task, attempt=attempt),
            TaskStarted(task=task, attempt=attempt),
            TaskStarted(task=task, attempt=attempt),
            TaskProgressed(task=task, attempt=attempt, progress=50),
            TaskPlanned(task=task, attempt=attempt, changes=Changes(add=1)),
            ApplyConfirmed(task=task, attempt=attempt, by="alice"),
            ApplyDiscarded(task=task, attempt=attempt, by="alice", comment="no"),
            AttemptSucceeded(task=task, attempt=attempt, result=Raw(b'{"exit_code":0}')),
            AttemptFailed(task=task, attempt=attempt, error=error),
            AttemptLost(task=task, attempt=attempt),
            NotDelivered(task=task, attempt=attempt, reason="no responders", declined=chance.random() < 0.5),
            TaskStopRequested(task=task, cause="cancel", by="bob"),
            TaskStopRequested(task=task, cause="timeout", by="dispatcher", attempt=attempt),
            ForceStopped(task=task, by="admin", reason="stuck"),
            TaskReprioritised(task=task, priority=chance.randint(1, 10), by="bob"),
            WorkerJoined(
                worker=worker, incarnation=incarnation, pool="default", slots=(("any",), ("plan",)), kinds=("noop",)
            ),
            WorkerLost(worker=worker, incarnation=incarnation, reason="silent"),
            WorkerSuspected(worker=worker, incarnation=incarnation, reason="the disk is full"),
            WorkerRecovered(worker=worker, incarnation=incarnation),
            WorkerDrainRequested(pool="default", worker=worker, by="admin"),
            PoolConfigured(pool="default", by="admin", max_waiting=1 << 70),
            QueueConfigured(pool="default", queue=queue, by="admin", max_running=chance.randint(0, 2)),
            QueuePaused(pool="default", queue=chance.choice((None, queue)), by="admin", reason="a\x00b"),
            QueueResumed(pool="default", queue=chance.choice((None, queue)), by="admin"),
            QueueLocked(pool="default", queue=queue, by="admin", reason="hands off"),
            QueueUnlocked(pool="default", queue=queue, by="admin"),
            PlacingFailed(pool="default", what=chance.choice(("plan", "noop", task)), reason="KeyError, a\x00b"),
            PlacingResumed(pool="default", what=chance.choice(("plan", "noop", task))),
            CommandRejected(
                command=task,
                verb="cancel",
                by="bob",
                pool="default",
                status=409,
                code="ended",
                message="\x00",
                task=task,
            ),
        ]
        return chance.choice(choices)

    def _new_task(self, chance: random.Random) -> TaskSubmitted:
        return submitted(
            task_id(next(self._numbers)),
            kind=chance.choice(("noop", "command", "plan", "plan_and_apply")),
            queue=chance.choice(("default", "prod")),
            priority=chance.randint(1, 10),
            labels={"team": chance.choice(("net", "a\x00b"))} if chance.random() < 0.5 else {},
            by=chance.choice(("alice", "bob")),
        )
