"""The judge bites: each rule, broken in a small story, is found, and the same story told rightly is not."""

from collections.abc import Callable
from typing import Any

import pytest
from judged import BEGIN, COMMAND, Story, rules, task_id, whole

from taskyard.contracts.events import (
    ApplyConfirmed,
    ApprovalExpired,
    AttemptFailed,
    AttemptSucceeded,
    Changes,
    CommandRejected,
    PoolConfigured,
    TaskError,
    TaskPlanned,
    TaskScheduled,
    TaskStopRequested,
    WorkerJoined,
    WorkerLost,
)
from taskyard.contracts.values import SECOND, CommandId, Instant, make_position
from taskyard.judge.evidence import Noted, Shown, Told
from taskyard.judge.faults import Rule


def test_a_story_without_a_fault_is_found_without_one() -> None:
    verdict = whole().judged(is_over=True, accepted=[task_id(1), task_id(2)])
    assert not verdict.faults, verdict.faults
    assert verdict.lives[task_id(2)].status == "completed"
    assert verdict.attempts_started[task_id(1)] == 1


# -- the log -----------------------------------------------------------------------------------------------------------


def a_gap(story: Story) -> None:
    del story.log[-2]


def a_forged_hash(story: Story) -> None:
    story.commit("scheduler", previous="00")


def an_earlier_epoch(story: Story) -> None:
    story.take_over("scheduler")
    story.commit("scheduler", epoch=1, instance="scheduler-1")


def two_leaders_of_one_epoch(story: Story) -> None:
    story.commit("scheduler", instance="another")


def a_decision_in_the_takeover(story: Story) -> None:
    story.commit("scheduler", TaskScheduled(task=task_id(1)), epoch=2, instance="another")


def anothers_event(story: Story) -> None:
    story.tell(TaskScheduled(task=task_id(1)), writer="dispatcher")


def an_event_of_nobodys_task(story: Story) -> None:
    story.tell(TaskScheduled(task=task_id(99)))


@pytest.mark.parametrize(
    "break_it",
    [
        a_gap,
        a_forged_hash,
        an_earlier_epoch,
        two_leaders_of_one_epoch,
        a_decision_in_the_takeover,
        anothers_event,
        an_event_of_nobodys_task,
    ],
)
def test_a_broken_log_is_found(break_it: Callable[[Story], None]) -> None:
    story = whole()
    break_it(story)
    assert Rule.LOG in rules(story.judged())


# -- slots, workspaces, confirmations, attempts ------------------------------------------------------------------------


def test_a_slot_with_two_tasks_is_found() -> None:
    story = Story()
    story.join()
    story.run(story.submit(1))
    story.run(story.submit(2))
    assert rules(story.judged()) == {Rule.SLOT}


@pytest.mark.parametrize(("slot", "incarnation"), [(1, 1), (3, 1), (0, 2)])
def test_a_slot_that_does_not_take_the_kind_or_is_not_there_is_found(slot: int, incarnation: int) -> None:
    story = Story()
    story.join()
    task = story.submit(1)
    story.tell(TaskScheduled(task=task))
    story.assign(task, slot=slot, incarnation=incarnation)
    assert rules(story.judged()) == {Rule.SLOT}


def test_a_slot_of_a_lost_worker_is_found() -> None:
    story = Story()
    story.join()
    task = story.submit(1)
    story.tell(TaskScheduled(task=task), WorkerLost(worker="w", incarnation=1))
    story.assign(task)
    assert rules(story.judged()) == {Rule.SLOT}


@pytest.mark.parametrize(
    ("continues", "is_lost", "found"),
    [(None, False, True), ("r1", False, False), (None, True, False)],
    ids=["while it is there", "with its journal", "when it is lost"],
)
def test_who_takes_the_name_of_a_worker_that_is_there_is_found(
    continues: str | None, is_lost: bool, found: bool
) -> None:
    story = Story()
    joined: dict[str, Any] = {"worker": "w", "pool": "default", "slots": (("any",),), "kinds": ("command",)}
    story.tell(WorkerJoined(**joined, incarnation="r1"))
    if is_lost:
        story.tell(WorkerLost(worker="w", incarnation="r1", reason="silent"))
    story.tell(WorkerJoined(**joined, incarnation="r2", continues=continues))
    assert (Rule.NAME in rules(story.judged())) is found


