"""One input never stops a loop: what makes deciding raise, or a commit too large, is found and refused by itself."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec import Raw, Struct, json
from tally import Noted, Tally, Yard

from taskyard.contracts.values import Instant
from taskyard.eventlog.commit import COMMIT_BYTES_AIM, COMMIT_BYTES_MAX, CommitCodec
from taskyard.machine.core import EFFECTS_AGAIN_SECONDS, LOOKS_AGAIN_SECONDS, LoopCore, Role
from taskyard.machine.deciding import INPUTS_OFFERED_MAX, Append
from taskyard.machine.machine import Decision
from taskyard.machine.telling import TOLD_AGAIN_SECONDS, TOLD_MAX, Telling


class Long(Struct, frozen=True, tag=True, tag_field="type"):
    number: int
    text: str


def _decode(raw: Raw) -> Noted | Long:
    return json.decode(raw, type=Noted | Long)


CODEC: CommitCodec[Any] = CommitCodec(Noted | Long, _decode)


class Touchy(Tally):
    """Notes numbers, any number at a time, with a text as long as `long` says, and raises on those of `bad`."""

    def __init__(self, *, bad: Sequence[int] = (), long: Callable[[int], int] = lambda _: 0) -> None:
        super().__init__()
        self.bad = bad
        self.long = long
        self.fails_always = False
        self.fails_to_refuse = False
        self.own: list[int] = []
        self.shown: list[int] = []

    def apply(self, event: Any, at: Instant, position: Any) -> None:
        super().apply(event, at, position)
        self.own = [number for number in self.own if number != event.number]

    def decide(self, now: Instant, inputs: Sequence[int]) -> Decision:
        self.shown.append(len(inputs))
        if self.fails_always or any(number in self.bad for number in inputs):
            raise ValueError("a number that nobody thought of")
        events: list[Any] = [Noted(number) for number in self.own]
        events += [Long(number, "x" * self.long(number)) for number in inputs if number not in self.numbers]
        return Decision(events=events, taken=len(inputs))

    def refuse(self, now: Instant, culprit: int, error: Exception) -> Decision:
        if self.fails_to_refuse:
            raise KeyError(culprit)
        return super().refuse(now, culprit, error)


class Place(Yard):
    """A yard whose commits hold what this machine says."""

    def lead(self, machine: Touchy) -> LoopCore[int, int]:
        core: LoopCore[int, int] = LoopCore(machine, CODEC, "one")
        core.appended(self.store(core.take_over(0.0)))
        self.fold(core)
        assert core.role is Role.LEADER
        return core

    def commits(self) -> list[Any]:
        return [
            CODEC.decode_stored(sequence=each.sequence, at=each.at, data=each.data, writer="tally")
            for each in self.stream.after(0)
        ]

    def run(self, core: LoopCore[int, int]) -> list[Append]:
        """Decide and store until there is nothing more to decide."""
        appends: list[Append] = []
        while (append := core.decide(0.0)) is not None:
            appends.append(append)
            core.appended(self.store(append))
            self.fold(core)
        return appends


def noted(core: LoopCore[int, int]) -> list[int]:
    assert isinstance(core.machine, Touchy)
    return core.machine.numbers + core.machine.foreign


def test_an_input_that_makes_deciding_raise_is_refused_and_all_others_are_decided() -> None:
    yard, machine = Place(), Touchy(bad=[13])
    core = yard.lead(machine)
    yard.tell(core, *range(1, 30), first=1)

    yard.run(core)

    assert sorted(noted(core)) == sorted([*(set(range(1, 30)) - {13}), -13])
    assert (machine.refused, [fault.reference for fault in core.take_faults()]) == ([13], ["number 13"])
    assert core.cursors == {"IN": 29}
    assert core.take_faults() == []


@pytest.mark.parametrize("bad", [[1], [512], [1, 2, 3], list(range(1, 513))], ids=["first", "last", "three", "all"])
def test_however_many_raise_each_is_refused_once_and_in_its_order(bad: list[int]) -> None:
    yard, machine = Place(), Touchy(bad=bad)
    core = yard.lead(machine)
    yard.tell(core, *range(1, 513), first=1)

    yard.run(core)

    assert machine.refused == bad
    assert len(noted(core)) == 512
    assert len(machine.shown) < 4 * len(bad) + 40, "many that raise in a row are not looked for again and again"


def test_a_commit_that_is_too_large_is_decided_again_with_half_the_inputs() -> None:
    yard, machine = Place(), Touchy(long=lambda _: COMMIT_BYTES_AIM // 6)
    core = yard.lead(machine)
    yard.tell(core, *range(1, 17), first=1)

    appends = yard.run(core)

    assert sorted(noted(core)) == list(range(1, 17))
    assert max(len(append.data) for append in appends) <= COMMIT_BYTES_AIM
    assert machine.refused == []


def test_one_input_alone_may_make_as_much_as_a_commit_holds_and_one_that_makes_more_is_refused() -> None:
    yard = Place()
    machine = Touchy(long=lambda number: {2: COMMIT_BYTES_MAX - 1_000, 4: COMMIT_BYTES_MAX + 1}.get(number, 10))
    core = yard.lead(machine)
    yard.tell(core, 1, 2, 3, 4, 5, first=1)

    yard.run(core)

    assert sorted(noted(core)) == [-4, 1, 2, 3, 5]
    assert machine.refused == [4]


def test_more_events_than_a_commit_holds_are_decided_in_parts() -> None:
    yard, machine = Place(), Touchy()
    core = yard.lead(machine)
    yard.tell(core, *range(1, 501), first=1)
    machine.own = list(range(1_000, 1_700))

    yard.run(core)

    assert len(noted(core)) == 1_200
    assert machine.refused == []


def test_what_was_not_appended_is_looked_at_again() -> None:
    yard, machine = Place(), Touchy(bad=[2])
    core = yard.lead(machine)
    yard.tell(core, 1, 2, first=1)

    yard.run(core)

    assert machine.looked_again == 2  # after both, and after the second alone


def test_an_input_is_not_blamed_for_what_raises_without_any() -> None:
    yard, machine = Place(), Touchy()
    core = yard.lead(machine)
    yard.tell(core, 1, 2, first=1)
    machine.fails_always = True

    with pytest.raises(ValueError, match="nobody thought of"):
        core.decide(0.0)

    assert (machine.refused, core.inputs_waiting, core.take_faults()) == ([], 2, [])


def test_what_the_machine_chooses_by_itself_is_appended_before_an_input_is_refused() -> None:
    yard, machine = Place(), Touchy(bad=[1])
    core = yard.lead(machine)
    yard.tell(core, 1, first=1)
    machine.own = [7]

    yard.run(core)

    assert noted(core) == [7, -1]


def test_an_input_that_cannot_even_be_refused_is_passed_over_and_told() -> None:
    yard, machine = Place(), Touchy(bad=[2])
    core = yard.lead(machine)
    machine.fails_to_refuse = True
    yard.tell(core, 1, 2, 3, first=1)

    yard.run(core)

    assert sorted(noted(core)) == [1, 3]
    (fault,) = core.take_faults()
    assert fault.reference == "IN 2" and isinstance(fault.error, KeyError)
    yard.tell(core, 2, first=2)
    assert core.inputs_waiting == 0


def test_after_trouble_as_many_inputs_are_shown_as_before() -> None:
    yard, machine = Place(), Touchy(bad=[1])
    core = yard.lead(machine)
    yard.tell(core, *range(1, 20 + 3 * INPUTS_OFFERED_MAX), first=1)

    yard.run(core)

    assert max(machine.shown[-8:]) == INPUTS_OFFERED_MAX


def test_the_normal_path_decides_and_encodes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    yard, machine = Place(), Touchy()
    core = yard.lead(machine)
    encoded: list[int] = []
    encode = CODEC.encode

    def counting(commit: Any) -> bytes:
        encoded.append(len(commit.events))
        return encode(commit)

    monkeypatch.setattr(CODEC, "encode", counting)
    yard.tell(core, *range(1, 101), first=1)

    assert core.decide(0.0) is not None

    assert (machine.shown, encoded, machine.looked_again) == ([100], [100], 0)


class Onlooker:
    """Looks on as `how` says: raises before folding, after it, or when it is asked."""

    def __init__(self, how: str) -> None:
        self.how = how

    def lead(self) -> None:
        if self.how == "leading":
            raise ZeroDivisionError

    def applying(self, apply: Any, *, is_own: bool) -> Any:
        if self.how == "asked":
            raise ZeroDivisionError

        def watch(event: Any, at: Any, position: Any) -> None:
            if self.how == "before":
                raise ZeroDivisionError
            apply(event, at, position)
            if self.how == "after":
                raise ZeroDivisionError

        return watch


@pytest.mark.parametrize("how", ["leading", "asked", "before", "after"])
def test_an_observer_that_raises_is_told_of_and_each_event_is_folded_once(how: str) -> None:
    yard, machine = Place(), Touchy()
    core: LoopCore[int, int] = LoopCore(machine, CODEC, "one")
    core.observers = (Onlooker(how),)
    core.appended(yard.store(core.take_over(0.0)))
    yard.fold(core)
    yard.tell(core, 1, 2, first=1)

    yard.run(core)

    assert noted(core) == [1, 2]
    assert {fault.reference for fault in core.take_faults()} == {"observer Onlooker"}


def test_what_folding_raises_goes_on_whoever_looks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    yard, machine = Place(), Touchy()
    core = yard.lead(machine)
    core.observers = (Onlooker("never"),)
    yard.tell(core, 1, first=1)
    append = core.decide(0.0)
    assert append is not None
    core.appended(yard.store(append))
    monkeypatch.setattr(machine, "apply", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        yard.fold(core)


def test_effects_that_raise_as_a_whole_stand_aside_and_deciding_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    yard, machine = Place(), Touchy()
    core = yard.lead(machine)
    monkeypatch.setattr(machine, "effects", lambda now: 1 / 0)

    assert list(core.effects(0.0)) == []
    assert [fault.reference for fault in core.take_faults()] == ["effects of the tally"]
    assert machine.looked_again == 1
    assert (list(core.effects(1.0)), core.take_faults()) == ([], [])
    yard.tell(core, 1, first=1)
    yard.run(core)
    assert noted(core) == [1]
    monkeypatch.setattr(machine, "effects", lambda now: [7])
    assert list(core.effects(2 * EFFECTS_AGAIN_SECONDS)) == [7]


def test_a_machine_that_cannot_say_when_to_be_asked_again_is_asked_every_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core = Place().lead(machine := Touchy())
    monkeypatch.setattr(machine, "next_deadline", lambda: 1 / 0)

    assert core.wait_seconds(0.0) == LOOKS_AGAIN_SECONDS
    assert [fault.reference for fault in core.take_faults()] == ["next deadline of the tally"]


def test_what_stands_aside_is_told_when_it_begins_and_seldom_after() -> None:
    telling, error = Telling(), ZeroDivisionError()

    told = [at for at in range(0, 1_800, 60) if telling.is_news("queue q", error, at)]

    assert told == [0, TOLD_AGAIN_SECONDS]
    assert telling.is_news("queue r", error, 60) and telling.is_news("queue q", KeyError(), 60)


def test_of_very_many_that_stand_aside_the_first_told_is_forgotten() -> None:
    telling, error = Telling(), ZeroDivisionError()
    for number in range(TOLD_MAX + 1):
        assert telling.is_news(str(number), error, 0.0)

    assert telling.is_news("0", error, 0.0) and not telling.is_news(str(TOLD_MAX), error, 0.0)
