"""Where tasks run, and who is there: slots in the order of the log, workers by what they say and by their silence."""

import pytest
from machine_story import (
    LOST_SECONDS,
    PLANS_AND_ANY,
    SUSPECT_SECONDS,
    A,
    B,
    C,
    D,
    Like,
    Story,
    assigned,
    joined,
    lost,
    run,
    submitted,
    task_id,
)
from msgspec import json
from slot_story import KINDS, Slots

from taskyard.contracts.agent_protocol import AGENT_SLOTS_MAX, LiveAttempt
from taskyard.contracts.events import (
    NO_RESPONDERS,
    ApplyConfirmed,
    AttemptFailed,
    AttemptSucceeded,
    Changes,
    ForceStopped,
    NotDelivered,
    PoolConfigured,
    SlotAssigned,
    SlotCleared,
    TaskDispatched,
    TaskError,
    TaskPlanned,
    TaskScheduled,
    TaskStarted,
    TaskStopRequested,
    WorkerDrainRequested,
    WorkerJoined,
    WorkerLost,
    WorkerRecovered,
    WorkerSuspected,
)
from taskyard.contracts.lifecycle import Phase
from taskyard.contracts.values import Instant, Position, seconds
from taskyard.embedded.nats_configuration import MAX_PAYLOAD_BYTES
from taskyard.slot_allocator.decide import Observation
from taskyard.slot_allocator.liveness import Reconnected
from taskyard.slot_allocator.machine import SlotAllocator

SUSPECTED, LOST = WorkerSuspected(worker="w1", incarnation=run(1)), lost()


# -- placing -----------------------------------------------------------------------------------------------------------


def test_plans_take_slots_in_order_from_the_first() -> None:
    story = Slots().scheduled(A, "plan").scheduled(B, "plan").scheduled(C, "plan").scheduled(D, "plan")

    story.given(joined()).when().then(assigned(A, slot=0), assigned(B, slot=1), assigned(C, slot=2))


def test_slots_one_and_two_take_plans_only() -> None:
    story = Slots().scheduled(A, "plan_and_apply").scheduled(B).scheduled(C, "command").scheduled(D, "plan")

    story.given(joined()).when()

    assert story.slots() == [(A, "w1", 0), (D, "w1", 1)]


def test_keep_slot_0_gives_plans_the_slots_that_nothing_else_can_use() -> None:
    story = Slots().given(PoolConfigured(pool="default", by="r", placement="keep-slot-0"))
    story.scheduled(A, "plan").scheduled(B, "plan").scheduled(C).scheduled(D, "plan")

    story.given(joined()).when()

    assert story.slots() == [(A, "w1", 1), (B, "w1", 2), (C, "w1", 0)]


def test_the_policy_may_change_at_run_time() -> None:
    story = Slots().given(PoolConfigured(pool="default", by="r", placement="keep-slot-0"), joined())
    story.given(PoolConfigured(pool="default", by="r", placement="first-fit"))

    story.scheduled(A, "plan").when()

    assert story.slots() == [(A, "w1", 0)]


def test_the_worker_that_has_been_there_longest_is_filled_first() -> None:
    story = Slots().given(joined("w2", slots=(("any",),) * 2), joined("w1"))
    story.scheduled(A).scheduled(B).scheduled(C).when()

    assert story.slots() == [(A, "w2", 0), (B, "w2", 1), (C, "w1", 0)]


def test_tasks_get_slots_in_the_order_in_which_they_were_scheduled() -> None:
    story = Slots().given(
        submitted(A, priority=1), submitted(B, priority=9), TaskScheduled(task=B), TaskScheduled(task=A)
    )

    story.given(joined()).when()

    assert story.slots() == [(B, "w1", 0)]


def test_a_worker_gets_only_what_it_can_run() -> None:
    story = Slots().given(joined("w1", kinds=("noop",)), joined("w2")).scheduled(A, "command").when()

    assert story.slots() == [(A, "w2", 0)]


def test_another_pools_worker_gets_nothing() -> None:
    Slots().given(joined(pool="other")).scheduled(A).when().then_nothing()


