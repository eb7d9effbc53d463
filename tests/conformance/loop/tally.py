"""The smallest machine that has everything: it writes down each number that it is told, once."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from taskyard.contracts.values import SECOND, Instant, Position
from taskyard.eventlog.commit import Commit, CommitCodec, StoredCommit
from taskyard.eventlog.memory import MemoryStream
from taskyard.machine.core import LoopCore, Role
from taskyard.machine.deadlines import Deadlines
from taskyard.machine.deciding import Append
from taskyard.machine.inputs import Offered
from taskyard.machine.machine import Decision, Fault

START = Instant(1_790_000_000 * SECOND)
PER_DECISION_MAX = 3


class Noted(Struct, frozen=True, tag=True, tag_field="type"):
    number: int


class Foreign(Struct, frozen=True, tag=True, tag_field="type"):
    """An event of another writer."""

    number: int


def decode_event(raw: Raw) -> Noted | Foreign:
    return msgspec.json.decode(raw, type=Noted | Foreign)


CODEC: CommitCodec[Any] = CommitCodec(Noted | Foreign, decode_event)


class Tally:
    """Notes numbers. Negative ones it takes and drops; what it knows it does not note again."""

    writer = "tally"
    snapshot_version = 1

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.deadlines = Deadlines()
        self.foreign: list[int] = []
        self.applied: list[tuple[Instant, Position]] = []
        self.deadline: Instant | None = None
        self.leads = False
        self.looked_again = 0
        self.refused: list[int] = []
        self.decided_on: list[list[int]] = []

    def apply(self, event: Any, at: Instant, position: Position) -> None:
        (self.numbers if isinstance(event, Noted) else self.foreign).append(event.number)
        self.applied.append((at, position))

    def lead(self, now: Instant) -> None:
        self.leads = True

    def stand_by(self) -> None:
        self.leads = False

    def decide(self, now: Instant, inputs: Sequence[int]) -> Decision:
        taken = list(inputs[:PER_DECISION_MAX])
        self.decided_on.append(taken)
        new = dict.fromkeys(number for number in taken if number >= 0 and number not in self.numbers)
        return Decision(events=[Noted(number) for number in new], taken=len(taken))

    def look_again(self, now: Instant) -> None:
        self.looked_again += 1

    def refuse(self, now: Instant, culprit: int, error: Exception) -> Decision:
        self.refused.append(culprit)
        return Decision(
            events=[Noted(-culprit)] if culprit >= 0 else [], taken=1, faults=(Fault(f"number {culprit}", error),)
        )

    def effects(self, now: Instant) -> Sequence[int]:
        return [len(self.numbers)]

    def next_deadline(self) -> Instant | None:
        return self.deadline

    def snapshot(self) -> bytes:
        return msgspec.json.encode((self.numbers, self.foreign))

    def restore(self, data: bytes) -> None:
        self.numbers, self.foreign = msgspec.json.decode(data, type=tuple[list[int], list[int]])


class Yard:
    """A log, and the cores of instances that fold it by hand."""

    def __init__(self) -> None:
        self.now = START
        self.stream = MemoryStream("LOG", lambda: self.now)

    def core(self, instance: str) -> LoopCore[int, int]:
        return LoopCore(Tally(), CODEC, instance)

    def store(self, append: Append, writer: str = "tally") -> int:
        """What a server does with an append; AppendRejected where the fence has moved."""
        return self.stream.store(f"log.{writer}", append.data, expected=append.expected)

    def foreign(
        self,
        *numbers: int,
        writer: str = "other",
        decided_at: Instant | None = None,
        stored_at: Instant | None = None,
    ) -> int:
        """A commit of another writer, decided and stored just now, or when it is told."""
        commit = Commit(
            writer=writer,
            instance="x",
            epoch=1,
            at=self.now if decided_at is None else decided_at,
            events=tuple(Foreign(number) for number in numbers),
        )
        self.now = self.now if stored_at is None else stored_at
        return self.stream.store(f"log.{writer}", CODEC.encode(commit))

    def commits(self) -> list[StoredCommit[Any]]:
        return [
            CODEC.decode_stored(
                sequence=message.sequence, at=message.at, data=message.data, writer=message.subject.split(".")[1]
            )
            for message in self.stream.after(0)
        ]

    def fold(self, *cores: LoopCore[int, int], monotonic: float = 0.0) -> None:
        """Everything that these cores have not folded yet."""
        for core in cores:
            for stored in self.commits()[core.folded :]:
                core.fold(stored, monotonic)

    def leader(self, instance: str = "one") -> LoopCore[int, int]:
        """An instance that has taken over."""
        core = self.core(instance)
        self.fold(core)
        core.appended(self.store(core.take_over(0.0)))
        self.fold(core)
        assert core.role is Role.LEADER
        return core

    def tell(self, core: LoopCore[int, int], *numbers: int, first: int | None = None) -> None:
        """Inputs: of the stream `IN` from sequence `first` on, or observations."""
        for index, number in enumerate(numbers):
            offered = Offered(number) if first is None else Offered(number, "IN", first + index)
            core.offer(offered)


def tally(core: LoopCore[int, int]) -> Tally:
    machine = core.machine
    assert isinstance(machine, Tally)
    return machine