def test_an_apply_on_another_slot_than_its_plans_is_found() -> None:
    story = Story()
    story.join()
    story.join("other")
    task = story.submit(1, "plan_and_apply")
    story.run(task)
    story.tell(TaskPlanned(task=task, attempt=1, changes=Changes()), ApplyConfirmed(task=task, attempt=1, by="eve"))
    story.assign(task, attempt=2, worker="other")
    assert Rule.SLOT in rules(story.judged())


def test_two_changes_of_one_workspace_are_found() -> None:
    story = Story()
    one, other = story.submit(1, "plan_and_apply"), story.submit(2, "plan_and_apply")
    story.tell(TaskScheduled(task=one), TaskScheduled(task=other))
    assert rules(story.judged()) == {Rule.WORKSPACE}


def test_an_apply_without_a_confirmation_is_found() -> None:
    story = Story()
    story.join()
    task = story.submit(1, "plan_and_apply")
    story.run(task)
    story.tell(AttemptSucceeded(task=task, attempt=1))
    assert rules(story.judged()) == {Rule.CONFIRMATION}


def test_an_attempt_with_a_number_that_was_used_is_found() -> None:
    story = Story()
    story.join()
    task = story.submit(1, max_attempts=3)
    story.run(task)
    lost = AttemptFailed(task=task, attempt=1, error=TaskError(code="x", message="", retryable=True))
    story.tell(lost)
    story.now += 10
    story.tell(TaskScheduled(task=task))
    story.assign(task, attempt=1)
    assert rules(story.judged()) == {Rule.ATTEMPTS}


# -- once --------------------------------------------------------------------------------------------------------------


def test_a_task_that_is_accepted_twice_is_found() -> None:
    story = whole()
    story.submit(1)
    assert rules(story.judged()) == {Rule.ENDED_ONCE}


def test_a_command_that_is_decided_twice_is_found_and_one_that_had_to_wait_is_not() -> None:
    for status, found in ((409, {Rule.DECIDED_ONCE}), (503, set[Rule]())):
        story = whole()
        for _ in range(2):
            story.tell(
                CommandRejected(
                    command=CommandId(COMMAND),
                    verb="retry",
                    by="bob",
                    pool="default",
                    status=status,
                    code="x",
                    message="",
                )
            )
        assert rules(story.judged()) == found


# -- time --------------------------------------------------------------------------------------------------------------


def times_out(story: Story) -> None:
    task = story.submit(1, timeout_seconds=30.0)
    story.run(task)
    story.now += 29
    story.tell(TaskStopRequested(task=task, cause="timeout", by="dispatcher", attempt=1))


def times_out_on_its_worker(story: Story) -> None:
    task = story.submit(1, timeout_seconds=30.0)
    story.run(task)
    story.now += 29
    story.tell(AttemptFailed(task=task, attempt=1, error=TaskError(code="timeout", message="")))


def does_not_start_in_time(story: Story) -> None:
    task = story.submit(1, schedule_to_start_timeout_seconds=30.0)
    story.now += 29
    story.tell(TaskStopRequested(task=task, cause="schedule_to_start", by="auto"))


def expires(story: Story) -> None:
    story.tell(PoolConfigured(pool="default", by="eve", approval_timeout_seconds=30.0))
    task = story.submit(1, "plan_and_apply")
    story.run(task)
    story.tell(TaskPlanned(task=task, attempt=1, changes=Changes()))
    story.now += 29
    story.tell(ApprovalExpired(task=task, attempt=1))


def begins_before_it_may(story: Story) -> None:
    task = story.submit(1, not_before=Instant(BEGIN + 30 * SECOND))
    story.now += 29
    story.tell(TaskScheduled(task=task))


