"""The judge bites: each rule, broken in a small story, is found, and the same story told rightly is not."""

from collections.abc import Callable

import msgspec
import pytest
from judged import BEGIN, Story, rules, task_id

from taskyard.contracts.events import (
    ApplyConfirmed,
    ApprovalExpired,
    AttemptFailed,
    AttemptSucceeded,
    Changes,
    NotDelivered,
    PoolConfigured,
    TaskError,
    TaskPlanned,
    TaskReprioritised,
    TaskScheduled,
    TaskStopRequested,
    WorkerLost,
)
from taskyard.contracts.subjects import COMMANDS
from taskyard.contracts.values import SECOND, Instant, make_position
from taskyard.judge.evidence import Asked, Noted, Ran, Shown, Told
from taskyard.judge.faults import Rule

COMMAND = "01a3185c-52dd-7ce5-85c6-5b2fc1658618"


def whole() -> Story:
    """One command that runs to its end, and one plan_and_apply that is asked for and applied."""
    story = Story()
    story.join()
    one, other = story.submit(1), story.submit(2, "plan_and_apply")
    story.run(one)
    story.tell(AttemptSucceeded(task=one, attempt=1))
    story.run(other)
    story.tell(
        TaskPlanned(task=other, attempt=1, changes=Changes(add=1)), ApplyConfirmed(task=other, attempt=1, by="eve")
    )
    story.assign(other, attempt=2)
    story.tell(AttemptSucceeded(task=other, attempt=2))
    return story


def ran(position: int | None = None, **fields: object) -> Ran:
    seconds = BEGIN / SECOND
    known = {
        "host": "w",
        "slot": 0,
        "position": position,
        "task": task_id(1),
        "attempt": 1,
        "kind": "command",
        "apply": False,
        "began": seconds,
        "ended": seconds,
    }
    return Ran(**{**known, **fields})  # type: ignore[arg-type]


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


def test_an_apply_that_ran_for_an_unconfirmed_plan_is_found() -> None:
    story = Story()
    story.join()
    task = story.submit(1, "plan_and_apply")
    position = story.run(task)
    seen = ran(position, kind="plan_and_apply", apply=True)
    assert rules(story.judged(ran=[seen])) == {Rule.CONFIRMATION}


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


def test_a_command_that_is_decided_twice_is_found() -> None:
    story = Story()
    task = story.submit(1)
    story.tell(TaskReprioritised(task=task, priority=1, by="eve", command=COMMAND))  # type: ignore[arg-type]
    assert not story.judged().faults
    story.tell(TaskReprioritised(task=task, priority=2, by="eve", command=COMMAND))  # type: ignore[arg-type]
    assert rules(story.judged()) == {Rule.DECIDED_ONCE}


def test_a_command_that_no_commit_accounts_for_is_found() -> None:
    story = Story()
    task = story.submit(1)
    asked = Asked(sequence=7, verb="reprioritise", data=msgspec.json.encode({"id": COMMAND}))
    event = TaskReprioritised(task=task, priority=1, by="eve", command=COMMAND)  # type: ignore[arg-type]
    story.commit("scheduler", event, cursors={COMMANDS: 6})
    assert rules(story.judged(asked=[asked])) == {Rule.DECIDED_ONCE}
    story.log.pop()
    story.commit(
        "scheduler", event, cursors={COMMANDS: 7}, previous=msgspec.json.decode(story.log[-1].data)["previous"]
    )
    assert Rule.DECIDED_ONCE not in rules(story.judged(asked=[asked]))


def test_an_attempt_that_runs_twice_is_found() -> None:
    story = whole()
    assert Rule.RAN_ONCE in rules(story.judged(ran=[ran(), ran()]))
    assert not story.judged(ran=[ran()]).faults


def test_a_task_that_may_run_once_and_runs_in_two_attempts_is_found() -> None:
    story = Story()
    story.join()
    task = story.submit(1, max_attempts=1)
    story.run(task)
    assert Rule.RAN_ONCE in rules(story.judged(ran=[ran(), ran(attempt=2)]))


def test_an_apply_that_runs_twice_is_found() -> None:
    applies = [ran(task=task_id(2), attempt=attempt, kind="plan_and_apply", apply=True) for attempt in (2, 3)]
    assert Rule.RAN_ONCE in rules(whole().judged(ran=applies))


# -- what ran ----------------------------------------------------------------------------------------------------------


def test_what_runs_after_its_end_is_found() -> None:
    late = BEGIN / SECOND + 60
    assert rules(whole().judged(ran=[ran(began=late, ended=late)])) == {Rule.FENCE}


def test_what_runs_for_a_worker_that_it_was_not_given_to_is_found() -> None:
    assert Rule.FENCE in rules(whole().judged(ran=[ran(host="other")]))


def test_two_that_run_at_once_in_a_slot_are_found() -> None:
    story = Story()
    story.join()
    story.run(story.submit(1))
    begun = BEGIN / SECOND
    seen = [ran(began=begun, ended=begun + 2), ran(task=task_id(2), began=begun + 1, ended=begun + 2)]
    assert Rule.FENCE in rules(story.judged(ran=seen))


def test_what_succeeded_and_never_ran_is_found() -> None:
    story = whole()
    other = story.submit(3)
    story.run(other)
    story.tell(AttemptSucceeded(task=other, attempt=1))
    assert rules(story.judged(ran=[ran()])) == {Rule.FENCE}


def test_what_was_not_delivered_and_ran_is_found() -> None:
    story = Story()
    story.join()
    task = story.submit(1)
    story.tell(TaskScheduled(task=task))
    story.assign(task)
    story.tell(NotDelivered(task=task, attempt=1, reason="nobody listened"))
    assert Rule.FENCE in rules(story.judged(ran=[ran()]))


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
    in_time = Story()
    in_time.join()
    in_time.log[-1:] = in_time.log[-1:]
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


def test_a_stored_command_that_nobody_decided_is_lost() -> None:
    asked = Asked(sequence=1, verb="cancel", data=msgspec.json.encode({"id": COMMAND}))
    assert rules(whole().judged(is_over=True, asked=[asked])) == {Rule.LOST}


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


def test_a_task_that_was_asked_for_in_a_batch_first_and_then_alone_is_accounted_for_by_the_batch() -> None:
    story = Story()
    batch = Asked(sequence=1, verb="submit", data=msgspec.json.encode({"id": COMMAND, "tasks": [{"id": task_id(1)}]}))
    alone = Asked(sequence=2, verb="submit", data=msgspec.json.encode({"id": task_id(1), "kind": "noop"}))
    story.commit("scheduler", cursors={COMMANDS: 1})
    story.submit(1)
    assert not story.judged(asked=[batch, alone]).faults
    assert Rule.DECIDED_ONCE in rules(story.judged(asked=[alone]))


def test_a_batch_that_came_again_under_another_id_is_decided_by_its_tasks() -> None:
    again = Asked(sequence=2, verb="submit", data=msgspec.json.encode({"id": COMMAND, "tasks": [{"id": task_id(1)}]}))
    assert not whole().judged(is_over=True, asked=[again]).count(Rule.LOST)
