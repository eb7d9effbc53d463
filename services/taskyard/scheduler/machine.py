"""The scheduler as a machine: its state, its choices and its outcomes in the form that the loop runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from taskyard.contracts.events import SCHEDULER
from taskyard.contracts.values import Instant, Position, Role
from taskyard.machine.deadlines import Deadlines
from taskyard.machine.machine import Decision
from taskyard.scheduler.answers import AnswerDoor
from taskyard.scheduler.decide import decide, refuse
from taskyard.scheduler.messages import CommandMessage
from taskyard.scheduler.state import Saved, SchedulerState
from taskyard.scheduler.verbs import check_verbs


class Scheduler:
    """The machine of the writer `scheduler`. `roles` tells what each principal may do."""

    writer = SCHEDULER
    snapshot_version = 3

    def __init__(self, roles: Mapping[str, Role]) -> None:
        check_verbs()
        self.state = SchedulerState()
        self.deadlines = Deadlines()
        self._roles = roles

    def apply(self, event: Any, at: Instant, position: Position) -> None:
        """Fold one event."""
        self.state.apply(event, at, position)

    def lead(self, now: Instant) -> None:
        """Look at everything once."""
        self.state.lead()

    def stand_by(self) -> None:
        """Remember nothing to decide."""
        self.state.stand_by()

    def decide(self, now: Instant, inputs: Sequence[CommandMessage]) -> Decision:
        """Decide on commands, timers and waiting tasks."""
        return decide(self.state, self.deadlines, now, inputs, self._roles)

    def look_again(self, now: Instant) -> None:
        """Look at everything once more."""
        self.state.look_again()

    def refuse(self, now: Instant, culprit: CommandMessage, error: Exception) -> Decision:
        """Refuse a command that cannot be decided on."""
        return refuse(self.state, now, culprit, error)

    def effects(self, now: Instant) -> Sequence[AnswerDoor]:
        """Outcomes that doors wait for."""
        return self.state.answers.take_ready()

    def next_deadline(self) -> Instant | None:
        """The next timer, or when refusals that were counted are to be told."""
        due = (self.state.agenda.next_deadline, self.state.counting.next_deadline)
        return min((each for each in due if each is not None), default=None)

    def snapshot(self) -> bytes:
        """The folded state as JSON."""
        return msgspec.json.encode(self.state.saved())

    def restore(self, data: bytes) -> None:
        """The state of a snapshot."""
        self.state = SchedulerState.restored(msgspec.json.decode(data, type=Saved))