def test_a_slot_is_free_when_its_task_ends() -> None:
    story = Slots().given(joined()).scheduled(A).scheduled(B).when()
    assert story.slots() == [(A, "w1", 0)]
    story.given(TaskDispatched(task=A, attempt=1), TaskStarted(task=A, attempt=1)).when().then_nothing()

    story.given(AttemptSucceeded(task=A, attempt=1)).when().then(assigned(B))


def test_a_slot_whose_task_was_ended_by_force_is_given_when_its_worker_says_that_nothing_lives_there() -> None:
    story = Slots().given(joined()).scheduled(A).scheduled(B).when()
    story.given(ForceStopped(task=A, by="r", reason="x")).when().then_nothing()

    story.given(SlotCleared(task=A, attempt=1, worker="w1", slot=0)).when().then(assigned(B))


def test_a_slot_stays_closing_while_its_worker_is_lost_and_until_it_comes_back_and_says_so() -> None:
    story = Slots().given(joined()).scheduled(A, "plan_and_apply").when().given(LOST)
    story.given(ForceStopped(task=A, by="r", reason="x"), joined()).scheduled(B).when().then_nothing()

    story.given(SlotCleared(task=A, attempt=1, worker="w1", slot=0)).when().then(assigned(B))


def test_another_host_of_the_name_has_nothing_in_a_slot_that_was_closing() -> None:
    story = Slots().given(joined()).scheduled(A, "plan_and_apply").when().given(LOST)
    story.given(ForceStopped(task=A, by="r", reason="x"), joined(incarnation=2, continues=None)).scheduled(B)

    story.when().then(assigned(B, incarnation=2))


def test_a_slot_is_free_while_its_task_waits_to_be_tried_again_under_the_next_number() -> None:
    story = Slots().given(joined()).scheduled(A).when()
    story.given(AttemptFailed(task=A, attempt=1, error=TaskError(code="e", message="", retryable=True)))
    story.scheduled(B).when().then(assigned(B))

    story.given(AttemptSucceeded(task=B, attempt=1), TaskScheduled(task=A)).when().then(assigned(A, attempt=2))


def test_what_is_stopping_or_held_keeps_its_slot() -> None:
    story = Slots().given(joined("w1", slots=(("any",), ("any",)))).scheduled(A, "plan_and_apply").scheduled(B).when()
    story.given(TaskStopRequested(task=B, cause="cancel", by="alice"), LOST)
    story.given(joined("w1", 2, slots=(("any",), ("any",)))).scheduled(C)

    story.when()

    assert story.slots() == [(C, "w1", 1)]  # B was stopping and ended with its worker; A is held in slot 0


def test_two_tasks_never_get_one_slot_in_one_decision() -> None:
    story = Slots().given(*(joined(f"w{n}") for n in range(3)))
    for number in range(1, 20):
        story.scheduled(task_id(number), "plan")

    story.when()

    assert len({(worker, slot) for _, worker, slot in story.slots()}) == len(story.slots()) == 9


def test_a_slot_that_was_given_too_late_is_given_to_another() -> None:
    """The task was cancelled before its SlotAssigned stood in the log: the slot was never taken."""
    story = Slots().given(joined()).scheduled(A)
    (event,) = story.decide().events

    story.given(TaskStopRequested(task=A, cause="cancel", by="alice"), event).scheduled(B)

    story.when().then(assigned(B))


def test_more_than_a_commit_takes_is_placed_in_several() -> None:
    story = Slots().given(*(joined(f"w{n}", slots=(("any",),) * 100) for n in range(9)))
    for number in range(1, 901):
        story.scheduled(task_id(number))

    story.when()

    assert len(set(story.slots())) == 900


# -- applies -----------------------------------------------------------------------------------------------------------

PLANNED = TaskPlanned(task=A, attempt=1, changes=Changes(add=1))
CONFIRMED = ApplyConfirmed(task=A, attempt=1, by="bob")
APPLY_SCHEDULED = TaskScheduled(task=A, attempt=1)


def with_plan() -> Slots:
    story = Slots().given(joined("w0", slots=(("plan",),)), joined("w1"))
    return story.scheduled(A, "plan_and_apply").when().given(PLANNED)