@pytest.mark.parametrize(
    "story_of", [times_out, times_out_on_its_worker, does_not_start_in_time, expires, begins_before_it_may]
)
def test_what_comes_before_its_time_is_found_and_in_time_is_not(story_of: Callable[[Story], None]) -> None:
    early = Story()
    early.join()
    story_of(early)
    assert rules(early.judged()) == {Rule.EARLY}
    later = _LateStory()
    later.join()
    story_of(later)
    assert not later.judged().faults


class _LateStory(Story):
    """The last event comes two seconds later."""

    def tell(self, *events: object, writer: str | None = None) -> int:  # type: ignore[override]
        if isinstance(events[0], TaskStopRequested | AttemptFailed | ApprovalExpired) or (
            isinstance(events[0], TaskScheduled) and self.now > 20
        ):
            self.now += 2
        return super().tell(*events, writer=writer)  # type: ignore[arg-type]


def test_whoever_has_read_an_end_and_goes_on_with_the_task_is_found() -> None:
    story = whole()
    story.tell(PoolConfigured(pool="default", by="eve"), TaskScheduled(task=task_id(1)))
    assert rules(story.judged()) == {Rule.ENDED_ONCE}


def test_what_crosses_an_end_on_its_way_is_not() -> None:
    story = Story()
    story.join()
    task = story.submit(1)
    story.tell(TaskScheduled(task=task), TaskStopRequested(task=task, cause="cancel", by="bob", command=COMMAND))
    story.assign(task)  # the allocator's own commit before, behind which it decided, is older than the end
    assert not story.judged().faults


# -- the end -----------------------------------------------------------------------------------------------------------


def test_what_was_accepted_and_is_not_in_the_log_is_lost() -> None:
    verdict = whole().judged(is_over=True, accepted=[task_id(9)])
    assert rules(verdict) == {Rule.LOST}


def test_what_has_not_ended_is_stuck_holds_its_slot_and_counts_as_lost() -> None:
    story = Story()
    story.join()
    story.run(story.submit(1))
    verdict = story.judged(is_over=True, accepted=[task_id(1)])
    assert rules(verdict) == {Rule.STUCK, Rule.LEAKED, Rule.LOST}
    assert not story.judged(is_over=False, accepted=[task_id(1)]).faults


# -- readers -----------------------------------------------------------------------------------------------------------


def shown(number: int = 1, **fields: object) -> Shown:
    known = {"id": task_id(number), "status": "completed", "attempt": number, "worker": "w", "slot": 0}
    return Shown(**{**known, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rows",
    [
        [shown(1)],
        [shown(1), shown(2), shown(3)],
        [shown(1), shown(2, status="running")],
        [shown(1), shown(2, attempt=1)],
        [shown(1), shown(2, types=["TaskSubmitted"])],
    ],
)
def test_a_read_model_that_differs_is_found(rows: list[Shown]) -> None:
    assert rules(whole().judged(shown=rows)) == {Rule.READ_MODEL}


def test_a_read_model_that_agrees_is_not_found() -> None:
    assert not whole().judged(shown=[shown(1), shown(2)]).faults


def test_an_answer_that_the_log_does_not_bear_out_is_found() -> None:
    story = whole()
    right = Told(command=COMMAND, code=202, task=task_id(1), position=make_position(5, 0))
    assert not story.judged(told=[right]).faults
    for position, task in ((make_position(5, 0), task_id(2)), (make_position(500, 0), task_id(1))):
        wrong = Told(command=COMMAND, code=202, task=task, position=position)
        assert rules(story.judged(told=[wrong])) == {Rule.ANSWERS}


def test_a_journal_that_remembers_what_the_log_never_gave_or_another_end_is_found() -> None:
    story = Story()
    story.join()
    task = story.submit(1)
    position = story.run(task)
    noted = {"worker": "w", "slot": 0, "position": position, "task": task, "attempt": 1, "outcome": "accepted"}
    assert not story.judged(noted=[Noted(**noted, end=None)]).faults  # type: ignore[arg-type]
    assert rules(story.judged(noted=[Noted(**{**noted, "slot": 1}, end=None)])) == {Rule.JOURNAL}  # type: ignore[arg-type]
    assert rules(story.judged(noted=[Noted(**noted, end="Succeeded")])) == {Rule.JOURNAL}  # type: ignore[arg-type]
