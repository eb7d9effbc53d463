"""The loop over the log's twin: several instances, silent appends, crashes between steps; each input is noted once."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from msgspec import json
from structlog.testing import capture_logs
from tally import CODEC, PER_DECISION_MAX, Foreign, Tally

from taskyard.contracts.values import Instant
from taskyard.eventlog.commit import Commit, StoredCommit
from taskyard.eventlog.errors import LogGap, LogUnavailable
from taskyard.eventlog.leases import MemoryLease, MemoryLeases
from taskyard.eventlog.log import StreamMessage
from taskyard.eventlog.memory import MemoryInput, MemoryLog, MemoryStream
from taskyard.eventlog.snapshots import MemorySnapshots
from taskyard.machine.core import LoopCore, Role
from taskyard.machine.loop import MachineLoop, Source, at_once
from taskyard.machine.machine import Decision, Fault

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

    async def until_free(self, seconds_max: float) -> None:
        await asyncio.sleep(seconds_max)


class Instance:
    """One instance that runs in this process, and can be stopped or killed."""

    def __init__(
        self,
        place: "Place",
        name: str,
        lease: Any,
        log: MemoryLog[Any],
        told_again: Callable[[], Awaitable[None]] = at_once,
    ) -> None:
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
        self.task = asyncio.create_task(self.loop.run(self._stop, [source], self._perform, told_again))

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


async def test_a_message_that_cannot_be_read_is_passed_over_told_and_counted(place: Place) -> None:
    one = await place.leader("one")

    place.tell(1)
    place.inputs.store("in", b"no number")
    place.tell(2)

    await until(lambda: place.noted() == [1, 2])
    assert one.loop.inputs_failed == 1
    assert one.loop.core.cursors == {await MemoryInput(place.inputs).cursor_name(): 3}


async def test_an_input_on_which_deciding_raises_ends_no_service_and_is_counted(place: Place) -> None:
    one = await place.leader("one")
    decide = one.machine.decide

    def touchy(now: Instant, inputs: Sequence[int]) -> Decision:
        if 13 in inputs[:PER_DECISION_MAX]:
            raise ValueError(13)
        return decide(now, inputs)

    one.machine.decide = touchy  # type: ignore[method-assign]
    place.tell(1, 13, 2)

    await until(lambda: place.noted() == [1, -13, 2])
    assert (one.machine.refused, one.loop.inputs_failed, one.leads) == ([13], 1, True)


async def test_an_effect_that_cannot_be_made_or_carried_out_ends_no_service_and_is_counted(place: Place) -> None:
    one = await place.leader("one")
    make = one.machine.effects

    def touchy(now: Instant) -> Sequence[int | Fault]:
        made = [Fault("number 2", ValueError(2)) if number == 2 else number for number in make(now)]
        return [-1 if number == 4 else number for number in made]

    async def perform(number: int) -> None:
        if number < 0:
            raise ValueError(number)
        one.acted.append(number)

    one.machine.effects = touchy  # type: ignore[method-assign]
    one.loop._perform = perform  # pyright: ignore[reportPrivateUsage]
    for number in range(1, 6):
        place.tell(number)
        await until(lambda: len(place.noted()) == number)  # noqa: B023 - it is waited for within this turn

    await until(lambda: 5 in one.acted)
    assert 2 not in one.acted and 4 not in one.acted
    assert one.loop.effects_failed >= 2 and one.leads


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
    monkeypatch.setattr("taskyard.machine.snapshots.SnapshotKeeper.save_if_due.__defaults__", (6,))
    one = await place.leader("one")
    place.tell(*range(1, 10))
    await until(lambda: one.loop.snapshots.saved == 1 and len(place.noted()) == 9)
    await one.stop()

    two = await place.leader("two")

    assert two.machine.numbers == list(range(1, 10))
    assert len(two.machine.applied) < 9
    place.tell(10)
    await until(lambda: place.noted() == list(range(1, 11)))
    place.check_chain()


UNREADABLE = [
    pytest.param(b"nonsense", id="no JSON"),
    pytest.param(b"", id="empty"),
    pytest.param(b"{}", id="no parts"),
    pytest.param(b"[]", id="wrong type"),
    pytest.param(b'{"loop":{"sequence":"x"},"machine":[[],[]]}', id="wrong type in the loop's part"),
    pytest.param(None, id="wrong type in the machine's part"),
]


@pytest.mark.parametrize("data", UNREADABLE)
async def test_an_unreadable_snapshot_is_passed_over_for_the_one_before(place: Place, data: bytes | None) -> None:
    one = await place.leader("one")
    place.tell(*range(1, 5))
    await until(lambda: len(place.noted()) == 4)
    older, loop = one.machine.snapshot(), json.encode(one.loop.core.saved())
    sequence = place.stream.head
    await one.stop()
    await place.snapshots.save("tally", 1, sequence, b'{"loop":%b,"machine":%b}' % (loop, older))
    unreadable = data if data is not None else b'{"loop":%b,"machine":[["x"],7]}' % loop
    await place.snapshots.save("tally", 1, sequence + 1, unreadable)

    two = await place.leader("two")

    assert two.machine.numbers == [1, 2, 3, 4]
    assert two.machine.applied == [], "it began with the older snapshot"


@pytest.mark.parametrize("data", UNREADABLE[:2])
async def test_without_any_readable_snapshot_the_whole_log_is_folded(place: Place, data: bytes) -> None:
    one = await place.leader("one")
    place.tell(1, 2)
    await until(lambda: len(place.noted()) == 2)
    await one.stop()
    for sequence in (1, 2):
        await place.snapshots.save("tally", 1, sequence, data)

    two = await place.leader("two")

    assert (two.machine.numbers, len(two.machine.applied)) == ([1, 2], 2)


class SlowSnapshots(MemorySnapshots):
    """A store that answers nobody until it is told to, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.answers = asyncio.Event()
        self.error: Exception | None = None

    async def save(self, writer: str, version: int, sequence: int, data: bytes) -> None:
        self.asked += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        await super().save(writer, version, sequence, data)


