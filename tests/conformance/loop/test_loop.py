"""The loop over the log's twin: several instances, silent appends, crashes between steps; each input is noted once."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest
from tally import CODEC, Foreign, Tally

from taskyard.contracts.values import Instant
from taskyard.eventlog.commit import Commit, StoredCommit
from taskyard.eventlog.errors import LogGap
from taskyard.eventlog.leases import MemoryLease, MemoryLeases
from taskyard.eventlog.log import StreamMessage
from taskyard.eventlog.memory import MemoryInput, MemoryLog, MemoryStream
from taskyard.eventlog.snapshots import MemorySnapshots
from taskyard.machine.core import LoopCore, Role
from taskyard.machine.loop import MachineLoop, Source

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 20.0
LEASE_SECONDS = 0.3


def clock() -> Instant:
    return Instant(time.time_ns() // 1000)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not holds():
            await asyncio.sleep(0.005)


class HangingLog(MemoryLog[Any]):
    """A handle whose next append that has events never comes back: before it was stored, or after."""

    hangs: str | None = None
    is_hanging = False

    async def append(self, data: bytes, *, writer: str, expected: int) -> int:
        hangs = self.hangs if CODEC.decode(data).events else None
        if hangs != "before":
            sequence = await super().append(data, writer=writer, expected=expected)
        if hangs is not None:
            self.is_hanging = True
            await asyncio.Event().wait()
        return sequence


class LyingLease:
    """A lease that everybody has."""

    async def try_acquire(self, instance: str) -> bool:
        return True

    async def renew(self) -> bool:
        return True

    async def release(self) -> None:
        """Nobody gets it, since all have it."""


class Instance:
    """One instance that runs in this process, and can be stopped or killed."""

    def __init__(self, place: "Place", name: str, lease: Any, log: MemoryLog[Any]) -> None:
        self.machine = Tally()
        self.log = log
        self.acted: list[int] = []
        self.loop = MachineLoop(
            LoopCore(self.machine, CODEC, name),
            log=log,
            lease=lease,
            lease_seconds=LEASE_SECONDS,
            snapshots=place.snapshots,
        )
        self._stop = asyncio.Event()
        source = Source(stream=MemoryInput(place.inputs), read=self._read)
        self.task = asyncio.create_task(self.loop.run(self._stop, [source], self._perform))

    async def _read(self, message: StreamMessage) -> int:
        return int(message.data)

    async def _perform(self, effect: int) -> None:
        self.acted.append(effect)
        if effect == 13:
            raise RuntimeError("this effect brings no luck")

    @property
    def leads(self) -> bool:
        return self.loop.core.role is Role.LEADER

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.wait_for(self.task, DEADLINE_SECONDS)

    async def kill(self) -> None:
        """End it where it is, without handing over."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Place:
    """What instances share: the log, the inputs, the leases, the snapshots."""

    def __init__(self) -> None:
        self.stream = MemoryStream("LOG", clock)
        self.inputs = MemoryStream("IN", clock)
        self.leases = MemoryLeases(clock, lease_seconds=LEASE_SECONDS)
        self.snapshots = MemorySnapshots()
        self.instances: list[Instance] = []

    def start(self, name: str, *, lease: Any = None, append_seconds_max: float = 5.0) -> Instance:
        log = HangingLog(self.stream, "log", CODEC, append_seconds_max=append_seconds_max)
        instance = Instance(self, name, lease or MemoryLease(self.leases, "tally"), log)
        self.instances.append(instance)
        return instance

    async def leader(self, name: str) -> Instance:
        instance = self.start(name)
        await until(lambda: instance.leads)
        return instance

    def tell(self, *numbers: int) -> None:
        for number in numbers:
            self.inputs.store("in", str(number).encode())

    def foreign(self, number: int) -> None:
        commit = Commit(writer="other", instance="x", epoch=1, at=clock(), events=(Foreign(number),))
        self.stream.store("log.other", CODEC.encode(commit))

    def commits(self) -> list[StoredCommit[Any]]:
        return [
            CODEC.decode_stored(sequence=each.sequence, at=each.at, data=each.data, writer=each.subject.split(".")[1])
            for each in self.stream.after(0)
        ]

    def noted(self) -> list[int]:
        """What the log says was noted, in its order."""
        commits = [stored.commit for stored in self.commits() if stored.commit.writer == "tally"]
        return [event.number for commit in commits for event in commit.events]

    def check_chain(self) -> None:
        """Each commit of the writer stands on the one before, and epochs only rise."""
        own = [stored for stored in self.commits() if stored.commit.writer == "tally"]
        for before, after in pairwise(own):
            assert after.commit.previous == before.hash
            assert after.commit.epoch >= before.commit.epoch
            assert after.commit.instance == before.commit.instance or after.commit.epoch > before.commit.epoch


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = Place()
    yield made
    for instance in made.instances:
        await instance.kill()


