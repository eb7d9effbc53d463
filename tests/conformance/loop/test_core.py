"""The rules of the loop, one by one, without I/O: who may decide when, what the fence refuses, what a successor takes up."""

import pytest
from tally import CODEC, PER_DECISION_MAX, START, Yard, tally

from taskyard.contracts.values import Instant, make_position, seconds
from taskyard.eventlog.append import AppendRejected
from taskyard.machine.core import CLOCK_STEP_SECONDS, ProtocolViolation, Role
from taskyard.machine.deadlines import STEPS_MAX, Deadlines
from taskyard.machine.deciding import INPUTS_OFFERED_MAX
from taskyard.machine.inputs import INPUTS_WAITING_MAX, Offered


def test_an_instance_leads_once_its_own_epoch_is_stored_and_folded() -> None:
    yard = Yard()
    core = yard.core("one")
    assert core.role is Role.STANDBY

    append = core.take_over(0.0)
    assert (core.role, append.expected) == (Role.TAKING_OVER, 0)
    core.appended(yard.store(append))
    assert core.role is Role.TAKING_OVER and not tally(core).leads
    yard.fold(core)

    assert (core.role, core.epoch) == (Role.LEADER, 1)
    assert tally(core).leads


def test_it_also_leads_when_folding_is_faster_than_the_acknowledgement() -> None:
    yard = Yard()
    core = yard.core("one")
    sequence = yard.store(core.take_over(0.0))
    yard.fold(core)
    assert core.role is Role.TAKING_OVER

    core.appended(sequence)

    assert core.role is Role.LEADER and tally(core).leads


@pytest.mark.parametrize("role", [Role.STANDBY, Role.TAKING_OVER])
def test_only_a_leader_takes_inputs_decides_and_acts(role: Role) -> None:
    yard = Yard()
    core = yard.core("one")
    if role is Role.TAKING_OVER:
        core.take_over(0.0)

    yard.tell(core, 1)

    assert core.decide(0.0) is None
    assert core.effects(0.0) == ()
    assert core.wait_seconds(0.0) is None
    assert (core.inputs_waiting, tally(core).decided_on) == (0, [])


def test_one_append_is_in_flight_and_nothing_is_decided_before_it_is_folded() -> None:
    yard = Yard()
    core = yard.leader()
    yard.tell(core, 1)
    append = core.decide(0.0)
    assert append is not None

    yard.tell(core, 2)
    assert core.decide(0.0) is None and core.effects(0.0) == ()  # in flight
    core.appended(yard.store(append))
    assert core.decide(0.0) is None and core.effects(0.0) == ()  # stored, and not folded
    yard.fold(core)

    assert core.effects(0.0) == [1]
    assert core.decide(0.0) is not None


def test_state_changes_by_folding_only() -> None:
    yard = Yard()
    core = yard.leader()
    yard.tell(core, 1)

    core.decide(0.0)

    assert tally(core).numbers == []


def test_a_stale_leader_is_refused_by_the_fence() -> None:
    yard = Yard()
    old = yard.leader("one")
    yard.leader("two")

    yard.tell(old, 1)
    append = old.decide(0.0)

    assert append is not None
    with pytest.raises(AppendRejected):
        yard.store(append)


def test_of_two_that_take_over_at_once_one_is_refused() -> None:
    yard = Yard()
    one, two = yard.core("one"), yard.core("two")
    first, second = one.take_over(0.0), two.take_over(0.0)

    yard.store(first)

    with pytest.raises(AppendRejected):
        yard.store(second)


def test_a_commit_of_another_writer_does_not_move_the_fence() -> None:
    yard = Yard()
    core = yard.leader()
    yard.tell(core, 1)
    append = core.decide(0.0)
    assert append is not None

    yard.foreign(7)
    core.appended(yard.store(append))
    yard.fold(core)

    assert (tally(core).numbers, tally(core).foreign) == ([1], [7])


