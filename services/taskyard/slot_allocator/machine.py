"""The slot allocator as a machine: its state and its choices in the form that the loop runs."""

from collections.abc import Sequence
from typing import Any

import msgspec

from taskyard.contracts.events import SLOT_ALLOCATOR
from taskyard.contracts.values import Instant, Position
from taskyard.machine.deadlines import Deadlines
from taskyard.machine.machine import Decision, Fault
from taskyard.slot_allocator.decide import Observation, decide, next_deadline
from taskyard.slot_allocator.liveness import HeartbeatSeen, Liveness
from taskyard.slot_allocator.state import AllocatorState, Saved


class SlotAllocator:
    """The machine of the writer `slot_allocator`. A worker is suspected, then lost, after so many seconds of silence."""

    writer = SLOT_ALLOCATOR
    snapshot_version = 2

    def __init__(self, suspect_seconds: float, lost_seconds: float) -> None:
        self.state = AllocatorState()
        self.deadlines = Deadlines()
        self._limits = (suspect_seconds, lost_seconds)
        self._liveness = Liveness(*self._limits)

    def apply(self, event: Any, at: Instant, position: Position) -> None:
        """Fold one event."""
        self.state.apply(event, at, position)

    def lead(self, now: Instant) -> None:
        """Look at everything once; nobody's silence counts from before."""
        self.state.open_idle_slots()
        self._liveness = Liveness(*self._limits)
        self._liveness.begin()

    def stand_by(self) -> None:
        """Remember nothing to decide."""
        self.state.stand_by()

    def decide(self, now: Instant, inputs: Sequence[Observation]) -> Decision:
        """Decide on heartbeats, silence, and slots."""
        return decide(self.state, self._liveness, now, inputs)

    def look_again(self, now: Instant) -> None:
        """Look at everything once more; what was heard of whom stays."""
        self.state.open_idle_slots()

    def refuse(self, now: Instant, culprit: Observation, error: Exception) -> Decision:
        """Pass over what was observed: a heartbeat comes again."""
        who = culprit.agent if isinstance(culprit, HeartbeatSeen) else "the server"
        return Decision(events=[], taken=1, faults=(Fault(f"{type(culprit).__name__} of {who}", error),))

    def effects(self, now: Instant) -> Sequence[None]:
        """An allocator of agents that come by themselves does nothing in the world."""
        return ()

    def next_deadline(self) -> Instant | None:
        """The next apply that is due."""
        return next_deadline(self.state)

    def snapshot(self) -> bytes:
        """The folded state as JSON."""
        return msgspec.json.encode(self.state.saved())

    def restore(self, data: bytes) -> None:
        """The state of a snapshot."""
        self.state = AllocatorState.restored(msgspec.json.decode(data, type=Saved))
