"""The real machines of the control plane on one log in memory, in simulated time: one instance of each, no faults.

Folding, deciding and appending follow the real `LoopCore`. Nothing takes time here but what the agenda says.
"""

from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Any

from taskyard.contracts.agent_protocol import AnyReport, AssignAnswer, ReportBatch
from taskyard.contracts.events import AnyEvent, decode_event
from taskyard.contracts.subjects import PARTITION_DEFAULT, log_stream, log_subject
from taskyard.contracts.values import SECOND, Instant, Position, Role
from taskyard.dispatcher.decide import Answered
from taskyard.dispatcher.delivery import SendAssignments, SendCancels
from taskyard.dispatcher.machine import Dispatcher
from taskyard.dispatcher.reports import ReportsRead
from taskyard.eventlog.commit import CommitCodec, StoredCommit
from taskyard.eventlog.log import StreamMessage
from taskyard.eventlog.memory import MemoryStream
from taskyard.machine.core import LoopCore
from taskyard.machine.inputs import Offered
from taskyard.replay.errors import ReplayTooLong
from taskyard.scheduler.machine import Scheduler
from taskyard.scheduler.messages import CommandMessage
from taskyard.slot_allocator.liveness import HeartbeatSeen, Listened
from taskyard.slot_allocator.machine import SlotAllocator

REPLAY_COMMITS_MAX = 5_000_000
INCARNATION = "r0"
"""Of every worker: nobody is started again here."""
NEVER_LOST_SECONDS = 1e9
"""Nobody beats here, and nobody is lost by silence."""

Step = Callable[[], None]
Do = Callable[[SendAssignments | SendCancels], None]

_codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)


class Everyone(Mapping[str, Role]):
    """Whoever asked was allowed to then."""

    def __getitem__(self, principal: str) -> Role:
        return Role.ADMIN

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


class Yard:
    """The control plane. `on_send` gets what the dispatcher sends to workers.

    A commit of scheduler or allocator is stored `hop_seconds` after it was decided. The dispatcher's are at once: how
    long it and a worker need belongs to the recorded durations.
    """

    def __init__(self, began: Instant, on_send: Do, *, hop_seconds: float = 0.0) -> None:
        self.now = began
        self._hop_seconds = hop_seconds
        self.commits: list[StoredCommit[Any]] = []
        self._began = began
        self._on_send = on_send
        self._stream = MemoryStream(log_stream(PARTITION_DEFAULT), lambda: self.now)
        self._scheduler: LoopCore[Any, Any] = LoopCore(Scheduler(Everyone()), _codec, "replay")
        self._allocator: LoopCore[Any, Any] = LoopCore(
            SlotAllocator(NEVER_LOST_SECONDS, NEVER_LOST_SECONDS), _codec, "replay"
        )
        self._dispatcher: LoopCore[Any, Any] = LoopCore(Dispatcher(), _codec, "replay")
        self._cores = (self._scheduler, self._allocator, self._dispatcher)
        self._agenda: list[tuple[Instant, int, Step]] = []
        self._on_their_way: list[LoopCore[Any, Any]] = []
        self._number = 0
        for core in self._cores:
            core.machine.stand_by()
            self._append(core, core.take_over(self._monotonic).data)
        self._fold()

    # -- time ----------------------------------------------------------------------------------------------------------

    def at(self, when: Instant, step: Step) -> None:
        """Do a step at a time, or now where that is over."""
        self._number += 1
        heappush(self._agenda, (max(when, self.now), self._number, step))

    def later(self, delay_seconds: float, step: Step) -> None:
        """Do a step after so many seconds."""
        self.at(Instant(self.now + round(delay_seconds * SECOND)), step)

    def run(self, until: Instant, is_over: Callable[[], bool], progress: Callable[[Instant], None]) -> None:
        """Go on until it is over, nothing is left to do, or the time is `until`.

        Raises:
            ReplayTooLong: it makes more commits than REPLAY_COMMITS_MAX.
        """
        while True:
            self._settle()
            if is_over() and not self._agenda:
                return
            when = self._next()
            if when is None or when > until:
                return
            self.now = max(self.now, when)
            self._allocator.offer(Offered(Listened(at=self._monotonic)))
            while self._agenda and self._agenda[0][0] <= self.now:
                heappop(self._agenda)[2]()
            progress(self.now)

    def _next(self) -> Instant | None:
        """When something is to be done. Whose commit is on its way decides nothing before it has arrived."""
        times = [self._agenda[0][0]] if self._agenda else []
        for core in self._cores:
            deadline = core.machine.next_deadline()
            if deadline is not None and core not in self._on_their_way:
                times.append(Instant(max(deadline, self.now)))
        return min(times, default=None)

    @property
    def _monotonic(self) -> float:
        return (self.now - self._began) / SECOND

    # -- inputs --------------------------------------------------------------------------------------------------------

    def command(self, message: CommandMessage) -> None:
        """A command was stored."""
        self._scheduler.offer(Offered(message))

    def hear(self, seen: HeartbeatSeen) -> None:
        """A worker spoke."""
        self._allocator.offer(Offered(seen))

    def answer(self, request: SendAssignments | SendCancels, positions: Sequence[Position]) -> None:
        """A worker accepts what it was sent."""
        answers = tuple(AssignAnswer(position=position, outcome="accepted") for position in positions)
        self._dispatcher.offer(Offered(Answered(request=request, answers=answers)))

    def report(self, agent: str, report: AnyReport) -> None:
        """A worker reports."""
        batch = ReportBatch(incarnation=INCARNATION, number=1, reports=(report,))
        self._dispatcher.offer(Offered(ReportsRead(agent=agent, batch=batch, size=0)))

    @property
    def has_live_tasks(self) -> bool:
        """Whether a task has not ended."""
        return bool(self._dispatcher.machine.state.tasks.live)  # pyright: ignore[reportAttributeAccessIssue]

    def stored(self) -> list[StreamMessage]:
        """The whole log as it was stored."""
        messages: list[StreamMessage] = []
        while batch := self._stream.after(len(messages)):
            messages += batch
        return messages

    # -- deciding ------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Let everybody decide and act until nobody has anything more to say."""
        is_settled = False
        while not is_settled:
            is_settled = True
            for core in self._cores:
                while (decided := core.decide(self._monotonic)) is not None:
                    if self._hop_seconds and core is not self._dispatcher:
                        self._on_their_way.append(core)
                        self.later(self._hop_seconds, lambda core=core, data=decided.data: self._store(core, data))
                        break
                    self._store(core, decided.data)
                    is_settled = False
            for effect in self._dispatcher.effects(self._monotonic):
                self._on_send(effect)
                is_settled = False
            self._scheduler.effects(self._monotonic)  # nobody waits for these answers

    def _store(self, core: LoopCore[Any, Any], data: bytes) -> None:
        if core in self._on_their_way:
            self._on_their_way.remove(core)
        self._append(core, data)
        self._fold()

    def _append(self, core: LoopCore[Any, Any], data: bytes) -> None:
        if len(self.commits) >= REPLAY_COMMITS_MAX:
            raise ReplayTooLong(f"the replay made {REPLAY_COMMITS_MAX} commits and was not over")
        writer = core.machine.writer
        sequence = self._stream.store(log_subject(PARTITION_DEFAULT, writer), data)
        self.commits.append(_codec.decode_stored(sequence=sequence, at=self.now, data=data, writer=writer))
        core.appended(sequence)

    def _fold(self) -> None:
        for core in self._cores:
            for stored in self.commits[core.folded :]:
                core.fold(stored, self._monotonic)
