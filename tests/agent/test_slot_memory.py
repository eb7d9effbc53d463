"""The rules of slot memory: given what a slot has seen, when a message comes, then this follows."""

from typing import Any

import msgspec
import pytest

from taskyard.agent.slots import Decision, Live, ProcessIdentity, Remembered, SlotMemory
from taskyard.contracts.agent_protocol import (
    ACCEPTED,
    DECLINED,
    LOST,
    SEEN_ACCEPTED,
    SEEN_STARTED,
    Assignment,
    AssignRequest,
    Cancel,
    Failed,
    Lost,
    Planned,
    Started,
    Succeeded,
)
from taskyard.contracts.events import Changes
from taskyard.contracts.values import Instant, Position, TaskId

INCARNATION, BEFORE, OTHER = "r2", "r1", "r9"
NOW = Instant(7)
PROCESS = ProcessIdentity(pid=4711, start_ticks=5, boot="b")


def memory(*, remembered: dict[int, Remembered] | None = None, live: list[Live] | None = None) -> SlotMemory:
    return SlotMemory(
        lineage=(INCARNATION, BEFORE),
        slot_count=2,
        kinds=("command", "noop", "plan_and_apply"),
        remembered=remembered or {},
        live=live or [],
    )


def an_assignment(position: int, **changes: Any) -> Assignment:
    values: dict[str, Any] = {
        "position": Position(position),
        "task": TaskId(f"task-{position}"),
        "attempt": 1,
        "slot": 0,
        "incarnation": INCARNATION,
        "kind": "command",
        "input": msgspec.Raw(b"null"),
        "timeout_seconds": 1.0,
    }
    return Assignment(**(values | changes))


def a_cancel(position: int, **changes: Any) -> Cancel:
    values: dict[str, Any] = {
        "position": Position(position),
        "task": TaskId(f"task-{position}"),
        "attempt": 1,
        "slot": 0,
        "cause": "cancel",
    }
    return Cancel(**(values | changes))


def assign(slots: SlotMemory, *assignments: Assignment, refusal: str | None = None) -> Decision:
    return slots.assign(AssignRequest(incarnation=INCARNATION, assignments=assignments), now=NOW, refusal=refusal)


def outcomes(decision: Decision) -> list[str]:
    return [answer.outcome for answer in decision.answers]


def succeeded(position: int) -> Succeeded:
    return Succeeded(task=TaskId(f"task-{position}"), attempt=1, at=NOW)


def test_an_empty_slot_accepts_and_begins() -> None:
    decision = assign(memory(), an_assignment(1))
    assert outcomes(decision) == [ACCEPTED]
    assert [one.position for one in decision.begin] == [1]


def test_an_equal_position_gets_the_same_answer_and_begins_nothing() -> None:
    slots = memory()
    assign(slots, an_assignment(1))
    decision = assign(slots, an_assignment(1))
    assert outcomes(decision) == [ACCEPTED]
    assert decision.begin == []
    assert decision.reports == []


def test_an_equal_position_twice_in_one_request_begins_once() -> None:
    decision = assign(memory(), an_assignment(1), an_assignment(1))
    assert outcomes(decision) == [ACCEPTED, ACCEPTED]
    assert len(decision.begin) == 1


def test_an_equal_position_that_runs_says_that_it_started() -> None:
    slots = memory()
    assign(slots, an_assignment(1))
    slots.began(Position(1))
    assert [type(one) for one in assign(slots, an_assignment(1)).reports] == [Started]


def test_an_equal_position_that_ended_has_its_end_reported_again() -> None:
    slots = memory()
    assign(slots, an_assignment(1))
    slots.ended(Position(1), succeeded(1))
    assert assign(slots, an_assignment(1)).reports == [succeeded(1)]


def test_an_older_position_is_declined() -> None:
    slots = memory()
    assign(slots, an_assignment(2))
    slots.ended(Position(2), succeeded(2))
    decision = assign(slots, an_assignment(1))
    assert outcomes(decision) == [DECLINED]
    assert decision.begin == []


def test_a_newer_position_is_declined_while_the_process_lives_and_stops_it() -> None:
    slots = memory()
    assign(slots, an_assignment(1))
    slots.spawned(Position(1), PROCESS)
    decision = assign(slots, an_assignment(2))
    assert outcomes(decision) == [DECLINED]
    assert "task-1" in decision.answers[0].reason
    assert "4711" in decision.answers[0].reason
    assert [stop.position for stop in decision.stops] == [1]
    slots.ended(Position(1), succeeded(1))
    assert outcomes(assign(slots, an_assignment(2))) == [DECLINED], "declined is declined for ever"
    assert outcomes(assign(slots, an_assignment(3))) == [ACCEPTED]