def test_who_folds_anothers_epoch_steps_down_at_that_position() -> None:
    yard = Yard()
    old = yard.leader("one")
    yard.tell(old, 1, 2)
    yard.leader("two")

    yard.fold(old)

    assert (old.role, old.epoch, old.inputs_waiting) == (Role.STANDBY, 2, 0)
    assert not tally(old).leads
    assert old.decide(0.0) is None and old.effects(0.0) == ()


def test_who_stepped_down_goes_on_folding_and_may_lead_again() -> None:
    yard = Yard()
    old = yard.leader("one")
    new = yard.leader("two")
    yard.tell(new, 5)
    append = new.decide(0.0)
    assert append is not None
    new.appended(yard.store(append))
    yard.fold(old)
    assert tally(old).numbers == [5]

    old.appended(yard.store(old.take_over(0.0)))
    yard.fold(old, new)

    assert (old.role, old.epoch, new.role) == (Role.LEADER, 3, Role.STANDBY)


def test_a_late_acknowledgement_makes_nobody_a_leader_who_stepped_down() -> None:
    yard = Yard()
    core = yard.core("one")
    sequence = yard.store(core.take_over(0.0))

    core.step_down()
    core.appended(sequence)
    yard.fold(core)

    assert core.role is Role.STANDBY
    assert core.decide(0.0) is None


def test_an_own_epoch_of_an_earlier_life_makes_nobody_a_leader() -> None:
    """The process died after its epoch was stored; another one of the same name must take over by itself."""
    yard = Yard()
    yard.leader("one")
    again = yard.core("one")

    yard.fold(again)

    assert (again.role, again.epoch) == (Role.STANDBY, 1)


@pytest.mark.parametrize("skip", [0, 2])
def test_a_commit_that_is_not_the_next_one_is_never_folded(skip: int) -> None:
    yard = Yard()
    for number in range(3):
        yard.foreign(number)
    core = yard.core("one")
    commits = yard.commits()
    core.fold(commits[0], 0.0)

    with pytest.raises(ProtocolViolation):
        core.fold(commits[skip], 0.0)

    assert tally(core).foreign == [0]


# -- inputs and cursors ------------------------------------------------------------------------------------------------


def test_a_commit_names_the_last_input_that_it_accounts_for() -> None:
    yard = Yard()
    core = yard.leader()
    yard.tell(core, 1, 2, 3, 4, first=1)

    append = core.decide(0.0)
    assert append is not None
    assert CODEC.decode(append.data).cursors == {"IN": 3}  # it takes three at a time
    core.appended(yard.store(append))
    yard.fold(core)
    assert core.cursors == {"IN": 3}

    append = core.decide(0.0)
    assert append is not None and CODEC.decode(append.data).cursors == {"IN": 4}


def test_inputs_that_make_no_event_are_accounted_for_by_the_next_commit() -> None:
    yard = Yard()
    core = yard.leader()
    yard.tell(core, -1, -2, -3, -4, first=1)
    assert core.decide(0.0) is None
    assert core.inputs_waiting == 0

    yard.tell(core, 5)
    append = core.decide(0.0)

    assert append is not None and CODEC.decode(append.data).cursors == {"IN": 4}


def test_an_input_that_comes_again_is_dropped() -> None:
    yard = Yard()
    core = yard.leader()
    yard.tell(core, -1, -2, first=1)
    core.decide(0.0)

    yard.tell(core, 8, 9, first=1)

    assert core.inputs_waiting == 0


def test_observations_are_never_dropped_and_move_no_cursor() -> None:
    yard = Yard()
    core = yard.leader()
    yard.tell(core, 1)
    yard.tell(core, 2)

    append = core.decide(0.0)

    assert append is not None
    commit = CODEC.decode(append.data)
    assert (len(commit.events), commit.cursors) == (2, {})


def test_what_waits_and_is_read_again_is_decided_once_and_takes_no_cursor_back() -> None:
    yard = Yard()
    core = yard.leader()
    yard.tell(core, 1, 1, first=1)
    yard.tell(core, 1, first=1)  # the reader lost its place
    append = core.decide(0.0)
    assert append is not None and CODEC.decode(append.data).cursors == {"IN": 2}
    assert core.inputs_waiting == 0


