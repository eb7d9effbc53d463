"""What the tests of the scheduler share: commands as they were stored, and the outcomes that doors are told."""

import json
from itertools import count
from typing import Any

from machine_story import Story, task_id

from taskyard.contracts.commands import Answer
from taskyard.contracts.events import TaskSubmitted
from taskyard.contracts.values import Instant, Role, make_uuid7
from taskyard.scheduler.machine import Scheduler
from taskyard.scheduler.messages import CommandMessage

ROLES = {"alice": Role.OPERATOR, "bob": Role.OPERATOR, "root": Role.ADMIN, "eve": Role.VIEWER}
DOOR = "door1"
COMMANDS = "TASKYARD_COMMANDS@1"


class Commands(Story):
    """A scheduler's story, in which people say things."""

    def __init__(self) -> None:
        super().__init__(Scheduler(ROLES))
        self._sequences = count(1)

    def said(
        self,
        verb: str,
        body: dict[str, Any] | bytes,
        by: str = "alice",
        *,
        pool: str = "default",
        original: TaskSubmitted | None = None,
        at: Instant | None = None,
        stream: str = COMMANDS,
        sequence: int | None = None,
        **rest: Any,
    ) -> CommandMessage:
        """A command as it was stored just now."""
        return CommandMessage(
            stream=stream,
            sequence=next(self._sequences) if sequence is None else sequence,
            at=self.now if at is None else at,
            principal=by,
            pool=pool,
            verb=verb,
            data=body if isinstance(body, bytes) else json.dumps(body).encode(),
            door=DOOR,
            original=original,
            **rest,
        )

    def submit(self, number: int = 1, by: str = "alice", **fields: Any) -> CommandMessage:
        """A `submit` of task `number`, a no-op that states only what matters."""
        return self.said("submit", {"id": task_id(number), "kind": "noop", "input": {}} | fields, by)

    def command_id(self, number: int) -> str:
        """The id of a command, other than any task's."""
        return make_uuid7(self.now, 1_000_000 + number)

    def answers(self) -> list[Answer]:
        """Every answer that was told since the last time."""
        told = [outcome for effect in self.effects() for outcome in effect.batch.outcomes]
        return [answer for outcome in told for answer in outcome.answers]

    def codes(self) -> list[int]:
        return [answer.code for answer in self.answers()]