async def test_nobody_waits_for_a_snapshot_and_one_is_saved_at_a_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.machine.snapshots.SnapshotKeeper.save_if_due.__defaults__", (2,))
    slow = place.snapshots = SlowSnapshots()
    one = await place.leader("one")

    place.tell(*range(1, 20))
    await until(lambda: len(place.noted()) == 19)
    assert (slow.asked, one.loop.snapshots.saved) == (1, 0)

    slow.answers.set()
    await until(lambda: one.loop.snapshots.saved == 1)
    found = await slow.load("tally", 1)
    assert found is not None and found[0] < place.stream.head, "it is of the time when it was begun"


async def test_a_machine_that_cannot_make_a_snapshot_goes_on_deciding_and_is_asked_again_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.machine.snapshots.SnapshotKeeper.save_if_due.__defaults__", (1,))
    with capture_logs() as logs:
        one = await place.leader("one")
        make, is_broken = one.machine.snapshot, True

        def touchy() -> bytes:
            if is_broken:
                raise ZeroDivisionError("a bug")
            return make()

        monkeypatch.setattr(one.machine, "snapshot", touchy)
        place.tell(1)
        await until(lambda: place.noted() == [1])
        await until(lambda: any(line["event"] == "a snapshot could not be made" for line in logs))
    assert one.loop.snapshots.saved == 0
    is_broken = False

    place.tell(2)

    await until(lambda: (place.noted(), one.loop.snapshots.saved) == ([1, 2], 1))