def test_a_reserved_slot_is_nobody_elses() -> None:
    story = with_plan().scheduled(B)

    story.when().then_nothing()


def test_an_apply_runs_on_the_slot_of_its_plan_though_others_are_idle() -> None:
    story = with_plan().given(joined("w3"), CONFIRMED)
    story.when().then_nothing()
    story.given(APPLY_SCHEDULED)

    story.when().then(assigned(A, attempt=2))


def test_an_apply_that_was_not_delivered_waits_on_its_slot_until_it_is_due() -> None:
    story = with_plan().given(CONFIRMED, assigned(attempt=2), NotDelivered(task=A, attempt=2, reason="declined"))
    story.when(story.heard(), story.heard("w0")).then_nothing()
    assert story.record().due == story.now + seconds(5)

    story.after(5).when(story.heard()).then_nothing()
    story.given(APPLY_SCHEDULED).when().then(assigned(A, attempt=3))


def test_an_apply_that_a_clock_ahead_has_scheduled_is_not_given_before_it_is_due() -> None:
    story = with_plan().given(CONFIRMED, assigned(attempt=2), NotDelivered(task=A, attempt=2, reason="declined"))
    story.given(APPLY_SCHEDULED)

    story.when().then_nothing()
    assert story.machine.next_deadline() == story.record().due == story.now + seconds(5)
    story.after(5).when().then(assigned(A, attempt=3))


def test_a_plan_whose_worker_is_lost_gives_its_slot_up() -> None:
    story = with_plan().given(CONFIRMED, LOST)

    story.when().then_nothing()
    story.given(joined("w4"), TaskScheduled(task=A)).when().then(assigned(A, attempt=2, worker="w4"))


# -- workers come and go -----------------------------------------------------------------------------------------------


def test_a_worker_that_speaks_for_the_first_time_has_joined() -> None:
    story = Slots()

    story.when(story.heard()).then(
        WorkerJoined(worker="w1", incarnation=run(1), pool="default", slots=PLANS_AND_ANY, kinds=KINDS)
    )
    story.when(story.heard(), story.heard()).then_nothing()


def test_two_heartbeats_in_one_decision_are_one_joining() -> None:
    story = Slots()

    story.when(story.heard(), story.heard()).then(Like(WorkerJoined, worker="w1"))


def test_slots_of_a_worker_are_given_in_the_commit_after_its_joining() -> None:
    story = Slots().scheduled(A)

    assert [type(event) for event in story.decide(story.heard()).events] == [WorkerJoined]
    story.when(story.heard())

    assert story.slots() == [(A, "w1", 0)]


def test_an_incarnation_that_was_replaced_never_joins_again() -> None:
    story = Slots().given(joined(), lost(), joined(incarnation=2, continues=None))

    story.when(story.heard(incarnation=1)).then_nothing()


def test_a_run_that_follows_joins_in_the_place_of_the_one_before_and_what_that_held_stays_held() -> None:
    story = Slots().given(joined()).scheduled(A).when()

    story.when(story.heard(incarnation=2, follows=(run(1),))).then(
        Like(WorkerJoined, incarnation=run(2), continues=run(1))
    )
    story.scheduled(B).when().then_nothing()
    story.given(AttemptSucceeded(task=A, attempt=1)).when().then(assigned(B, incarnation=2))


def test_a_run_that_never_joined_and_speaks_late_does_not_take_the_place_of_the_one_after_it() -> None:
    story = Slots().given(joined(place="here"))
    story.when(story.heard(incarnation=3, place="here", follows=(run(2), run(1)))).then(Like(WorkerJoined))

    story.when(story.heard(incarnation=2, place="here", follows=(run(1),))).then_nothing()


def test_a_new_journal_in_the_same_place_answers_for_what_was_there() -> None:
    story = Slots().given(joined(place="here"))

    story.when(story.heard(incarnation=2, place="here")).then(Like(WorkerJoined, continues=run(1)))