def test_a_successor_goes_on_behind_the_cursors_of_the_log() -> None:
    yard = Yard()
    old = yard.leader("one")
    yard.tell(old, 1, 2, 3, 4, first=1)
    append = old.decide(0.0)
    assert append is not None
    yard.store(append)  # and the old one dies

    new = yard.leader("two")
    yard.tell(new, 1, 2, 3, 4, first=1)

    assert new.cursors == {"IN": 3}
    assert new.inputs_waiting == 1


def test_a_stream_that_was_made_anew_is_read_from_its_start_and_the_cursor_of_the_former_stays() -> None:
    yard = Yard()
    core = yard.leader()
    core.cursors = {"IN@1": 9, "INPUT@1": 3}
    core.step_down()
    core.appended(yard.store(core.take_over(0.0)))
    yard.fold(core)

    assert core.begin_to_read("IN", "IN@1") == 9
    assert core.former_cursors("IN", "IN@1") == []
    assert core.begin_to_read("IN", "IN@2") == 0
    assert core.former_cursors("IN", "IN@2") == ["IN@1"]
    core.offer(Offered(7, "IN@2", 1))
    append = core.decide(0.0)

    assert append is not None and CODEC.decode(append.data).cursors == {"IN@2": 1}
    core.appended(yard.store(append))
    yard.fold(core)
    assert core.cursors == {"IN@1": 9, "INPUT@1": 3, "IN@2": 1}


def test_a_cursor_of_the_first_form_is_taken_over_once() -> None:
    yard = Yard()
    old = yard.leader("one")
    yard.tell(old, 1, 2, 3, first=1)
    append = old.decide(0.0)
    assert append is not None
    yard.store(append)
    core = yard.leader("two")

    assert core.begin_to_read("IN", "IN@5") == 3
    core.offer(Offered(4, "IN@5", 4))
    append = core.decide(0.0)
    assert append is not None and CODEC.decode(append.data).cursors == {"IN@5": 4}
    yard.store(append)
    successor = yard.leader("three")
    assert successor.begin_to_read("IN", "IN@5") == 4
    assert successor.begin_to_read("IN", "IN@6") == 0


def test_a_stream_that_lost_its_end_moves_its_cursor_back() -> None:
    yard = Yard()
    core = yard.leader()
    yard.tell(core, 1, 2, 3, first=7)
    append = core.decide(0.0)
    assert append is not None
    core.appended(yard.store(append))
    yard.fold(core)
    assert core.cursors == {"IN": 9}

    core.read_again("IN")
    yard.tell(core, 1, 2, 4, first=1)  # two that are known, and one that came since
    append = core.decide(0.0)

    assert append is not None
    commit = CODEC.decode(append.data)
    assert [event.number for event in commit.events] == [4]
    assert commit.cursors == {"IN": 3}
    core.appended(yard.store(append))
    yard.fold(core)
    assert core.cursors == {"IN": 3}


def test_what_was_decided_and_not_stored_is_decided_again() -> None:
    yard = Yard()
    core = yard.leader()
    yard.tell(core, 1, first=1)
    assert core.decide(0.0) is not None
    core.step_down()  # the append had no answer, and was not stored

    core.appended(yard.store(core.take_over(0.0)))
    yard.fold(core)
    yard.tell(core, 1, first=1)
    append = core.decide(0.0)

    assert append is not None and len(CODEC.decode(append.data).events) == 1


def test_cursors_of_several_streams_are_merged() -> None:
    yard = Yard()
    core = yard.leader()
    core.cursors = {"OTHER": 9}

    yard.tell(core, 1, first=5)
    append = core.decide(0.0)
    assert append is not None
    core.appended(yard.store(append))
    yard.fold(core)

    assert core.cursors == {"OTHER": 9, "IN": 5}


