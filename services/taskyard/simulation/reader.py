"""Somebody who reads the log now and then, and so knows what everybody may know."""

from taskyard.contracts.events import WorkerDrainRequested, WorkerJoined
from taskyard.contracts.lifecycle import TaskRecord
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import Incarnation, Instant, make_position
from taskyard.simulation.streams import Servers


class Reader:
    """What the log says up to where it was read: live tasks, ended ones, and workers that were drained and not restarted."""

    def __init__(self, servers: Servers) -> None:
        self.table = TaskTable()
        self.ended: dict[str, TaskRecord] = {}
        self.drained: dict[str, Incarnation] = {}
        self._servers = servers
        self._read = 0
        self._at = Instant(0)
        self._incarnations: dict[str, Incarnation] = {}

    def catch_up(self) -> None:
        """Read what is new."""
        while messages := self._servers.log.after(self._read):
            for message in messages:
                self._read = message.sequence
                stored = self._servers.decoded(message, self._at)
                self._at = stored.at
                for index, event in enumerate(stored.commit.events):
                    self._worker(event)
                    for change in self.table.apply(event, self._at, make_position(message.sequence, index)):
                        if change.record is not None and change.record.has_ended:
                            self.ended[change.record.id] = change.record

    def _worker(self, event: object) -> None:
        if isinstance(event, WorkerDrainRequested):
            self.drained[event.worker] = self._incarnations.get(event.worker, 0)
        elif isinstance(event, WorkerJoined):
            self._incarnations[event.worker] = event.incarnation
            if event.incarnation != self.drained.get(event.worker, event.incarnation):
                del self.drained[event.worker]