@pytest.mark.parametrize(
    ("changes", "request_changes"),
    [
        ({"slot": 2}, {}),
        ({"slot": 5000}, {}),
        ({"kind": "plan"}, {}),
        ({}, {"refusal": "draining"}),
    ],
)
def test_what_cannot_begin_is_declined_and_stays_so(changes: dict[str, Any], request_changes: dict[str, Any]) -> None:
    slots = memory()
    decision = assign(slots, an_assignment(1, **changes), **request_changes)
    assert outcomes(decision) == [DECLINED]
    assert outcomes(assign(slots, an_assignment(1, **changes))) == [DECLINED]


def test_an_assignment_to_a_run_that_had_another_journal_is_lost() -> None:
    assert outcomes(assign(memory(), an_assignment(1, incarnation=OTHER))) == [LOST]
    assert outcomes(assign(memory(), an_assignment(1, incarnation=BEFORE))) == [ACCEPTED]


@pytest.mark.parametrize("seen", [SEEN_ACCEPTED, SEEN_STARTED])
def test_an_attempt_that_the_log_has_seen_and_the_worker_does_not_remember_is_lost_and_never_begins(seen: str) -> None:
    slots = memory()
    decision = assign(slots, an_assignment(1, seen=seen))
    assert (outcomes(decision), decision.begin) == ([LOST], [])
    assert assign(slots, an_assignment(2)).begin != []


def test_an_attempt_that_is_remembered_is_answered_however_far_the_log_has_seen_it() -> None:
    slots = memory()
    assign(slots, an_assignment(1))
    decision = assign(slots, an_assignment(1, seen=SEEN_STARTED))
    assert (outcomes(decision), decision.begin) == ([ACCEPTED], [])


@pytest.mark.parametrize("seen", ["accepted", "started"])
def test_an_attempt_that_the_log_has_seen_and_the_journal_does_not_remember_is_lost_and_does_not_begin(
    seen: str,
) -> None:
    slots = memory()
    assign(slots, an_assignment(1))
    slots.ended(Position(1), succeeded(1))
    decision = assign(slots, an_assignment(2, seen=seen))
    assert (outcomes(decision), decision.begin) == ([LOST], [])


def test_one_that_it_remembers_is_answered_as_ever_however_far_the_log_has_seen_it() -> None:
    slots = memory()
    assign(slots, an_assignment(1))
    decision = assign(slots, an_assignment(1, seen="started"))
    assert (outcomes(decision), decision.begin) == ([ACCEPTED], [])


def test_a_cancel_of_an_unseen_position_can_never_begin() -> None:
    slots = memory()
    decision = slots.cancel([a_cancel(1)], now=NOW)
    assert outcomes(decision) == [ACCEPTED]
    assert [one.error.code for one in decision.reports if isinstance(one, Failed)] == ["cancelled"]
    late = assign(slots, an_assignment(1))
    assert outcomes(late) == [ACCEPTED]
    assert late.begin == []
    assert [type(one) for one in late.reports] == [Failed]


def test_a_cancel_of_what_runs_stops_it() -> None:
    slots = memory()
    assign(slots, an_assignment(1))
    decision = slots.cancel([a_cancel(1, grace_seconds=3.0)], now=NOW)
    assert [(stop.position, stop.grace_seconds) for stop in decision.stops] == [(1, 3.0)]
    assert decision.reports == []


def test_a_cancel_of_what_ended_reports_the_end_again() -> None:
    slots = memory()
    assign(slots, an_assignment(1))
    slots.ended(Position(1), succeeded(1))
    assert slots.cancel([a_cancel(1)], now=NOW).reports == [succeeded(1)]


def test_a_cancel_of_what_was_declined_is_reported_as_ended() -> None:
    slots = memory()
    assign(slots, an_assignment(1), refusal="draining")
    assert [type(one) for one in slots.cancel([a_cancel(1)], now=NOW).reports] == [Failed]
    assert outcomes(assign(slots, an_assignment(1))) == [DECLINED]


def test_a_cancel_of_something_newer_stops_what_is_not_current() -> None:
    slots = memory()
    assign(slots, an_assignment(1))
    decision = slots.cancel([a_cancel(2)], now=NOW)
    assert [stop.position for stop in decision.stops] == [1]
    assert [one.task for one in decision.reports] == ["task-2"]


