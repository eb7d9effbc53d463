"""One instance of a machine, running: what `taskyard.machine.loop` does with asyncio, told as steps of the world.

Follows the log, campaigns for the lease, and while leading reads inputs, decides, appends, waits for its own commit, acts.
What may be decided when is the real `LoopCore`; how an append is resolved is the real `append_resolved`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

from taskyard.contracts.events import AnyEvent, decode_event
from taskyard.contracts.values import Instant
from taskyard.eventlog.commit import CommitCodec
from taskyard.eventlog.errors import FenceMoved, LogUnavailable
from taskyard.eventlog.log import StreamMessage
from taskyard.eventlog.memory import MemoryStream
from taskyard.machine.core import Append, LoopCore, Offered, Role, SavedLoop
from taskyard.machine.machine import Machine
from taskyard.simulation.appending import Appender, Driver, append
from taskyard.simulation.network import Network
from taskyard.simulation.streams import LEASE_SECONDS, Servers
from taskyard.simulation.time import Process, Step

RENEW_SECONDS = LEASE_SECONDS / 3
SNAPSHOT_CHANCE = 0.05
SNAPSHOTS_KEPT = 3
THINKING_SECONDS = 0.001

_codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)


class Service(Protocol):
    """What a service adds to its machine."""

    writer: str

    def make_machine(self) -> Machine[Any, Any]:
        """A machine that knows nothing yet."""
        ...

    @property
    def sources(self) -> Mapping[str, MemoryStream]:
        """The streams that it reads inputs from."""
        ...

    def read(self, instance: "Instance", message: StreamMessage) -> Any:
        """The input that a stored message is."""
        ...

    def perform(self, instance: "Instance", effect: Any) -> None:
        """Carry out one effect."""
        ...


class _Snapshot(Struct, frozen=True):
    loop: SavedLoop
    machine: Raw


class Instance(Process):
    """A process of one service."""

    def __init__(self, service: Service, letter: str, servers: Servers, network: Network) -> None:
        super().__init__(servers.world, f"{service.writer}-{letter}")
        self.service = service
        self.servers = servers
        self.core: LoopCore[Any, Any]
        self.is_stalled = False
        self.is_deaf = False
        self.on_append: Callable[[Instance], None] = lambda _: None
        self.terms = 0
        self.steps_down: list[str] = []
        self._appender = Appender(self, servers, network)
        self._leads = False
        self._decides = False
        self._append: Driver | None = None
        self._waits: tuple[int, Step] | None = None
        self._read: dict[str, int] = {}
        self._due: set[str] = set()
        self._alarm = 0
        servers.listeners.append(self._stored)

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self, *, snapshot: bool = True) -> None:
        """Start the process: from a snapshot if there is one and it is to be used, else from the first commit on."""
        self.life += 1
        self.is_up = True
        self.core = LoopCore(self.service.make_machine(), _codec, f"{self.name}-{self.life}")
        saved = self.servers.snapshots.get(self.service.writer)
        if snapshot and saved:
            found = msgspec.json.decode(self.world.random.choice(saved), type=_Snapshot)
            self.core.machine.restore(bytes(found.machine))
            self.core.restore(found.loop, self.monotonic)
        self.core.machine.stand_by()
        self._leads = self._decides = False
        self._append, self._waits = None, None
        self._due.clear()
        self._soon("fold", self._fold)
        self.later(self.world.random.uniform(0.0, RENEW_SECONDS), self._campaign)

    def crash(self) -> None:
        """End the process: what it knew is gone, what it sent is not."""
        self.life += 1
        self.is_up = False
        if self._append is not None:
            self._append.close()

    @property
    def leads(self) -> bool:
        """Whether it decides now, as far as it knows."""
        return self.is_up and self.core.role is Role.LEADER

    @property
    def is_idle(self) -> bool:
        """Whether it has folded, read and decided everything that is there."""
        read = all(self._read.get(name, 0) == stream.head for name, stream in self.service.sources.items())
        waits = not self._leads or (read and self._append is None and not self.core.inputs_waiting)
        return self.is_up and self.core.folded == self.servers.log.head and waits

    def post(self, observation: Any) -> None:
        """Let the machine decide on what was observed."""
        if self.core.has_room:
            self.core.offer(Offered(observation))
            self._wake()

    def post_now(self, observe: Callable[[], Any]) -> None:
        """Let the machine decide on something that is observed at a time of this process."""
        self.later(0.0, lambda: self.post(observe()))

    # -- following -----------------------------------------------------------------------------------------------------

    def _stored(self, stream: MemoryStream) -> None:
        if not self.is_up:
            return
        if stream is self.servers.log:
            self._soon("fold", self._fold)
        elif self._decides and stream.name in self.service.sources:
            self._soon(stream.name, lambda: self._take(stream))

    def _soon(self, name: str, step: Step, delay_seconds: float | None = None) -> None:
        """Do a step once, however often it is asked for until then."""
        if name in self._due:
            return
        self._due.add(name)

        def once() -> None:
            self._due.discard(name)
            step()

        self.later(self.world.random.uniform(0.0005, 0.008) if delay_seconds is None else delay_seconds, once)

    def _fold(self) -> None:
        if self.is_stalled:
            return
        messages = self.servers.log.after(self.core.folded)
        if len(messages) > 1 and self.world.chance(0.2):
            messages = messages[: self.world.random.randrange(1, len(messages))]
        for message in messages:
            writer = message.subject.rpartition(".")[2]
            at = Instant(max(message.at, self.core.log_time))
            stored = _codec.decode_stored(sequence=message.sequence, at=at, data=message.data, writer=writer)
            self.core.fold(stored, self.monotonic)
        if self.core.folded < self.servers.log.head:
            self._soon("fold", self._fold)
        if self._waits is not None and self.core.folded >= self._waits[0]:
            _, then = self._waits
            self._waits = None
            then()
        if messages:
            self._wake()

    def resume_following(self) -> None:
        """The connection over which it follows the log is back."""
        self.is_stalled = False
        if self.is_up:
            self._soon("fold", self._fold)

    def _until_folded(self, sequence: int, then: Step) -> None:
        if self.core.folded >= sequence:
            then()
        else:
            self._waits = (sequence, then)

    # -- leading -------------------------------------------------------------------------------------------------------

    def _campaign(self) -> None:
        self.later(RENEW_SECONDS * self.world.random.uniform(0.9, 1.1), self._campaign)
        if self.world.chance(0.02):  # the lease's server does not answer
            granted = False
        else:
            granted = self.servers.claim(self.service.writer, self.core.instance, renew=self._leads)
        if self._leads and not granted:
            self._stop_leading("the lease was lost")
        elif granted and not self._leads:
            self._leads = True
            self.terms += 1
            self._ask_head()

    def _ask_head(self) -> None:
        async def ask() -> int:
            return await self._appender.head()

        self._append = Driver(
            self, ask(), lambda head: self._until_folded(head, self._take_over), self._append_failed
        )  # fmt: skip

    def _take_over(self) -> None:
        self._start_append(self.core.take_over(self.monotonic), self._took_over)

    def _took_over(self) -> None:
        if self.core.role is not Role.LEADER:
            self._stop_leading("another instance took over")
            return
        self._decides = True
        for name, stream in self.service.sources.items():
            self._read[name] = self.core.cursors.get(name, 0)
            self._soon(name, lambda stream=stream: self._take(stream))
        self._wake()

    def _stop_leading(self, reason: str) -> None:
        self.steps_down.append(reason)
        self._leads = self._decides = False
        self._waits = None
        if self._append is not None:
            self._append.close()
            self._append = None
        self.core.step_down()

    # -- inputs --------------------------------------------------------------------------------------------------------

    def _take(self, stream: MemoryStream) -> None:
        if not self._decides:
            return
        for message in stream.after(self._read[stream.name]):
            self._read[stream.name] = message.sequence
            self.core.offer(Offered(self.service.read(self, message), stream.name, message.sequence))
        self._wake()

    def read_again(self) -> None:
        """Its readers lose their place and read everything once more."""
        if self._decides:
            for name, stream in self.service.sources.items():
                self._read[name] = 0
                self._soon(name, lambda stream=stream: self._take(stream))

    # -- deciding ------------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._decides and self._append is None:
            self._soon("decide", self._decide, THINKING_SECONDS * self.world.random.random())

    def _decide(self) -> None:
        if not self._decides or self._append is not None:
            return
        decided = self.core.decide(self.monotonic)
        if decided is not None:
            self._start_append(decided, self._decided)
            return
        self._act()
        if self.core.role is not Role.LEADER:
            self._stop_leading("another instance took over")
            return
        wait = self.core.wait_seconds(self.monotonic)
        if wait is not None:
            self._alarm += 1
            alarm = self._alarm
            self.later(max(wait, 0.001), lambda: self._wake() if alarm == self._alarm else None)

    def _decided(self) -> None:
        self._act()
        if self.world.chance(SNAPSHOT_CHANCE):
            self._save_snapshot()
        self._wake()

    def _start_append(self, decided: Append, then: Step) -> None:
        """Append, and go on once it is folded here."""
        writer = self.service.writer

        def stored(sequence: int) -> None:
            found = self.servers.log.after(sequence - 1)[0].data
            if found != decided.data:
                self.world.failures.append(
                    f"{self.name} holds an append for stored at {sequence}, where another stands"
                )
            self.core.appended(sequence)
            self._until_folded(sequence, folded)

        def folded() -> None:
            self._append = None
            then()

        def failed(error: Exception) -> None:
            last = self.servers.last(writer)
            if isinstance(error, FenceMoved) and last is not None and last[1] == decided.data:
                self.world.failures.append(f"{self.name} gave an append up that is stored last: {error}")
            self._append_failed(error)

        self.on_append(self)
        self._append = append(
            self, self._appender, decided.data, writer, decided.expected, done=stored, failed=failed
        )  # fmt: skip

    def _append_failed(self, error: Exception) -> None:
        if not isinstance(error, FenceMoved | LogUnavailable) and type(error).__name__ != "Unanswered":
            raise error
        self._append = None
        self._stop_leading(str(error))

    # -- acting and snapshots ------------------------------------------------------------------------------------------

    def _act(self) -> None:
        for effect in self.core.effects(self.monotonic):
            self.later(THINKING_SECONDS * self.world.random.random(), self._effect(effect))

    def _effect(self, effect: Any) -> Callable[[], None]:
        return lambda: self.service.perform(self, effect)

    def _save_snapshot(self) -> None:
        snapshot = msgspec.json.encode(_Snapshot(self.core.saved(), Raw(self.core.machine.snapshot())))
        kept = self.servers.snapshots.setdefault(self.service.writer, [])
        kept.append(snapshot)
        del kept[:-SNAPSHOTS_KEPT]
