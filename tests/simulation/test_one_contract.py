"""However a task came, alone, in a batch or as a retry, its worker is told the same: there is one path, and no field is lost."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from taskyard.contracts.agent_protocol import Assignment, Failed, Heartbeat
from taskyard.contracts.events import TaskError, TaskSubmitted
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.values import SECOND, Instant, Position, TaskId, make_uuid7, seconds
from taskyard.dispatcher.delivery import SendAssignments, SendCancels
from taskyard.replay.yard import Yard
from taskyard.scheduler.messages import CommandMessage
from taskyard.slot_allocator.liveness import HeartbeatSeen

AT = Instant(1_800_000_000 * SECOND)
TASK, RETRY = TaskId(make_uuid7(AT, 1)), make_uuid7(AT, 2)
SPEC = {
    "kind": "command",
    "queue": "night",
    "input": {"argv": ["backup", "--all"], "env": {"MODE": "full"}},
    "timeout_seconds": 7.5,
    "max_attempts": 1,
    "labels": {"team": "storage"},
}


class Host:
    """One worker that accepts whatever it is sent, and the control plane before it."""

    def __init__(self) -> None:
        self.given: list[Assignment] = []
        self.yard = Yard(AT, self._take)
        beat = Heartbeat(incarnation=1, pool="default", slots=(("any",),), kinds=tuple(KINDS))
        self.yard.hear(HeartbeatSeen(agent="w", heartbeat=beat))
        self._sequence = 0

    def ask(self, verb: str, body: dict[str, Any], original: TaskSubmitted | None = None) -> Assignment:
        """The assignment that comes of a command."""
        self._sequence += 1
        data = msgspec.json.encode(body)
        self.yard.command(
            CommandMessage(
                sequence=self._sequence,
                at=self.yard.now,
                principal="bob",
                pool="default",
                verb=verb,
                data=data,
                original=original,
            )
        )
        self.settle()
        return self.given[-1]

    def settle(self) -> None:
        """Let everything be decided and sent."""
        self.yard.run(Instant(AT + seconds(1.0)), lambda: False, lambda _: None)

    def _take(self, request: SendAssignments | SendCancels) -> None:
        if isinstance(request, SendAssignments):
            self.given += request.assignments
            self.yard.answer(request, [one.position for one in request.assignments])


def alone(host: Host) -> Assignment:
    return host.ask("submit", {**SPEC, "id": TASK})


def in_a_batch(host: Host) -> Assignment:
    return host.ask("submit", {"tasks": [SPEC]})


def as_a_retry(host: Host) -> Assignment:
    first = alone(host)
    failed = TaskError(code="exit_status", message="failed")
    host.yard.report("w", Failed(task=first.task, attempt=1, at=AT, error=failed))
    host.settle()
    events = [event for stored in host.yard.commits for event in stored.commit.events]
    original = next(event for event in events if isinstance(event, TaskSubmitted))
    retried = host.ask("retry", {"task": TASK, "id": RETRY}, original)
    assert retried.task != first.task
    return retried


@pytest.mark.parametrize("way", [alone, in_a_batch, as_a_retry])
def test_a_worker_is_told_the_same_whatever_way_a_task_came(way: Callable[[Host], Assignment]) -> None:
    told = msgspec.structs.replace(way(Host()), task=TASK, position=Position(0))
    assert told == Assignment(
        position=Position(0),
        task=TASK,
        attempt=1,
        slot=0,
        incarnation=1,
        kind="command",
        input=msgspec.Raw(msgspec.json.encode(SPEC["input"])),
        timeout_seconds=7.5,
    )
