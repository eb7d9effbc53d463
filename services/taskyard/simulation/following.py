"""How an instance follows the log: in batches, sometimes late, sometimes not at all, and from a snapshot or the first commit."""

from typing import Any

import msgspec

from taskyard.contracts.events import LOG_KEEPER, LOG_VERSION
from taskyard.contracts.subjects import log_subject
from taskyard.eventlog.commit import StoredCommit
from taskyard.eventlog.errors import LogVersionUnknown
from taskyard.eventlog.versions import require_known
from taskyard.machine.core import LoopCore
from taskyard.simulation.snapshots import Snapshot
from taskyard.simulation.streams import PARTITION, Servers
from taskyard.simulation.time import Process, Step

PART_CHANCE = 0.2
"""That a batch ends before the head, and the rest comes later."""


class Following:
    """One life's fold of the log, by a program that knows it up to `version`.

    `on_folded` is told when something new was folded, `on_unknown` when what comes next must not be folded.
    """

    def __init__(
        self,
        process: Process,
        core: LoopCore[Any, Any],
        servers: Servers,
        *,
        version: int,
        on_folded: Step,
        on_unknown: Step,
    ) -> None:
        self.core = core
        self.is_stalled = False
        self._process = process
        self._servers = servers
        self._knows_all = version > LOG_VERSION
        self._on_folded = on_folded
        self._on_unknown = on_unknown
        self._is_due = False
        self._waits: tuple[int, Step] | None = None

    def recover(self) -> None:
        """Begin with a snapshot, if there is one that can be read, as `taskyard.machine.loop` does.

        Raises:
            LogVersionUnknown: this program must not begin on this log, as `taskyard.service` finds.
        """
        last = self._servers.log.last(log_subject(PARTITION, LOG_KEEPER))
        if last is not None:
            self._require_known(self._servers.decoded(last, self.core.log_time))
        machine = self.core.machine
        found = self._servers.snapshots.load(machine.writer, self._process.random)
        if found is not None:
            try:
                snapshot = msgspec.json.decode(found, type=Snapshot)
                machine.restore(bytes(snapshot.machine))
            except msgspec.DecodeError:
                pass  # passed over: the log has it all
            else:
                self.core.restore(snapshot.loop, self._process.monotonic)
        machine.stand_by()

    def save(self) -> None:
        """Keep what was folded as a snapshot."""
        machine = self.core.machine
        snapshot = Snapshot(self.core.saved(), msgspec.Raw(machine.snapshot()))
        self._servers.snapshots.save(machine.writer, msgspec.json.encode(snapshot))

    def soon(self) -> None:
        """Something was stored, or may have been."""
        if not self._is_due:
            self._is_due = True
            self._process.later(self._process.random.uniform(0.0005, 0.008), self._fold)

    def resume(self) -> None:
        """The connection over which the log is followed is back."""
        self.is_stalled = False
        self.soon()

    def until_folded(self, sequence: int, then: Step) -> None:
        """Go on when a commit is folded."""
        if self.core.folded >= sequence:
            then()
        else:
            self._waits = (sequence, then)

    def forget_waiting(self) -> None:
        """Nobody waits for a commit any more."""
        self._waits = None

    def _fold(self) -> None:
        self._is_due = False
        if self.is_stalled:
            return
        process, core, servers = self._process, self.core, self._servers
        messages = servers.log.after(core.folded)
        if len(messages) > 1 and process.world.chance(PART_CHANCE, process.random):
            messages = messages[: process.random.randrange(1, len(messages))]
        for message in messages:
            stored = servers.decoded(message, core.log_time)
            try:
                self._require_known(stored)
            except LogVersionUnknown:
                self._on_unknown()
                return
            core.fold(stored, process.monotonic)
        if core.folded < servers.log.head:
            self.soon()
        if self._waits is not None and core.folded >= self._waits[0]:
            _, then = self._waits
            self._waits = None
            then()
        if messages:
            self._on_folded()

    def _require_known(self, stored: StoredCommit[Any]) -> None:
        if not self._knows_all:
            require_known(stored)
