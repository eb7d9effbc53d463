"""Small logs for the judge: a story of events, each its own commit of its owner, with hashes and epochs as they should be."""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import msgspec

from taskyard.contracts.events import (
    DISPATCHER,
    OWNERS,
    SCHEDULER,
    SLOT_ALLOCATOR,
    ApplyConfirmed,
    AttemptSucceeded,
    Changes,
    Event,
    SlotAssigned,
    TaskDispatched,
    TaskPlanned,
    TaskScheduled,
    TaskStarted,
    TaskSubmitted,
    WorkerJoined,
)
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.values import SECOND, CommandId, Instant, Position, TaskId, make_position, make_uuid7
from taskyard.judge.evidence import Evidence, Logged, Ran
from taskyard.judge.verdict import Verdict, judge

COMMAND = CommandId("01a3185c-52dd-7ce5-85c6-5b2fc1658618")
BEGIN = Instant(1_800_000_000 * SECOND)
SLOTS = (("any",), ("plan",), ("plan",))


def task_id(number: int) -> TaskId:
    """The id of the task with this number, always the same."""
    return TaskId(make_uuid7(BEGIN, number))


@dataclass
class Story:
    """A log that grows by what is told. `seconds` pass between two events."""

    seconds: float = 0.01
    log: list[Logged] = field(default_factory=list[Logged])
    now: float = 0.0

    def __post_init__(self) -> None:
        self._hashes: dict[str, str] = {}
        self._epochs: dict[str, int] = {}
        for writer in (SCHEDULER, SLOT_ALLOCATOR, DISPATCHER):
            self.take_over(writer)

    def take_over(self, writer: str) -> None:
        """The next epoch of a writer begins."""
        self._epochs[writer] = self._epochs.get(writer, 0) + 1
        self.commit(writer)

    def tell(self, *events: Event, writer: str | None = None) -> Position:
        """Each event in a commit of its own; the position of the last one."""
        for event in events:
            owner = writer or next(name for name, owned in OWNERS.items() if isinstance(event, owned))
            self.commit(owner, event)
        return make_position(len(self.log), 0)

    def commit(self, writer: str, *events: Event, **fields: Any) -> None:
        """One commit as it stands; `fields` replace what would be right."""
        self.now += self.seconds
        body: dict[str, Any] = {
            "writer": writer,
            "instance": f"{writer}-{self._epochs.get(writer, 0)}",
            "epoch": self._epochs.get(writer, 0),
            "at": BEGIN,
            "previous": self._hashes.get(writer, ""),
            "events": events,
            **fields,
        }
        data = msgspec.json.encode(body)
        self._hashes[writer] = blake2b(data, digest_size=16).hexdigest()
        at = BEGIN + round(self.now * SECOND)
        self.log.append(Logged(sequence=len(self.log) + 1, at=at, seconds=at / SECOND, writer=writer, data=data))

    def submit(self, number: int, kind: str = "command", **fields: Any) -> TaskId:
        """Submit a task with the policy of its kind."""
        self.tell(self.submission(number, kind, **fields))
        return task_id(number)

    @staticmethod
    def submission(number: int, kind: str = "command", **fields: Any) -> TaskSubmitted:
        """The event of a submission."""
        policy = KINDS[kind]
        spec: dict[str, Any] = {
            "pool": "default",
            "queue": "q",
            "by": "bob",
            "input": msgspec.Raw(b"{}"),
            "digest": "d",
            "timeout_seconds": policy.timeout_seconds,
            "max_attempts": policy.max_attempts,
            "lock": policy.lock,
            "approval": policy.approval,
            "on_lost": policy.on_lost,
        }
        return TaskSubmitted(task=task_id(number), kind=kind, **{**spec, **fields})

    def join(self, worker: str = "w", incarnation: int = 1) -> None:
        """A worker comes."""
        self.tell(WorkerJoined(worker=worker, incarnation=incarnation, pool="default", slots=SLOTS, kinds=tuple(KINDS)))

    def assign(self, task: TaskId, *, attempt: int = 1, slot: int = 0, worker: str = "w", incarnation: int = 1) -> int:
        """Give a task a slot; the position of that."""
        return self.tell(SlotAssigned(task=task, attempt=attempt, worker=worker, incarnation=incarnation, slot=slot))

    def run(self, task: TaskId, *, attempt: int = 1, slot: int = 0) -> int:
        """Schedule, assign, dispatch and start; the position of the assignment."""
        self.tell(TaskScheduled(task=task))
        position = self.assign(task, attempt=attempt, slot=slot)
        self.tell(TaskDispatched(task=task, attempt=attempt), TaskStarted(task=task, attempt=attempt))
        return position

    def judged(self, **evidence: Any) -> Verdict:
        """What the judge says of it, as it stands."""
        given: dict[str, Any] = {"is_over": False, **evidence}
        return judge(Evidence(log=self.log, **given))


def rules(verdict: Verdict) -> set[str]:
    """Which rules were broken."""
    return {fault.rule.value for fault in verdict.faults}


def whole() -> Story:
    """One command that runs to its end, and one plan_and_apply that is asked for and applied."""
    story = Story()
    story.join()
    one, other = story.submit(1), story.submit(2, "plan_and_apply")
    story.run(one)
    story.tell(AttemptSucceeded(task=one, attempt=1))
    story.run(other)
    story.tell(
        TaskPlanned(task=other, attempt=1, changes=Changes(add=1)), ApplyConfirmed(task=other, attempt=1, by="eve")
    )
    story.assign(other, attempt=2)
    story.tell(AttemptSucceeded(task=other, attempt=2))
    return story


def ran(position: int | None = None, **fields: Any) -> Ran:
    seconds = BEGIN / SECOND
    known: dict[str, Any] = {
        "host": "w",
        "slot": 0,
        "position": position,
        "task": task_id(1),
        "attempt": 1,
        "kind": "command",
        "apply": False,
        "began": seconds,
        "ended": seconds,
    }
    return Ran(**{**known, **fields})