def test_what_waits_is_bounded_and_so_is_what_one_decision_is_shown() -> None:
    yard = Yard()
    core = yard.leader()
    yard.tell(core, *([-1] * (INPUTS_WAITING_MAX - 1)))
    assert core.has_room
    yard.tell(core, -1)
    assert not core.has_room
    shown: list[int] = []
    decide = core.machine.decide
    core.machine.decide = lambda now, inputs: shown.append(len(inputs)) or decide(now, inputs)  # type: ignore[method-assign,func-returns-value]

    core.decide(0.0)

    assert core.inputs_waiting == 0
    assert max(shown) == INPUTS_OFFERED_MAX


# -- time, position, chain ---------------------------------------------------------------------------------------------


def test_now_is_the_log_time_and_the_own_time_since() -> None:
    yard = Yard()
    core = yard.leader()
    yard.foreign(1)
    yard.fold(core, monotonic=100.0)

    assert core.now(99.0) == START
    assert core.now(100.0) == START
    assert core.now(107.5) == START + seconds(7.5)


def test_now_never_goes_back_though_the_own_clock_was_ahead_of_the_logs() -> None:
    yard = Yard()
    core = yard.leader()
    ahead = core.now(60.0)

    yard.foreign(1)  # stored, by the log's clock, at once
    yard.fold(core, monotonic=60.0)

    assert core.now(60.0) == ahead == START + seconds(60)


def test_a_leader_that_decides_goes_back_with_a_log_whose_clock_was_set_back() -> None:
    yard = Yard()
    core = yard.leader()
    core.now(60.0)
    yard.foreign(1)  # stored, by the log's clock, at once
    yard.fold(core, monotonic=60.0)

    core.decide(60.0)

    assert core.now(60.0) == START


def test_log_time_never_goes_back() -> None:
    yard = Yard()
    core = yard.core("one")
    yard.foreign(1)
    yard.now = Instant(START - seconds(60))
    yard.foreign(2)

    yard.fold(core)

    assert [at for at, _ in tally(core).applied] == [START, START]


def test_each_event_has_its_position() -> None:
    yard = Yard()
    core = yard.core("one")
    yard.foreign(1, 2)
    yard.foreign(3)

    yard.fold(core)

    assert [position for _, position in tally(core).applied] == [
        make_position(1, 0),
        make_position(1, 1),
        make_position(2, 0),
    ]


def test_a_leader_sleeps_until_its_machines_deadline() -> None:
    yard = Yard()
    core = yard.leader()
    assert core.wait_seconds(0.0) is None

    tally(core).deadline = Instant(START + seconds(5))

    assert core.wait_seconds(0.0) == 5.0
    assert core.wait_seconds(9.0) == 0.0


def test_each_commit_names_the_hash_of_the_writers_commit_before() -> None:
    yard = Yard()
    core = yard.leader()
    yard.foreign(1)
    yard.tell(core, 1)
    append = core.decide(0.0)
    assert append is not None
    yard.store(append)

    first, _, second = yard.commits()

    assert (first.commit.previous, second.commit.previous) == ("", first.hash)


def test_one_that_goes_on_behind_a_snapshot_is_as_one_that_folded_everything() -> None:
    yard = Yard()
    core = yard.leader("one")
    yard.tell(core, 1, 2, first=1)
    append = core.decide(0.0)
    assert append is not None
    core.appended(yard.store(append))
    yard.fold(core)

    other = yard.core("two")
    other.restore(core.saved(), 0.0)
    other.machine.restore(core.machine.snapshot())

    assert other.saved() == core.saved()
    yard.foreign(1)
    yard.fold(core, other)
    assert other.saved() == core.saved()
    other.appended(yard.store(other.take_over(0.0)))
    yard.fold(other)
    assert (other.role, other.epoch, tally(other).numbers) == (Role.LEADER, 2, [1, 2])


def test_a_leader_that_starts_from_a_snapshot_with_nothing_behind_it_does_not_run_ahead_of_the_log() -> None:
    """Its own clock counts from the start of the machine: taken for time since the snapshot, every timer would fire."""
    yard, hours_up = Yard(), 40_000.0
    core = yard.leader("one")
    other = yard.core("two")
    other.restore(core.saved(), hours_up)

    append = other.take_over(hours_up + 1)
    other.appended(yard.store(append))
    yard.fold(other, monotonic=hours_up + 1)

    assert other.now(hours_up + 1) - other.log_time < seconds(2)


