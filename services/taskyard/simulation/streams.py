"""The servers of the world: the log with its fence, the streams of inputs, and leases. Every message is bytes.

Requests to them may be lost, late, or answered by silence, also when what was asked for has happened; a stream may be full,
and its clock may be set.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from taskyard.contracts.events import AnyEvent, decode_event
from taskyard.contracts.subjects import COMMANDS, REPORTS, log_stream, log_subject
from taskyard.contracts.values import Instant, seconds
from taskyard.eventlog.commit import CommitCodec, StoredCommit
from taskyard.eventlog.errors import Unanswered
from taskyard.eventlog.leases import MemoryLeases
from taskyard.eventlog.log import CURSOR_SEPARATOR, StreamMessage
from taskyard.eventlog.memory import MemoryStream
from taskyard.simulation.snapshots import Snapshots
from taskyard.simulation.time import World

LEASE_SECONDS = 3.0
PARTITION = "0"
FORGOTTEN_ID_CHANCE = 0.2
"""That the server no longer knows the id of a message that comes again."""

codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)


def cursor_name(stream: MemoryStream) -> str:
    """The key of an input stream's cursor in commits: see `taskyard.eventlog.memory.MemoryInput`."""
    return f"{stream.name}{CURSOR_SEPARATOR}{stream.made}"


def read_whole(stream: MemoryStream) -> list[StreamMessage]:
    """Everything that is in a stream."""
    messages: list[StreamMessage] = []
    while more := stream.after(len(messages)):
        messages += more
    return messages


@dataclass(kw_only=True)
class StoredInput:
    """An input that was acknowledged, and the name of its stream's cursor; `is_gone` if the stream was deleted since."""

    stream: str
    message: StreamMessage
    is_gone: bool = False


class Servers:
    """What NATS is to the services. `listeners` are told of every message that a stream stored.

    `inputs` are all that were ever stored, by the names of their streams.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock_offset_seconds = 0.0
        self.is_lease_broken = False
        self.is_archive_away = False
        self.full: set[str] = set()
        self.log = MemoryStream(log_stream(PARTITION), self.clock)
        self.commands = MemoryStream(COMMANDS, self.clock)
        self.reports = MemoryStream(REPORTS, self.clock)
        self.snapshots = Snapshots()
        self.listeners: list[Callable[[MemoryStream], None]] = []
        self.stored_at: list[float] = []
        self.inputs: dict[str, list[StoredInput]] = {COMMANDS: [], REPORTS: []}
        self._leases = MemoryLeases(self.clock_of_leases, lease_seconds=LEASE_SECONDS)
        self._message_ids: set[str] = set()
        self._decoded: list[StoredCommit[Any]] = []

    def clock(self) -> Instant:
        """The clock of the server that leads the streams: another one may lead tomorrow, with another clock."""
        return Instant(self.world.instant + seconds(self.clock_offset_seconds))

    def clock_of_leases(self) -> Instant:
        """Leases expire by elapsed time."""
        return self.world.instant

    def step_clock(self, by_seconds: float) -> None:
        """Set the clock of the streams forward or back."""
        self.clock_offset_seconds += by_seconds

    # -- the log -------------------------------------------------------------------------------------------------------

    def append(self, data: bytes, writer: str, expected: int) -> int:
        """Store a commit if the writer's last one is at `expected`.

        Raises:
            AppendRejected: it is not.
            Unanswered: the stream is full.
        """
        if self.log.name in self.full:
            raise Unanswered("maximum bytes exceeded")
        sequence = self.log.store(log_subject(PARTITION, writer), data, expected=expected)
        self.stored_at.append(self.world.now)
        self._tell(self.log)
        return sequence

    def last(self, writer: str) -> tuple[int, bytes] | None:
        """Sequence and bytes of the writer's last commit."""
        message = self.log.last(log_subject(PARTITION, writer))
        return (message.sequence, message.data) if message else None

    def decoded(self, message: StreamMessage, log_time: Instant) -> StoredCommit[Any]:
        """A message of the log as a follower gives it, whose time never goes back behind `log_time`.

        Events are immutable, so all who follow share what the codec made of the bytes once.
        """
        while len(self._decoded) < message.sequence:
            one = self.log.after(len(self._decoded))[0]
            writer = one.subject.rpartition(".")[2]
            self._decoded.append(
                codec.decode_stored(sequence=one.sequence, at=one.at, data=one.data, writer=writer)
            )  # fmt: skip
        stored = self._decoded[message.sequence - 1]
        if stored.at >= log_time:
            return stored
        return StoredCommit(sequence=stored.sequence, at=log_time, commit=stored.commit, hash=stored.hash)

    # -- inputs --------------------------------------------------------------------------------------------------------

    def store(
        self, stream: MemoryStream, subject: str, data: bytes, *, id: str | None = None, headers: Mapping[str, str] = {}
    ) -> bool:
        """Store an input; False if there is no room. One whose id came before is dropped, as long as the server knows it."""
        if stream.name in self.full:
            return False
        if id is None or id not in self._message_ids or self.world.chance(FORGOTTEN_ID_CHANCE):
            if id is not None:
                self._message_ids.add(id)
            stream.store(subject, data, headers=headers)
            message = stream.after(stream.head - 1)[0]
            self.inputs[stream.name].append(StoredInput(stream=cursor_name(stream), message=message))
            self._tell(stream)
        return True

    def make_anew(self, stream: MemoryStream) -> None:
        """Delete an input stream with all that is in it, and make another one of its name."""
        stream.make_anew()
        self._message_ids.clear()
        for each in self.inputs[stream.name]:
            each.is_gone = True

    # -- leases --------------------------------------------------------------------------------------------------------

    def claim(self, writer: str, instance: str, *, renew: bool) -> bool:
        """Take or prolong a lease. A broken one is given to whoever asks: safety must not depend on it."""
        holder = self._leases.holder(writer)
        if self.is_lease_broken or holder == instance or (holder is None and not renew):
            self._leases.hold(writer, instance)
            return True
        return False

    def release(self, writer: str, instance: str) -> None:
        """Give a lease up at once."""
        if self._leases.holder(writer) == instance:
            self._leases.free(writer)

    def _tell(self, stream: MemoryStream) -> None:
        for listener in self.listeners:
            listener(stream)