def test_another_host_of_the_name_has_to_wait_until_the_one_that_is_there_is_lost() -> None:
    story = Slots().given(joined(place="here"))
    story.when(story.heard(incarnation=2, place="there")).then_nothing()

    story.given(lost())
    story.when(story.heard(incarnation=2, place="there")).then(Like(WorkerJoined, incarnation=run(2), continues=None))


def test_another_host_of_the_name_does_not_keep_the_one_that_is_there_alive() -> None:
    story = Slots().given(joined(place="here"))
    for _ in range(int(LOST_SECONDS)):
        story.after(1).when(story.heard(incarnation=2, place="there"))

    assert Like(WorkerLost, incarnation=run(1)) in story.chosen


def test_nor_does_it_where_both_are_heard_in_the_decision_in_which_one_joins() -> None:
    story = Slots()
    heard: list[Observation] = [story.heard(place="here"), story.answered()]
    for _ in range(int(SUSPECT_SECONDS)):
        story.now = Instant(story.now + seconds(1))
        heard.append(story.answered())

    story.when(*heard, story.heard(incarnation=2, place="there")).then(Like(WorkerJoined, incarnation=run(1)))
    story.when(story.answered()).then(Like(WorkerSuspected, incarnation=run(1)))


def test_an_incarnation_that_is_far_ahead_burns_no_name() -> None:
    story = Slots().given(joined(), lost())
    story.when(story.heard(incarnation=10**30)).then(Like(WorkerJoined))

    story.given(lost(incarnation=10**30))
    story.when(story.heard(incarnation=3)).then(Like(WorkerJoined, incarnation=run(3)))


@pytest.mark.parametrize("worker", ["No Name", "", "a.b", "w\n"])
def test_a_worker_whose_name_is_none_is_not_heard(worker: str) -> None:
    story = Slots()

    story.when(story.heard(worker), story.heard(pool=worker)).then_nothing()


def test_a_worker_that_describes_itself_at_too_great_length_is_not_heard() -> None:
    story = Slots()

    story.when(story.heard(labels={"a": "x" * 70_000})).then_nothing()


def test_a_restarted_agent_with_as_many_live_attempts_as_an_agent_may_have_is_heard() -> None:
    slots = (("command",),) * AGENT_SLOTS_MAX
    story = Slots().given(joined(slots=slots))
    live = tuple(
        LiveAttempt(position=Position((5_000_000 << 20) + n), task=task_id(n), attempt=2, slot=n)
        for n in range(AGENT_SLOTS_MAX)
    )
    heard = story.heard(incarnation=2, slots=slots, follows=(run(1),), live=live)
    assert len(json.encode(heard.heartbeat)) < MAX_PAYLOAD_BYTES // 2

    story.when(heard).then(Like(WorkerJoined, incarnation=run(2), continues=run(1)))


def test_a_worker_that_drains_gets_nothing_new_and_stays() -> None:
    story = Slots().given(joined()).scheduled(A).when()
    story.given(WorkerDrainRequested(pool="default", worker="w1", by="r")).scheduled(B, "plan")

    story.when(story.heard()).then_nothing()


def test_a_worker_that_leaves_is_suspected_while_it_has_work_and_lost_when_it_has_none() -> None:
    story = Slots().given(joined()).scheduled(A).when()

    story.when(story.heard(leaving=True)).then(Like(WorkerSuspected, reason="leaving"))
    story.when(story.heard(leaving=True)).then_nothing()
    story.given(AttemptSucceeded(task=A, attempt=1)).when(story.heard(leaving=True)).then(
        Like(WorkerLost, reason="left")
    )
    assert not story.machine.state.fleet.workers


def test_a_worker_that_leaves_with_work_and_is_not_heard_again_is_lost() -> None:
    """Its process may have gone before what it had ended: nobody else would ever say so."""
    story = Slots().given(joined()).scheduled(A).when()
    story.when(story.heard(leaving=True)).then(Like(WorkerSuspected, reason="leaving"))

    story.after(LOST_SECONDS - 1).when().then_nothing()
    story.after(1).when().then(Like(WorkerLost, worker="w1", reason="silent for 30 s"))
    assert story.record().phase is Phase.PENDING