def test_observers_see_what_a_leader_folds_and_nothing_before() -> None:
    class Watcher:
        def __init__(self) -> None:
            self.seen: list[tuple[int, bool]] = []
            self.times_led = 0

        def lead(self) -> None:
            self.times_led += 1

        def applying(self, apply, *, is_own):  # type: ignore[no-untyped-def]
            def watched(event, at, position):  # type: ignore[no-untyped-def]
                apply(event, at, position)
                self.seen.append((event.number, is_own))

            return watched

    yard, watcher = Yard(), Watcher()
    yard.foreign(1)
    core = yard.core("one")
    core.observers = [watcher]
    yard.fold(core)
    core.appended(yard.store(core.take_over(0.0)))
    yard.fold(core)
    yard.foreign(2)
    yard.tell(core, 3)
    append = core.decide(0.0)
    assert append is not None
    core.appended(yard.store(append))
    yard.fold(core)

    assert (watcher.seen, watcher.times_led) == ([(2, False), (3, True)], 1)
    assert (tally(core).foreign, tally(core).numbers) == ([1, 2], [3])


# -- deadlines ---------------------------------------------------------------------------------------------------------


def test_what_was_stored_before_a_deadline_was_read_once_it_was_decided_on_and_folded() -> None:
    yard = Yard()
    core = yard.leader()
    assert not tally(core).deadlines.is_read(START) and core.waits_for_inputs
    yard.tell(core, *range(PER_DECISION_MAX + 1), first=1)

    core.inputs_read(core.now(0.0))
    yard.tell(core, 100, first=PER_DECISION_MAX + 2)  # later ones put nothing off
    assert not core.waits_for_inputs
    append = core.decide(0.0)
    assert append is not None
    core.appended(yard.store(append))
    assert tally(core).deadlines.waits
    yard.fold(core)
    append = core.decide(0.0)
    assert append is not None
    assert tally(core).deadlines.waits
    core.appended(yard.store(append))
    yard.fold(core)
    core.decide(0.0)

    assert not tally(core).deadlines.waits and tally(core).deadlines.is_read(START)


def test_a_later_answer_of_how_far_inputs_were_read_does_not_put_an_earlier_one_off() -> None:
    yard = Yard()
    core = yard.leader()
    assert not tally(core).deadlines.is_read(START)

    for first in range(1, 8, PER_DECISION_MAX):  # as many come as are decided on: something always waits
        yard.tell(core, *range(first, first + PER_DECISION_MAX), first=first)
        core.inputs_read(core.now(0.0))
        yard.tell(core, 100 + first, first=first + PER_DECISION_MAX)
        append = core.decide(0.0)
        assert append is not None
        core.appended(yard.store(append))
        yard.fold(core)

    assert core.inputs_waiting and tally(core).deadlines.is_read(START)


def test_who_leads_again_waits_for_its_inputs_to_be_read_again() -> None:
    yard = Yard()
    core = yard.leader()
    assert not tally(core).deadlines.is_read(START)
    yard.tell(core, 1, first=1)
    core.inputs_read(core.now(0.0))

    core.step_down()
    core.appended(yard.store(core.take_over(0.0)))
    yard.fold(core)

    assert core.decide(0.0) is None
    assert not tally(core).deadlines.is_read(START) and core.waits_for_inputs


def test_a_new_leader_has_read_nothing_and_knows_what_the_clock_did() -> None:
    deadlines = Deadlines()
    deadlines.read(START)
    deadlines.step(START, seconds(60))

    deadlines.look_anew()

    assert not deadlines.is_read(START)
    assert deadlines.after(Instant(0), 1.0) == seconds(61)


