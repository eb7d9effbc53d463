"""One instance of a machine, running: what `taskyard.machine.loop` does with asyncio, told as steps of the world.

Follows the log, campaigns for the lease, and while leading reads inputs, decides, appends, waits for its own commit, acts.
What may be decided when is the real `LoopCore`; how an append is resolved is the real `append_resolved`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from taskyard.contracts.events import LOG_VERSION
from taskyard.eventlog.errors import FenceMoved, LogUnavailable, LogVersionUnknown, Unanswered
from taskyard.eventlog.log import StreamMessage
from taskyard.eventlog.memory import MemoryStream
from taskyard.machine.core import LoopCore, Role
from taskyard.machine.deciding import Append
from taskyard.machine.inputs import Offered
from taskyard.machine.machine import Machine
from taskyard.simulation.appending import Appender, Driver, append
from taskyard.simulation.following import Following
from taskyard.simulation.network import Network
from taskyard.simulation.reading import Readings
from taskyard.simulation.streams import LEASE_SECONDS, Servers, codec
from taskyard.simulation.time import Process, Step

RENEW_SECONDS = LEASE_SECONDS / 3
LEASE_SILENT_CHANCE = 0.02
SUPERVISED_SECONDS = (1.0, 4.0)
SNAPSHOT_CHANCE = 0.05
SNAPSHOT_ON_STOP_CHANCE = 0.8
THINKING_SECONDS = 0.001


class Service(Protocol):
    """What a service adds to its machine."""

    writer: str

    def make_machine(self) -> Machine[Any, Any]:
        """A machine that knows nothing yet."""
        ...

    def started(self, instance: "Instance") -> None:
        """The process runs: what it does by itself begins."""
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


class Instance(Process):
    """A process of one service. `version` is the newest version of the log that its program knows, `knew` that of each
    life, by the name under which it appends.
    """

    def __init__(self, service: Service, letter: str, servers: Servers, network: Network) -> None:
        super().__init__(servers.world, f"{service.writer}-{letter}")
        self.service = service
        self.servers = servers
        self.core: LoopCore[Any, Any]
        self.following: Following
        self.is_deaf = False
        self.on_append: Callable[[Instance], None] = lambda _: None
        self.version = LOG_VERSION
        self.knew: dict[str, int] = {}
        self._appender = Appender(self, servers, network)
        self._leads = False
        self._decides = False
        self._append: Driver | None = None
        self._readings = Readings(service.sources)
        self._due: set[str] = set()
        self._alarm = 0
        servers.listeners.append(self._stored)

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process: from what snapshot it finds, else from the first commit on. Where the log has a version that
        it does not know it ends at once.
        """
        self.life += 1
        self.is_up = True
        self.core = LoopCore(self.service.make_machine(), codec, f"{self.name}-{self.life}")
        self.knew[self.core.instance] = self.version
        self.following = Following(
            self, self.core, self.servers, version=self.version, on_folded=self._wake, on_unknown=self._outdated
        )
        self._leads = self._decides = False
        self._readings.end()
        self._append = None
        self._due.clear()
        try:
            self.following.recover()
        except LogVersionUnknown:
            self._outdated()
            return
        self.following.soon()
        self.later(self.random.uniform(0.0, RENEW_SECONDS), self._campaign)
        self.service.started(self)

    def crash(self) -> None:
        """End the process: what it knew is gone, what it sent is not."""
        self.life += 1
        self.is_up = False
        if self._append is not None:
            self._append.close()

    def stop(self) -> None:
        """End the process in order: a leader saves what it has folded, and lets another one lead at once."""
        was_leader = self.core.role is Role.LEADER
        instance = self.core.instance
        self.core.step_down()
        if was_leader and self.random.random() < SNAPSHOT_ON_STOP_CHANCE:
            self.following.save()
        if was_leader:
            self.servers.release(self.service.writer, instance)
        self.crash()

    def _outdated(self) -> None:
        self.world.note(f"{self.name} ends: it does not know the version of the log")
        self.crash()
        self.world.later(self.random.uniform(*SUPERVISED_SECONDS), self._start_again)

    def _start_again(self) -> None:
        """What looks after processes starts it once more, of whatever version it is."""
        if not self.is_up:
            self.start()

    @property
    def leads(self) -> bool:
        """Whether it decides now, as far as it knows."""
        return self.is_up and self.core.role is Role.LEADER

    @property
    def is_idle(self) -> bool:
        """Whether it has folded, read and decided everything that is there."""
        waits = not self._leads or (self._readings.is_at_end and self._append is None and not self.core.inputs_waiting)
        return self.is_up and self.core.folded == self.servers.log.head and waits

    def post(self, observation: Any) -> None:
        """Let the machine decide on what was observed."""
        if self.core.has_room:
            self.core.offer(Offered(observation))
            self._wake()

    def post_now(self, observe: Callable[[], Any]) -> None:
        """Let the machine decide on something that is observed at a time of this process."""
        self.later(0.0, lambda: self.post(observe()))

    def _stored(self, stream: MemoryStream) -> None:
        if not self.is_up:
            return
        if stream is self.servers.log:
            self.following.soon()
        elif self._decides and stream.name in self.service.sources:
            self._take_soon(stream)

    def _soon(self, name: str, step: Step, delay_seconds: float) -> None:
        """Do a step once, however often it is asked for until then."""
        if name in self._due:
            return
        self._due.add(name)

        def once() -> None:
            self._due.discard(name)
            step()

        self.later(delay_seconds, once)

    # -- leading -------------------------------------------------------------------------------------------------------

    def _campaign(self) -> None:
        self.later(RENEW_SECONDS * self.random.uniform(0.9, 1.1), self._campaign)
        if self.world.chance(LEASE_SILENT_CHANCE, self.random):
            granted = False  # the lease's server does not answer
        else:
            granted = self.servers.claim(self.service.writer, self.core.instance, renew=self._leads)
        if self._leads and (not granted or self._readings.is_replaced):
            self._stop_leading()
        elif granted and not self._leads:
            self._leads = True
            self._ask_head()

    def _ask_head(self) -> None:
        async def ask() -> int:
            return await self._appender.head()

        self._append = Driver(
            self, ask(), lambda head: self.following.until_folded(head, self._take_over), self._append_failed
        )  # fmt: skip

    def _take_over(self) -> None:
        self._start_append(self.core.take_over(self.monotonic), self._took_over)

    def _took_over(self) -> None:
        if self.core.role is not Role.LEADER:
            self._stop_leading()
            return
        self._decides = True
        self._readings.begin(self.core)
        self._take_all_soon()
        self._wake()

    def _stop_leading(self) -> None:
        self._leads = self._decides = False
        self._readings.end()
        self.following.forget_waiting()
        if self._append is not None:
            self._append.close()
            self._append = None
        self.core.step_down()

    # -- inputs --------------------------------------------------------------------------------------------------------

    def _take_all_soon(self) -> None:
        for stream in self.service.sources.values():
            self._take_soon(stream)

    def _take_soon(self, stream: MemoryStream) -> None:
        self._soon(stream.name, lambda: self._take(stream), self.random.uniform(0.0005, 0.008))

    def _take(self, stream: MemoryStream) -> None:
        if not self._decides:
            return
        if self._readings.is_replaced:
            self._stop_leading()
            return
        self._readings.take(stream.name, lambda message: self.service.read(self, message))
        self._wake()

    def read_again(self) -> None:
        """Its readers lose their place and read everything once more."""
        if self._decides:
            self._readings.again()
            self._take_all_soon()

    # -- deciding ------------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._decides and self._append is None:
            self._soon("decide", self._decide, THINKING_SECONDS * self.random.random())

    def _decide(self) -> None:
        if not self._decides or self._append is not None:
            return
        decided = self.core.decide(self.monotonic)
        for fault in self.core.take_faults():  # a service goes on without it, and here it shows
            raise fault.error
        if decided is not None:
            self._start_append(decided, self._decided)
            return
        self._act()
        if self.core.role is not Role.LEADER:
            self._stop_leading()
            return
        if self.core.waits_for_inputs:
            self._soon("ends", self._tell_ends, THINKING_SECONDS)
        wait = self.core.wait_seconds(self.monotonic)
        if wait is not None:
            self._alarm += 1
            alarm = self._alarm
            self.later(max(wait, 0.001), lambda: self._wake() if alarm == self._alarm else None)

    def _tell_ends(self) -> None:
        """Read all that is stored by now, since a deadline waits for that."""
        until = self.core.now(self.monotonic)
        for stream in self.service.sources.values():
            self._take(stream)
        self.core.inputs_read(until)
        self._wake()

    def _decided(self) -> None:
        self._act()
        if self.world.chance(SNAPSHOT_CHANCE, self.random):
            self.following.save()
        self._wake()

    def _act(self) -> None:
        for effect in self.core.effects(self.monotonic):
            self.later(THINKING_SECONDS * self.random.random(), self._effect(effect))

    def _effect(self, effect: Any) -> Step:
        return lambda: self.service.perform(self, effect)

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
            self.following.until_folded(sequence, folded)

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
        if not isinstance(error, FenceMoved | LogUnavailable | Unanswered):
            raise error
        self._append = None
        self._stop_leading()