def test_nothing_is_remembered_of_workers_that_are_gone() -> None:
    """Each machine of a fleet that grows and shrinks by itself has a name of its own."""
    story = Slots()
    for number in range(20):
        name = f"w{number}"
        story.when(story.heard(name)).scheduled(task_id(number), "plan_and_apply").when()
        story.given(NotDelivered(task=task_id(number), attempt=1, reason=NO_RESPONDERS))
        story.given(ForceStopped(task=task_id(number), by="root", reason=""))
        story.when(story.heard(name, reason="full")).when(story.heard(name, leaving=True))
    story.after(2 * LOST_SECONDS).when()

    liveness = story.machine._liveness
    assert story.machine.state.fleet.workers == {}
    unwilling = liveness._unwilling
    assert (liveness._heard, liveness._leaving, liveness._unreachable) == ({}, {}, {})
    assert (unwilling._told, unwilling._taking) == ({}, {})


def test_a_worker_is_forgotten_with_the_last_slot_that_it_held_though_it_was_lost_before() -> None:
    story = Slots().given(joined()).scheduled(A, "plan_and_apply").when().given(LOST)
    assert story.machine.state.joined.keys() == {"w1"}

    story.given(ForceStopped(task=A, by="root", reason=""), SlotCleared(task=A, attempt=1, worker="w1", slot=0))

    assert (story.machine.state.fleet.workers, story.machine.state.joined) == ({}, {})


def test_of_many_that_were_drained_and_lost_the_first_are_forgotten_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskyard.contracts.fleet.GONE_KEPT_MAX", 2)
    story = Slots()
    for name in ("w1", "w2", "w3"):
        story.given(joined(name), WorkerDrainRequested(pool="default", worker=name, by="root"))
        story.given(lost(name))

    assert story.machine.state.fleet.workers.keys() == story.machine.state.joined.keys() == {"w2", "w3"}


def test_a_worker_that_left_and_comes_again_joins_again() -> None:
    story = Slots().given(joined())
    story.when(story.heard(leaving=True)).then(Like(WorkerLost, reason="left"))

    story.when(story.heard(incarnation=2)).then(Like(WorkerJoined, incarnation=run(2)))


def test_a_worker_that_leaves_does_not_join() -> None:
    story = Slots()

    story.when(story.heard(leaving=True)).then_nothing()


def test_a_run_that_comes_after_one_that_left_stays() -> None:
    story = Slots()
    story.when(story.heard())
    story.when(story.heard(leaving=True)).then(Like(WorkerLost, reason="left"))
    story.when(story.heard(incarnation=2))

    story.when(story.heard(incarnation=2), story.answered()).then_nothing()


def test_a_lost_worker_that_is_heard_as_it_was_joins_again() -> None:
    """Only the network had been away; what it held follows from the log, not from the heartbeat."""
    story = Slots().given(joined()).scheduled(A, "plan_and_apply").when().given(LOST)

    story.when(story.heard()).then(Like(WorkerJoined, worker="w1", incarnation=run(1)))
    assert story.record().held_slot == ("w1", 0)
    assert story.machine.state.fleet.workers["w1"].busy == {0: A}


# -- silence -----------------------------------------------------------------------------------------------------------


def test_silence_makes_suspect_and_then_lost() -> None:
    story = Slots()
    story.when(story.heard())

    story.after(SUSPECT_SECONDS - 1).when().then_nothing()
    story.after(1).when().then(Like(WorkerSuspected, worker="w1", reason="silent for 10 s"))
    story.after(LOST_SECONDS - SUSPECT_SECONDS - 1).when().then_nothing()
    story.after(1).when().then(Like(WorkerLost, worker="w1", reason="silent for 30 s"))
    story.after(LOST_SECONDS).when().then_nothing()


def test_a_suspect_gets_nothing_new_until_it_speaks() -> None:
    story = Slots().given(joined())
    story.after(SUSPECT_SECONDS).when().then(Like(WorkerSuspected))
    story.scheduled(A).when().then_nothing()

    story.when(story.heard())

    assert [type(event) for event in story.chosen] == [WorkerRecovered, SlotAssigned]


