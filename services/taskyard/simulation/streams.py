"""The servers of the world: the log with its fence, the streams of inputs, and leases. Every message is bytes.

Requests to them may be lost, late, or answered by silence, also when what was asked for has happened.
"""

from collections.abc import Callable, Mapping

from taskyard.contracts.subjects import COMMANDS, REPORTS, log_stream, log_subject
from taskyard.contracts.values import Instant, seconds
from taskyard.eventlog.append import AppendRejected
from taskyard.eventlog.leases import MemoryLeases
from taskyard.eventlog.memory import MemoryStream
from taskyard.simulation.time import World

LEASE_SECONDS = 3.0
PARTITION = "0"


class Servers:
    """What NATS is to the services. `listeners` are told of every message that a stream stored."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock_offset_seconds = 0.0
        self.is_lease_broken = False
        self.log = MemoryStream(log_stream(PARTITION), self.clock)
        self.commands = MemoryStream(COMMANDS, self.clock)
        self.reports = MemoryStream(REPORTS, self.clock)
        self.snapshots: dict[str, list[bytes]] = {}
        self.listeners: list[Callable[[MemoryStream], None]] = []
        self._leases = MemoryLeases(self.clock_of_leases, lease_seconds=LEASE_SECONDS)
        self.stored_at: list[float] = []
        self._message_ids: set[str] = set()

    def clock(self) -> Instant:
        """The clock of the server that leads the streams: another one may lead tomorrow, with another clock."""
        return Instant(self.world.instant + seconds(self.clock_offset_seconds))

    def clock_of_leases(self) -> Instant:
        """Leases expire by elapsed time."""
        return self.world.instant

    # -- the log -------------------------------------------------------------------------------------------------------

    def append(self, data: bytes, writer: str, expected: int) -> int:
        """Store a commit if the writer's last one is at `expected`.

        Raises:
            AppendRejected: it is not.
        """
        sequence = self.log.store(log_subject(PARTITION, writer), data, expected=expected)
        self.stored_at.append(self.world.now)
        self._tell(self.log)
        return sequence

    def last(self, writer: str) -> tuple[int, bytes] | None:
        """Sequence and bytes of the writer's last commit."""
        message = self.log.last(log_subject(PARTITION, writer))
        return (message.sequence, message.data) if message else None

    # -- inputs --------------------------------------------------------------------------------------------------------

    def store(
        self, stream: MemoryStream, subject: str, data: bytes, *, id: str | None = None, headers: Mapping[str, str] = {}
    ) -> None:
        """Store an input. One whose id came before is dropped, as long as the server remembers ids."""
        if id is not None and id in self._message_ids and not self.world.chance(0.2):
            return
        if id is not None:
            self._message_ids.add(id)
        stream.store(subject, data, headers=headers)
        self._tell(stream)

    # -- leases --------------------------------------------------------------------------------------------------------

    def claim(self, writer: str, instance: str, *, renew: bool) -> bool:
        """Take or prolong a lease. A broken one is given to whoever asks: safety must not depend on it."""
        holder = self._leases.holder(writer)
        if self.is_lease_broken or holder == instance or (holder is None and not renew):
            self._leases.hold(writer, instance)
            return True
        return False

    def _tell(self, stream: MemoryStream) -> None:
        for listener in self.listeners:
            listener(stream)


__all__ = ["LEASE_SECONDS", "AppendRejected", "Servers"]
