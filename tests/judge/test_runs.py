"""What really ran, and what workers without contact did, broken on purpose."""

from typing import Any

import pytest
from judged import BEGIN, Story, ran, rules, task_id, whole

from taskyard.contracts.events import (
    ApplyConfirmed,
    AttemptSucceeded,
    Changes,
    ForceStopped,
    NotDelivered,
    TaskPlanned,
    TaskScheduled,
    WorkerLost,
)
from taskyard.contracts.values import SECOND
from taskyard.judge.evidence import Cut, NoRoom
from taskyard.judge.faults import Rule

BEGUN = BEGIN / SECOND
FENCED_SECONDS = 20.0


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


def test_what_runs_after_its_end_is_found() -> None:
    late = BEGIN / SECOND + 60
    assert rules(whole().judged(ran=[ran(began=late, ended=late)])) == {Rule.FENCE}


def test_what_runs_for_a_worker_that_it_was_not_given_to_is_found() -> None:
    assert Rule.FENCE in rules(whole().judged(ran=[ran(host="other")]))


def test_what_another_host_of_the_workers_name_runs_is_its_workers() -> None:
    assert not whole().judged(ran=[ran(host="other", worker="w")]).faults


@pytest.mark.parametrize(
    ("full", "found"), [((0.0, 20.0), True), ((0.0, None), True), ((0.0, 9.0), False), ((8.0, 20.0), False)]
)
def test_what_is_given_to_a_worker_and_begins_there_while_its_disk_is_full_is_found(
    full: tuple[float, float | None], found: bool
) -> None:
    """What it had been given before may begin, and what it is given may begin when there is room."""
    story = Story()
    story.join()
    task = story.submit(1)
    story.now = 5.0
    position = story.run(task)
    began, ended = full
    no_room = NoRoom(host="w", began=BEGUN + began, ended=None if ended is None else BEGUN + ended)
    seen = ran(position, began=BEGUN + 10, ended=BEGUN + 11)
    assert (Rule.ROOM in rules(story.judged(ran=[seen], no_room=[no_room]))) is found
    elsewhere = NoRoom(host="other", began=BEGUN)
    assert Rule.ROOM not in rules(story.judged(ran=[seen], no_room=[elsewhere]))


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


def test_an_apply_that_ran_for_an_unconfirmed_plan_is_found() -> None:
    story = Story()
    story.join()
    task = story.submit(1, "plan_and_apply")
    position = story.run(task)
    seen = ran(position, kind="plan_and_apply", apply=True)
    assert rules(story.judged(ran=[seen])) == {Rule.CONFIRMATION}


def test_an_older_assignment_that_runs_after_a_newer_one_in_its_slot_is_found() -> None:
    story = Story()
    story.join()
    older = story.run(story.submit(1))
    story.tell(AttemptSucceeded(task=task_id(1), attempt=1))
    newer = story.run(story.submit(2))
    late = ran(older, began=BEGUN + 2, ended=BEGUN + 3)
    first = ran(newer, task=task_id(2), began=BEGUN, ended=BEGUN + 1)
    texts = [fault.text for fault in story.judged(ran=[first, late]).faults]
    assert any("after a newer assignment" in text for text in texts), texts


@pytest.mark.parametrize("is_forced", [False, True])
def test_two_changes_of_one_workspace_that_run_at_once_are_found_unless_a_person_freed_it(is_forced: bool) -> None:
    story = Story()
    story.join()
    story.join("other")
    one, other = story.submit(1, "plan_and_apply"), story.submit(2, "plan_and_apply")
    story.run(one)
    if is_forced:
        story.tell(ForceStopped(task=one, by="eve", reason="hangs"))
    story.tell(TaskScheduled(task=other))
    story.assign(other, worker="other")
    seen = [
        ran(task=one, kind="plan_and_apply", began=BEGUN, ended=BEGUN + 2),
        ran(task=other, kind="plan_and_apply", host="other", began=BEGUN + 1, ended=BEGUN + 2),
    ]
    assert any("ran at once in q" in fault.text for fault in story.judged(ran=seen).faults) is not is_forced


def test_two_attempts_of_a_change_that_run_at_once_are_found() -> None:
    story = Story()
    story.join()
    task = story.submit(1, "plan_and_apply")
    story.run(task)
    story.tell(TaskPlanned(task=task, attempt=1, changes=Changes()), ApplyConfirmed(task=task, attempt=1, by="eve"))
    story.assign(task, attempt=2)
    seen = [
        ran(kind="plan_and_apply", began=BEGUN, ended=BEGUN + 2),
        ran(kind="plan_and_apply", attempt=2, apply=True, slot=None, began=BEGUN + 1, ended=BEGUN + 2),
    ]
    assert any("ran at once" in fault.text for fault in story.judged(ran=seen).faults)


@pytest.mark.parametrize(
    ("kind", "ran_seconds", "back_seconds", "found"),
    [
        ("plan", 25.0, None, True),
        ("plan", None, None, True),
        ("plan", 25.0, 24.0, True),
        ("plan", 19.0, None, False),
        ("plan", 25.0, 19.0, False),
        ("plan_and_apply", 25.0, None, False),
    ],
)
def test_a_worker_without_contact_that_goes_on_with_what_others_may_run_is_found(
    kind: str, ran_seconds: float | None, back_seconds: float | None, found: bool
) -> None:
    story = Story()
    story.join()
    task = story.submit(1, kind)
    story.run(task)
    story.now += 30
    story.tell(WorkerLost(worker="w", incarnation=1, reason="silent"))
    seen: dict[str, Any] = {"kind": kind, "began": BEGUN, "ended": None if ran_seconds is None else BEGUN + ran_seconds}
    cut = Cut(host="w", began=BEGUN, ended=None if back_seconds is None else BEGUN + back_seconds)
    verdict = story.judged(ran=[ran(**seen)], cuts=[cut], fenced_seconds=FENCED_SECONDS)
    assert any("had no contact" in fault.text for fault in verdict.faults) is found
    elsewhere = Cut(host="other", began=BEGUN)
    verdict = story.judged(ran=[ran(**seen)], cuts=[elsewhere], fenced_seconds=FENCED_SECONDS)
    assert not any("had no contact" in fault.text for fault in verdict.faults)