def test_no_slot_is_given_in_the_decision_that_loses_its_worker() -> None:
    story = Slots()
    story.when(story.heard())
    story.scheduled(A).after(LOST_SECONDS)

    decision = story.decide()

    assert [type(event) for event in decision.events] == [WorkerLost]


def test_no_slot_is_given_in_the_decision_that_suspects_its_worker() -> None:
    story = Slots()
    story.when(story.heard())
    story.scheduled(A).after(SUSPECT_SECONDS)

    decision = story.decide()

    assert [type(event) for event in decision.events] == [WorkerSuspected]


def test_silence_does_not_count_from_before_this_leader_began() -> None:
    story = Slots().given(joined()).after(10 * LOST_SECONDS).successor()

    story.when().then_nothing()
    story.after(SUSPECT_SECONDS).when().then(Like(WorkerSuspected))


def test_silence_does_not_count_from_before_it_was_connected_again() -> None:
    story = Slots().given(joined()).after(LOST_SECONDS)

    story.when(Reconnected()).then_nothing()
    story.after(SUSPECT_SECONDS).when().then(Like(WorkerSuspected))


@pytest.mark.parametrize("standstill_seconds", [5.9, 40.0, 3600.0])
def test_silence_does_not_count_while_this_instance_or_the_server_stood_still(standstill_seconds: float) -> None:
    story = Slots().given(joined())
    story.when(story.heard(), story.answered()).after(LOST_SECONDS - 2).when()
    story.now = Instant(story.now + seconds(standstill_seconds))

    story.when().then_nothing()
    story.when(story.answered()).then_nothing()
    story.when(story.heard()).then(Like(WorkerRecovered))
    story.after(SUSPECT_SECONDS).when().then(Like(WorkerSuspected))
    story.after(LOST_SECONDS - SUSPECT_SECONDS).when().then(Like(WorkerLost))


def test_nothing_of_the_time_before_it_was_connected_again_is_silence() -> None:
    story = Slots().given(joined())
    story.decide(story.heard())
    story.decide(story.answered())
    story.now = Instant(story.now + seconds(SUSPECT_SECONDS))

    story.decide(Reconnected(), story.answered())

    assert story.machine._liveness._listened == story.machine._liveness._since


def test_while_the_server_does_not_answer_nobody_is_lost() -> None:
    story = Slots().given(joined()).after(1)
    story.now = Instant(story.now + seconds(10 * LOST_SECONDS))

    story.when().then_nothing()


def test_standstills_without_end_do_not_keep_a_worker_that_is_gone() -> None:
    """Each of them counts a little: else whoever is always late would never lose anybody."""
    story = Slots().given(joined())
    for _ in range(int(LOST_SECONDS) + 1):
        story.now = Instant(story.now + seconds(5.0))
        story.when(story.answered())

    assert story.machine.state.fleet.workers == {}


def test_a_step_of_the_clock_forward_loses_no_worker() -> None:
    story = Slots().given(joined())
    story.when(story.heard())
    story.now = Instant(story.now + seconds(3600.0))

    story.when(story.answered()).then_nothing()
    story.after(SUSPECT_SECONDS - 1).when().then_nothing()
    story.when(story.heard()).then_nothing()
    story.after(SUSPECT_SECONDS - 1).when().then_nothing()


def test_a_late_heartbeat_does_not_turn_back_the_clock() -> None:
    story = Slots().given(joined())
    late = story.heard()
    story.after(SUSPECT_SECONDS - 1).when(story.heard())
    story.when(late)

    story.after(SUSPECT_SECONDS - 1).when().then_nothing()


def test_a_worker_that_nobody_can_reach_is_suspected_at_once_and_heard_again() -> None:
    story = Slots().given(joined()).scheduled(A).when()
    story.given(TaskDispatched(task=A, attempt=1), NotDelivered(task=A, attempt=1, reason=NO_RESPONDERS))

    story.when().then(Like(WorkerSuspected, worker="w1", reason="nobody listens on its subject"))


