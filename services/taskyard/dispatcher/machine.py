"""The dispatcher as a machine: its state, its choices and its messages in the form that the loop runs."""

from collections.abc import Sequence
from typing import Any

import msgspec

from taskyard.contracts.events import DISPATCHER
from taskyard.contracts.values import Instant, Position
from taskyard.dispatcher.decide import HeartbeatHeard, Input, ReportsRead, decide
from taskyard.dispatcher.delivery import SendAssignments, SendCancels
from taskyard.dispatcher.state import DispatcherState, Saved
from taskyard.machine.deadlines import Deadlines
from taskyard.machine.machine import Decision, Fault


class Dispatcher:
    """The machine of the writer `dispatcher`."""

    writer = DISPATCHER
    snapshot_version = 3

    def __init__(self) -> None:
        self.state = DispatcherState()
        self.deadlines = Deadlines()

    def apply(self, event: Any, at: Instant, position: Position) -> None:
        """Fold one event."""
        self.state.apply(event, at, position)

    def lead(self, now: Instant) -> None:
        """Look at everything once."""
        self.state.lead()

    def stand_by(self) -> None:
        """Remember nothing to do."""
        self.state.stand_by()

    def decide(self, now: Instant, inputs: Sequence[Input]) -> Decision:
        """Decide on reports, answers and deadlines."""
        return decide(self.state, self.deadlines, now, inputs)

    def look_again(self, now: Instant) -> None:
        """Look at everything once more: what agents were asked meanwhile is asked again."""
        self.state.lead()

    def refuse(self, now: Instant, culprit: Input, error: Exception) -> Decision:
        """Pass over what an agent said: an attempt whose end it told runs out of time."""
        who = culprit.agent if isinstance(culprit, ReportsRead | HeartbeatHeard) else culprit.request.agent
        return Decision(events=[], taken=1, faults=(Fault(f"{type(culprit).__name__} of {who}", error),))

    def effects(self, now: Instant) -> Sequence[SendAssignments | SendCancels | Fault]:
        """What agents have to be sent."""
        return self.state.deliveries.due(self.state.record, now)

    def next_deadline(self) -> Instant | None:
        """The next timeout or resend."""
        return self.state.next_deadline(self.deadlines)

    def snapshot(self) -> bytes:
        """The folded state as JSON."""
        return msgspec.json.encode(self.state.saved())

    def restore(self, data: bytes) -> None:
        """The state of a snapshot."""
        self.state = DispatcherState.restored(msgspec.json.decode(data, type=Saved))