# -- one instance ------------------------------------------------------------------------------------------------------


async def test_inputs_are_noted_in_order_and_acted_on_after_their_commit(place: Place) -> None:
    one = await place.leader("one")

    place.tell(*range(1, 21))
    await until(lambda: place.noted() == list(range(1, 21)))

    await until(lambda: bool(one.acted) and one.acted[-1] == 20)
    assert one.machine.numbers == place.noted()
    place.check_chain()


async def test_an_observation_is_decided_on_and_a_standby_drops_it(place: Place) -> None:
    one, two = await place.leader("one"), place.start("two")

    two.loop.post(7)
    one.loop.post(8)

    await until(lambda: place.noted() == [8])


async def test_an_effect_that_fails_ends_nothing(place: Place) -> None:
    one = await place.leader("one")

    place.tell(*range(1, 14))
    await until(lambda: 13 in one.acted)
    place.tell(99)

    await until(lambda: place.noted()[-1] == 99)


async def test_what_others_write_is_folded(place: Place) -> None:
    place.foreign(1)
    one = await place.leader("one")

    place.foreign(2)

    await until(lambda: one.machine.foreign == [1, 2])


async def test_a_deadline_of_the_machine_wakes_it(place: Place) -> None:
    one = await place.leader("one")
    one.machine.deadline = Instant(one.loop.core.now(time.monotonic()) + 50_000)
    one.loop.post(-1)  # it looks once, and finds the deadline
    await until(lambda: one.loop.core.inputs_waiting == 0)
    looked = len(one.machine.decided_on)

    await until(lambda: len(one.machine.decided_on) > looked + 1)
    one.machine.deadline = None