async def test_a_store_that_fails_stops_nobody(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskyard.machine.snapshots.SnapshotKeeper.save_if_due.__defaults__", (1,))
    failing = place.snapshots = SlowSnapshots()
    failing.answers.set()
    failing.error = LogUnavailable("away")
    one = await place.leader("one")

    for number in range(1, 4):
        place.tell(number)
        await until(lambda number=number: failing.asked >= number)

    await until(lambda: place.noted() == [1, 2, 3])
    await one.stop()
    assert one.loop.snapshots.saved == 0


# -- effects -----------------------------------------------------------------------------------------------------------


async def test_effects_beyond_the_limit_wait_until_there_is_room_and_none_is_dropped(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine counts what it gave out as done: what found no room would never be done."""
    monkeypatch.setattr("taskyard.machine.loop.EFFECTS_AT_ONCE_MAX", 2)
    one = await place.leader("one")
    may_end, at_once = asyncio.Event(), 0
    told: list[int] = []

    async def slowly(effect: int) -> None:
        nonlocal at_once
        at_once += 1
        told.append(effect)
        await may_end.wait()
        at_once -= 1

    one.loop._perform = slowly
    for number in range(1, 6):
        place.tell(number)
        await until(lambda number=number: len(place.noted()) == number)
    assert at_once == 2, "as many as there is room for"

    may_end.set()

    await until(lambda: at_once == 0 and told[-1] == 5)


# -- input streams that are not what they were -------------------------------------------------------------------------


async def test_an_input_stream_that_is_made_anew_while_it_is_read_is_read_from_its_start(place: Place) -> None:
    await place.leader("one")
    place.tell(1, 2, 3)
    await until(lambda: place.noted() == [1, 2, 3])
    place.inputs.make_anew()
    place.tell(4, 5)
    await until(lambda: place.noted() == [1, 2, 3, 4, 5])
    place.check_chain()


async def test_an_input_stream_that_was_made_anew_while_nobody_led_is_read_from_its_start(place: Place) -> None:
    first = await place.leader("first")
    place.tell(1, 2, 3)
    await until(lambda: place.noted() == [1, 2, 3])
    await first.stop()
    place.inputs.make_anew()
    place.tell(*range(4, 14))  # more than the former one had
    await place.leader("second")
    await until(lambda: place.noted() == list(range(1, 14)))


async def test_an_input_stream_that_lost_its_end_is_read_again_and_what_came_since_is_not_ignored(place: Place) -> None:
    first = await place.leader("first")
    place.tell(1, 2, 3, 4, 5)
    await until(lambda: len(place.noted()) == 5)
    await first.stop()
    place.inputs.lose_end(2)
    place.tell(6)
    second = await place.leader("second")
    await until(lambda: place.noted() == [1, 2, 3, 4, 5, 6])
    await second.stop()
    place.tell(7)
    await place.leader("third")
    await until(lambda: place.noted() == [1, 2, 3, 4, 5, 6, 7])


async def test_a_leader_that_stops_lets_another_one_lead_at_once(place: Place) -> None:
    one = await place.leader("one")
    two = place.start("two")
    await until(lambda: two.loop.is_recovered)
    began = time.monotonic()
    await one.stop()
    await until(lambda: two.leads)
    assert time.monotonic() - began < LEASE_SECONDS


async def test_a_leader_that_stops_tells_what_it_has_just_decided(place: Place) -> None:
    gate = asyncio.Event()

    class GatedLog(MemoryLog[Any]):
        is_waiting = False

        async def append(self, data: bytes, *, writer: str, expected: int) -> int:
            if CODEC.decode(data).events:
                self.is_waiting = True
                await gate.wait()
            return await super().append(data, writer=writer, expected=expected)

    log = GatedLog(place.stream, "log", CODEC)
    one = Instance(place, "one", MemoryLease(place.leases, "tally"), log)
    place.instances.append(one)
    await until(lambda: one.leads)
    place.tell(1)
    await until(lambda: log.is_waiting)
    stopping = asyncio.create_task(one.stop())
    await until(lambda: one.loop._is_leaving)
    gate.set()
    await stopping
    assert place.noted() == [1]
    assert one.acted[-1] == 1


# -- deadlines ---------------------------------------------------------------------------------------------------------


async def test_a_deadline_is_judged_when_what_was_stored_before_it_was_read_also_where_nothing_flows(
    place: Place,
) -> None:
    one = await place.leader("one")
    place.tell(*range(50))
    place.tell(-1)  # is taken and brings no event

    assert not one.machine.deadlines.is_read(clock())
    one.loop.post(-2)

    await until(lambda: not one.machine.deadlines.waits)
    assert place.noted() == list(range(50))


async def test_a_deadline_is_judged_only_when_what_nobody_heard_was_told_again(place: Place) -> None:
    told_again = asyncio.Event()
    asked: list[bool] = []

    async def until_told_again() -> None:
        asked.append(True)
        await told_again.wait()

    one = Instance(
        place, "one", MemoryLease(place.leases, "tally"), HangingLog(place.stream, "log", CODEC), until_told_again
    )
    place.instances.append(one)
    await until(lambda: one.leads)
    assert not one.machine.deadlines.is_read(clock())
    one.loop.post(1)
    await until(lambda: bool(asked) and place.noted() == [1])
    assert one.machine.deadlines.waits

    told_again.set()
    await until(lambda: not one.machine.deadlines.waits)


async def test_a_stream_whose_end_nobody_tells_is_asked_again_while_a_deadline_waits(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await place.leader("one")
    asked: list[int] = []

    async def end(self: MemoryInput) -> int:
        asked.append(1)
        await asyncio.sleep(0)
        if len(asked) < 3:
            raise LogUnavailable("away")
        return 0

    monkeypatch.setattr(MemoryInput, "end", end)
    assert not one.machine.deadlines.is_read(clock())
    one.loop.post(-1)

    await until(lambda: not one.machine.deadlines.waits)
    assert len(asked) == 3 and one.leads