def test_an_old_cancel_is_answered_and_does_nothing() -> None:
    slots = memory()
    assign(slots, an_assignment(2))
    decision = slots.cancel([a_cancel(1)], now=NOW)
    assert (outcomes(decision), decision.reports, decision.stops) == ([ACCEPTED], [], [])


def test_the_end_of_an_older_attempt_leaves_the_memory_of_the_newer() -> None:
    slots = memory()
    assign(slots, an_assignment(1))
    slots.cancel([a_cancel(2)], now=NOW)
    slots.ended(Position(1), succeeded(1))
    remembered = slots.remembered(0)
    assert remembered is not None
    assert remembered.position == 2


def test_after_a_restart_everything_that_lived_is_lost_and_remembered_so() -> None:
    slots = memory()
    assign(slots, an_assignment(1), an_assignment(2, slot=1))
    slots.ended(Position(2), succeeded(2))
    changes = slots.take_changes()
    again = memory(remembered=dict(changes.slots), live=[live for _, live in changes.live if live is not None])
    assert [(type(one), one.task) for one in again.lose([one.position for one in again.live], now=NOW)] == [
        (Lost, "task-1")
    ]
    assert [type(one) for one in assign(again, an_assignment(1)).reports] == [Lost]
    assert assign(again, an_assignment(2, slot=1)).reports == [succeeded(2)]
    assert again.live == []


def restarted(*assignments: Assignment, process: ProcessIdentity | None = None, began: bool = False) -> SlotMemory:
    """A memory after a restart, for which it was accepted and perhaps more."""
    slots = memory()
    assign(slots, *assignments)
    for one in assignments:
        if process is not None:
            slots.spawned(one.position, process)
        if began:
            slots.began(one.position)
    changes = slots.take_changes()
    again = memory(remembered=dict(changes.slots), live=[live for _, live in changes.live if live is not None])
    again.keep_unbegun([one.position for one in again.live if one.is_unbegun])
    return again


def test_what_was_accepted_before_a_restart_and_not_begun_begins_once_when_it_is_assigned_again() -> None:
    slots = restarted(an_assignment(1))
    again = an_assignment(1, seen=SEEN_ACCEPTED, incarnation=BEFORE)
    first, second = assign(slots, again), assign(slots, again)
    assert (outcomes(first), first.begin) == ([ACCEPTED], [again])
    assert (outcomes(second), second.begin, second.reports) == ([ACCEPTED], [], [])
    assert slots.give_up_unbegun(now=NOW) == []


def test_what_has_a_process_or_has_begun_before_a_restart_never_begins_again() -> None:
    for slots in (restarted(an_assignment(1), process=PROCESS), restarted(an_assignment(1), began=True)):
        assert assign(slots, an_assignment(1)).begin == []


def test_what_the_log_has_seen_to_start_is_lost_though_the_journal_has_it_as_not_begun() -> None:
    slots = restarted(an_assignment(1))
    decision = assign(slots, an_assignment(1, seen=SEEN_STARTED))
    assert (decision.begin, [type(one) for one in decision.reports], slots.live) == ([], [Lost], [])


def test_what_was_not_begun_has_no_answer_while_nothing_new_begins_and_is_not_lost_by_that() -> None:
    slots = restarted(an_assignment(1))
    decision = assign(slots, an_assignment(1), refusal="the disk is full")
    assert (decision.answers, decision.begin, decision.reports) == ([], [], [])
    assert len(assign(slots, an_assignment(1)).begin) == 1


def test_what_was_not_begun_and_fits_no_more_is_lost() -> None:
    slots = restarted(an_assignment(1))
    decision = assign(slots, an_assignment(1, kind="plan"))
    assert (decision.begin, [type(one) for one in decision.reports], slots.live) == ([], [Lost], [])


def test_what_was_not_begun_and_is_cancelled_ends_and_never_begins() -> None:
    slots = restarted(an_assignment(1))
    decision = slots.cancel([a_cancel(1)], now=NOW)
    assert ([type(one) for one in decision.reports], decision.stops, slots.live) == ([Failed], [], [])
    again = assign(slots, an_assignment(1))
    assert (again.begin, again.reports) == ([], decision.reports)


def test_what_was_not_begun_makes_room_for_what_the_log_gives_its_slot() -> None:
    slots = restarted(an_assignment(1))
    decision = assign(slots, an_assignment(2))
    assert (outcomes(decision), [one.position for one in decision.begin]) == ([ACCEPTED], [2])
    assert [(type(one), one.task) for one in decision.reports] == [(Failed, "task-1")]
    assert (outcomes(assign(slots, an_assignment(1))), decision.stops) == ([DECLINED], [])