async def test_more_inputs_than_there_is_room_for_wait_in_their_stream(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.machine.core.INPUTS_WAITING_MAX", 5)
    place.tell(*([-1] * 50), *range(1, 51))

    await place.leader("one")

    await until(lambda: place.noted() == list(range(1, 51)))


async def test_a_log_that_lost_commits_ends_the_program(place: Place) -> None:
    place.foreign(1)
    place.foreign(2)
    place.stream.expire(1)

    one = place.start("one")

    with pytest.raises(LogGap):
        await asyncio.wait_for(one.task, DEADLINE_SECONDS)


# -- silent appends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [True, False], ids=["stored all the same", "lost"])
async def test_an_append_without_an_answer_is_stored_once_and_the_leader_leads_on(place: Place, stored: bool) -> None:
    one = await place.leader("one")

    one.log.fail_next_append(stored=stored)
    place.tell(1, 2, 3)
    await until(lambda: place.noted() == [1, 2, 3])
    place.tell(4)
    await until(lambda: place.noted() == [1, 2, 3, 4])

    assert one.loop.core.epoch == 1
    place.check_chain()


@pytest.mark.parametrize("stored", [True, False], ids=["stored all the same", "lost"])
async def test_so_it_is_with_the_epoch_of_one_that_takes_over(place: Place, stored: bool) -> None:
    one = place.start("one")
    one.log.fail_next_append(stored=stored)

    await until(lambda: one.leads)
    place.tell(1)
    await until(lambda: place.noted() == [1])

    assert one.loop.core.epoch == 1


@pytest.mark.parametrize("stored", [True, False], ids=["stored all the same", "lost"])
async def test_who_cannot_learn_the_outcome_steps_down_and_decides_nothing_twice(place: Place, stored: bool) -> None:
    one = place.start("one", append_seconds_max=0.0)
    await until(lambda: one.leads)
    for _ in range(3):
        one.log.fail_next_append(stored=stored)
        stored = False

    place.tell(1, 2)
    await until(lambda: place.noted() == [1, 2])
    place.tell(3)
    await until(lambda: place.noted() == [1, 2, 3])

    place.check_chain()


# -- several instances -------------------------------------------------------------------------------------------------


async def test_one_leads_and_the_other_folds(place: Place) -> None:
    one, two = await place.leader("one"), place.start("two")

    place.tell(1, 2, 3)

    await until(lambda: two.machine.numbers == [1, 2, 3])
    assert (one.leads, two.leads, two.acted) == (True, False, [])


async def test_the_other_takes_over_when_the_leader_is_killed(place: Place) -> None:
    one, two = await place.leader("one"), place.start("two")
    place.tell(1, 2, 3)
    await until(lambda: len(place.noted()) == 3)

    await one.kill()
    place.tell(4)

    await until(lambda: place.noted() == [1, 2, 3, 4])
    assert two.leads and two.loop.core.epoch == 2
    place.check_chain()


async def test_who_is_stopped_gives_the_lease_up_at_once(place: Place) -> None:
    one = await place.leader("one")

    await one.stop()

    assert place.leases.holder("tally") is None


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_crash_around_the_append_loses_and_doubles_nothing(place: Place, where: str) -> None:
    one = await place.leader("one")
    assert isinstance(one.log, HangingLog)
    one.log.hangs = where
    place.tell(1, 2)
    log = one.log
    await until(lambda: log.is_hanging)

    await one.kill()
    two = place.start("two")
    place.tell(3)

    await until(lambda: two.machine.numbers == [1, 2, 3])
    assert place.noted() == [1, 2, 3]
    place.check_chain()


async def test_a_leader_that_hangs_is_fenced_off(place: Place) -> None:
    """Its lease is another's while its append hangs: it steps down, and what it had decided is decided anew."""
    one = await place.leader("one")
    assert isinstance(one.log, HangingLog)
    one.log.hangs = "before"
    place.tell(1)
    log = one.log
    await until(lambda: log.is_hanging)
    late = one.loop.core.decide(time.monotonic())
    assert late is None, "nothing else is decided while one append is in flight"

    place.leases.hold("tally", "two")
    two = place.start("two")
    await until(lambda: two.leads)
    await until(lambda: not one.leads)

    place.tell(2)
    await until(lambda: place.noted() == [1, 2])
    place.check_chain()


async def test_a_lost_lease_ends_a_leadership(place: Place) -> None:
    one = await place.leader("one")

    place.leases.hold("tally", "a stranger")

    await until(lambda: not one.leads)


async def test_a_lease_that_everybody_has_harms_nothing(place: Place) -> None:
    """The lease only picks who runs: with two who both believe to lead, the fence alone keeps the log right."""
    for name in ("one", "two", "three"):
        place.start(name, lease=LyingLease())
    for number in range(1, 61):
        place.tell(number)
        await asyncio.sleep(0)
    await until(lambda: len(place.noted()) >= 60)

    assert sorted(place.noted()) == list(range(1, 61))
    place.check_chain()


async def test_killing_again_and_again_loses_and_doubles_nothing(place: Place) -> None:
    for round_ in range(6):
        one = await place.leader(f"leader{round_}")
        place.tell(*range(round_ * 10, round_ * 10 + 10))
        await until(lambda seen=round_ * 10 + 1: len(place.noted()) >= seen)  # type: ignore[misc]
        await one.kill()
        place.leases.free("tally")

    await place.leader("last")
    await until(lambda: len(place.noted()) == 60)
    assert place.noted() == list(range(60))
    place.check_chain()


# -- snapshots ---------------------------------------------------------------------------------------------------------


async def test_a_new_instance_goes_on_behind_a_snapshot(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskyard.machine.loop.MachineLoop._save_snapshot_if_due.__defaults__", (6,))
    one = await place.leader("one")
    place.tell(*range(1, 10))
    await until(lambda: one.loop.snapshots_saved == 1 and len(place.noted()) == 9)
    await one.stop()

    two = await place.leader("two")

    assert two.machine.numbers == list(range(1, 10))
    assert len(two.machine.applied) < 9
    place.tell(10)
    await until(lambda: place.noted() == list(range(1, 11)))
    place.check_chain()


@pytest.mark.parametrize("data", [b"nonsense", b"{}", b"[]"])
async def test_an_unreadable_snapshot_is_passed_over(place: Place, data: bytes) -> None:
    one = await place.leader("one")
    place.tell(1, 2)
    await until(lambda: len(place.noted()) == 2)
    await one.stop()
    await place.snapshots.save("tally", 1, place.stream.head, data)

    two = await place.leader("two")

    assert two.machine.numbers == [1, 2]