@pytest.mark.parametrize("ahead", [CLOCK_STEP_SECONDS, CLOCK_STEP_SECONDS + 1])
def test_a_commit_that_is_stored_long_after_its_authors_time_tells_that_the_clock_was_set_forward(ahead: float) -> None:
    yard = Yard()
    core = yard.leader()

    yard.now = Instant(START + seconds(100))
    yard.foreign(1)
    stepped_to = Instant(yard.now + seconds(5 + ahead))
    yard.foreign(2, decided_at=Instant(yard.now + seconds(5)), stored_at=stepped_to)
    yard.fold(core, monotonic=100.0)

    steps = ahead if ahead > CLOCK_STEP_SECONDS else 0.0
    assert tally(core).deadlines.after(START, 1.0) == START + seconds(1 + steps)
    assert tally(core).deadlines.after(stepped_to, 1.0) == stepped_to + seconds(1)


def test_a_new_leader_knows_what_the_clock_did_before_it_led_and_so_does_one_that_begins_with_a_snapshot() -> None:
    yard = Yard()
    core = yard.leader("one")
    yard.foreign(1, stored_at=Instant(START + seconds(3600)))
    yard.fold(core)

    folded, restored = yard.leader("two"), yard.core("three")
    restored.restore(core.saved(), 0.0)
    yard.fold(restored)
    restored.appended(yard.store(restored.take_over(0.0)))
    yard.fold(restored)

    for each in (core, folded, restored):
        assert tally(each).deadlines.after(START, 1.0) == START + seconds(3601)


def test_time_that_passes_while_nobody_is_there_is_no_step_of_the_clock() -> None:
    yard = Yard()
    yard.foreign(1)
    yard.now = Instant(START + seconds(3600))
    core = yard.leader()

    yard.foreign(2)
    yard.fold(core)

    assert tally(core).deadlines.after(START, 1.0) == START + seconds(1)


def test_a_leader_that_reads_the_log_late_makes_no_step_of_the_clock_with_each_of_its_commits() -> None:
    yard = Yard()
    core = yard.leader()

    for second in range(1, 50):
        yard.now = Instant(START + seconds(second))
        yard.foreign(second, decided_at=Instant(yard.now - seconds(10)))
        yard.fold(core, monotonic=60.0)

    assert tally(core).deadlines.after(START, 1.0) == START + seconds(1)


def test_the_steps_that_are_remembered_are_bounded() -> None:
    deadlines = Deadlines()
    for number in range(STEPS_MAX + 50):
        deadlines.step(Instant(START + number), 1)

    assert deadlines.after(Instant(0), 0.0) == STEPS_MAX


def test_of_observations_with_one_key_only_the_newest_waits_in_the_place_of_the_first() -> None:
    yard = Yard()
    core = yard.leader()
    for number, key in ((1, "a"), (2, "b"), (3, "a"), (4, None), (5, "a"), (6, None)):
        core.offer(Offered(number, key=key))
    assert core.inputs_waiting == 4
    append = core.decide(0.0)
    assert append is not None and core.machine.decided_on[-1] == [5, 2, 4]
    core.offer(Offered(7, key="a"))  # that of before was decided on: this one waits at the end
    core.appended(yard.store(append))
    yard.fold(core)
    assert core.decide(0.0) is not None and core.machine.decided_on[-1] == [6, 7]


def test_a_new_leader_knows_nothing_of_observations_that_waited_before() -> None:
    yard = Yard()
    core = yard.leader()
    core.offer(Offered(1, key="a"))
    core.step_down()
    core.appended(yard.store(core.take_over(0.0)))
    yard.fold(core)
    core.offer(Offered(2, key="a"))
    assert core.inputs_waiting == 1
    assert core.decide(0.0) is not None and core.machine.decided_on[-1] == [2]


def test_what_is_observed_after_the_logs_clock_was_set_back_is_decided_on() -> None:
    yard = Yard()
    core = yard.leader()
    core.now(60.0)
    core.offer(Offered(1, key="a"))
    yard.foreign(1)  # stored, by the log's clock, at once
    yard.fold(core, monotonic=60.0)
    assert core.decide(60.0) is None and core.inputs_waiting == 0

    core.offer(Offered(2, key="a"))

    assert core.decide(60.0) is not None and tally(core).decided_on[-1] == [2]