def test_a_task_that_workers_declined_prefers_others_and_takes_them_where_there_is_no_other() -> None:
    story = Slots().given(joined("w1"), joined("w2"), joined("w3")).scheduled(A).when().then(assigned(A))
    for attempt, worker in ((1, "w2"), (2, "w3")):
        story.given(NotDelivered(task=A, attempt=attempt, reason="x", declined=True)).given(TaskScheduled(task=A))
        story.when().then(assigned(A, attempt=attempt + 1, worker=worker))
    story.given(NotDelivered(task=A, attempt=3, reason="x", declined=True), TaskScheduled(task=A))

    story.when().then(assigned(A, attempt=4, worker="w1"))
    story.scheduled(B).when().then(assigned(B, worker="w2"))  # what was looked at and not taken may be given


def test_two_heartbeats_after_nobody_listened_let_it_recover() -> None:
    """The first one may have been on its way when nobody listened."""
    story = Slots().given(joined()).scheduled(A).when().given(NotDelivered(task=A, attempt=1, reason=NO_RESPONDERS))
    story.when().then(Like(WorkerSuspected))

    story.when(story.heard()).then_nothing()
    story.when(story.heard()).then(Like(WorkerRecovered))


def test_a_worker_that_comes_back_is_not_suspected_for_what_it_did_not_hear_before() -> None:
    story = Slots().given(joined()).scheduled(A).when().given(NotDelivered(task=A, attempt=1, reason=NO_RESPONDERS))
    story.when().then(Like(WorkerSuspected))
    story.after(LOST_SECONDS).when().then(Like(WorkerLost))

    story.after(1).when(story.heard()).then(Like(WorkerJoined))
    story.after(1).when().then_nothing()


def test_nor_is_one_that_has_held_a_slot_all_the_while() -> None:
    story = Slots().given(joined()).scheduled(A, "plan_and_apply").when()
    story.scheduled(B, "plan").when().given(NotDelivered(task=B, attempt=1, reason=NO_RESPONDERS))
    story.when().then(Like(WorkerSuspected))
    story.after(LOST_SECONDS).when().then(Like(WorkerLost))
    assert story.record().held_slot == ("w1", 0)

    story.when(story.heard()).then(Like(WorkerJoined, incarnation=run(1)))
    story.after(1).when().then_nothing()


def test_what_nobody_listened_to_long_ago_says_nothing_to_a_new_leader() -> None:
    story = Slots().given(joined()).scheduled(A).when().given(NotDelivered(task=A, attempt=1, reason=NO_RESPONDERS))

    story.refolded().when().then_nothing()
    story.successor().when().then_nothing()


def test_many_who_are_silent_at_once_are_all_lost() -> None:
    story = Slots()
    for number in range(250):
        story.given(joined(f"w{number}"))

    story.after(LOST_SECONDS).when()
    for _ in range(4):
        lost = {event.worker for event, _, _ in story.log if isinstance(event, WorkerLost)}
        if len(lost) == 250:
            break
        story.after(1).when()

    assert len(lost) == 250


def test_a_suspect_that_is_given_as_such_is_not_suspected_again() -> None:
    story = Slots().given(joined(), SUSPECTED).after(SUSPECT_SECONDS)

    story.when().then_nothing()


# -- leaders -----------------------------------------------------------------------------------------------------------


def test_a_new_leader_places_the_same() -> None:
    story = Slots().given(joined("w2"), joined("w1"), PoolConfigured(pool="default", by="r", placement="keep-slot-0"))
    story.scheduled(A, "plan").when()
    story.scheduled(C, "plan").scheduled(B).scheduled(D, "plan")
    successors = story.successor(), story.refolded()

    story.when()

    for successor in successors:
        assert successor.when().chosen == story.chosen
        assert successor.machine.snapshot() == story.machine.snapshot()


def test_a_standby_places_nothing() -> None:
    story = Story(SlotAllocator(SUSPECT_SECONDS, LOST_SECONDS), leads=False)
    story.given(joined(), submitted(), TaskScheduled(task=A))

    assert not any(isinstance(event, SlotAssigned) for event in story.machine.decide(Instant(story.now), ()).events)