def test_what_was_not_begun_and_nobody_asks_for_is_lost() -> None:
    slots = restarted(an_assignment(1), an_assignment(2, slot=1))
    assign(slots, an_assignment(2, slot=1))
    assert [(type(one), one.task) for one in slots.give_up_unbegun(now=NOW)] == [(Lost, "task-1")]
    decision = assign(slots, an_assignment(1))
    assert (decision.begin, [type(one) for one in decision.reports]) == ([], [Lost])


def test_a_plan_that_waits_is_over_when_its_slot_goes_to_another_task_or_it_is_cancelled() -> None:
    planned = Planned(task=TaskId("task-1"), attempt=1, at=NOW, changes=Changes(add=1))
    slots = memory()
    assign(slots, an_assignment(1, kind="plan_and_apply"))
    slots.ended(Position(1), planned)
    assert slots.cancel([a_cancel(1)], now=NOW).plans_over == ["task-1"]
    applied = assign(slots, an_assignment(2, kind="plan_and_apply", task=TaskId("task-1"), apply=True, plan_attempt=1))
    assert applied.plans_over == []
    slots.ended(Position(2), planned)
    assert assign(slots, an_assignment(3)).plans_over == ["task-1"]


def planned_in_slot_0() -> SlotMemory:
    """A memory whose slot 0 is reserved for the plan of task-1."""
    slots = memory()
    assign(slots, an_assignment(1, kind="plan_and_apply"))
    slots.ended(Position(1), Planned(task=TaskId("task-1"), attempt=1, at=NOW, changes=Changes(add=1)))
    return slots


def an_apply(position: int) -> Assignment:
    return an_assignment(position, kind="plan_and_apply", task=TaskId("task-1"), attempt=2, apply=True, plan_attempt=1)


def test_a_plan_is_over_when_its_apply_was_declined_and_is_cancelled() -> None:
    slots = planned_in_slot_0()
    assert assign(slots, an_apply(2), refusal="the disk is full").plans_over == []
    assert slots.cancel([a_cancel(2, task=TaskId("task-1"))], now=NOW).plans_over == ["task-1"]


def test_a_plan_is_over_when_its_apply_was_never_delivered_and_is_cancelled() -> None:
    slots = planned_in_slot_0()
    assert slots.cancel([a_cancel(2, task=TaskId("task-1"))], now=NOW).plans_over == ["task-1"]


@pytest.mark.parametrize("refusal", [None, "the disk is full"])
def test_a_plan_whose_apply_was_declined_is_over_when_its_slot_goes_to_another_task(refusal: str | None) -> None:
    """Its cancel was never delivered; whether the other one begins does not matter."""
    slots = planned_in_slot_0()
    assign(slots, an_apply(2), refusal="the disk is full")
    assert assign(slots, an_assignment(3), refusal=refusal).plans_over == ["task-1"]


def test_a_plan_whose_apply_was_declined_stays_for_the_next_one_also_after_a_restart() -> None:
    slots = planned_in_slot_0()
    assign(slots, an_apply(2), refusal="the disk is full")
    changes = slots.take_changes()
    again = memory(
        remembered={slot: msgspec.convert(msgspec.to_builtins(one), Remembered) for slot, one in changes.slots}
    )
    decision = assign(again, an_apply(3))
    assert (outcomes(decision), decision.plans_over) == ([ACCEPTED], [])
    declined = memory(remembered=dict(changes.slots))
    assert assign(declined, an_assignment(4)).plans_over == ["task-1"]


def test_a_cancel_of_another_tasks_attempt_in_the_slot_of_a_plan_ends_that_plan() -> None:
    slots = planned_in_slot_0()
    assert slots.cancel([a_cancel(2)], now=NOW).plans_over == ["task-1"]


def test_only_what_changed_is_written() -> None:
    slots = memory()
    assign(slots, an_assignment(1))
    changes = slots.take_changes()
    assert [slot for slot, _ in changes.slots] == [0]
    assert [position for position, _ in changes.live] == [1]
    assert slots.take_changes().slots == []
    slots.ended(Position(1), succeeded(1))
    assert slots.take_changes().live == [(1, None)]


def test_what_began_and_ended_at_once_is_remembered_and_never_lived() -> None:
    slots = memory()
    assign(slots, an_assignment(1, kind="noop"))
    slots.ended(Position(1), succeeded(1))
    changes = slots.take_changes()
    assert [record.end for _, record in changes.slots] == [succeeded(1)]
    assert changes.live == []
