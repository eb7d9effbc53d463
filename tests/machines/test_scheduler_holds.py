"""What holds back an apply that was confirmed, and the workspace, which is one lock in all pools."""

from typing import Any

import pytest
from machine_story import A, B, C, Like, assigned, joined, run, submitted
from scheduler_story import Commands

from taskyard.contracts.events import (
    ApplyConfirmed,
    AttemptSucceeded,
    Changes,
    NotDelivered,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    QueueUnlocked,
    TaskPlanned,
    TaskScheduled,
    TaskStopRequested,
    WorkerLost,
)
from taskyard.contracts.lifecycle import Phase

PAUSED_POOL = QueuePaused(pool="default", by="root", reason="freeze")
PAUSED_QUEUE = QueuePaused(pool="default", queue="network", by="root", reason="freeze")
LOCKED = QueueLocked(pool="default", queue="network", by="root", reason="mine")
LOCKED_ELSEWHERE = QueueLocked(pool="west", queue="network", by="root", reason="mine")
HELD = [
    (PAUSED_POOL, QueueResumed(pool="default", by="root")),
    (PAUSED_QUEUE, QueueResumed(pool="default", queue="network", by="root")),
    (LOCKED, QueueUnlocked(pool="default", queue="network", by="root")),
    (LOCKED_ELSEWHERE, QueueUnlocked(pool="west", queue="network", by="root")),
    (LOCKED_ELSEWHERE, QueueUnlocked(pool="default", queue="network", by="root")),
    (LOCKED, QueueUnlocked(pool="west", queue="network", by="root")),
]
APPLY = TaskScheduled(task=A, attempt=1)
FOUR_SLOTS: dict[str, Any] = {"slots": (("any",),) * 4}


def with_plan(**fields: Any) -> Commands:
    story = Commands().given(joined(**FOUR_SLOTS), submitted(A, "plan_and_apply", **fields))
    story.when()
    return story.given(assigned(A), TaskPlanned(task=A, attempt=1, changes=Changes(add=1)))


def two_pools() -> Commands:
    """Runs of one workspace in two pools, the first of which is admitted, and a worker in each pool."""
    story = Commands().given(joined(**FOUR_SLOTS), joined("w2", pool="west", **FOUR_SLOTS))
    story.given(submitted(A, "plan_and_apply"), submitted(B, "plan_and_apply", pool="west"))
    story.when().then(TaskScheduled(task=A))
    return story


# -- applies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("holds", "frees"), HELD)
def test_a_pause_or_lock_holds_back_an_apply_that_is_confirmed_then_and_it_goes_on_when_that_ends(
    holds: Any, frees: Any
) -> None:
    story = with_plan().given(holds)

    story.when(story.said("confirm", {"task": A})).then(Like(ApplyConfirmed))
    assert (story.record().phase, story.record().held_slot) == (Phase.APPLY_PENDING, ("w1", 0))
    story.given(frees).when().then(APPLY)


@pytest.mark.parametrize(("holds", "frees"), HELD)
def test_a_new_leader_holds_it_back_and_lets_it_go_on_as_well(holds: Any, frees: Any) -> None:
    story = with_plan().given(holds, ApplyConfirmed(task=A, attempt=1, by="bob"))

    for leader in (story.successor(), story.refolded()):
        leader.when().then_nothing()
        leader.given(frees).when().then(APPLY)


@pytest.mark.parametrize("verb", ["pause", "lock"])
def test_a_pause_of_the_same_moment_holds_it_back(verb: str) -> None:
    story = with_plan()

    story.when(story.said("confirm", {"task": A}), story.said(verb, {"queue": "network"}, "root"))

    assert TaskScheduled(task=A, attempt=1) not in story.chosen
    assert story.record().phase is Phase.APPLY_PENDING


def test_it_needs_no_idle_slot_and_no_place_in_its_queue_since_it_has_both() -> None:
    story = Commands().given(joined(slots=(("any",),)), submitted(A, "plan_and_apply"), submitted(B, priority=1))
    story.given(TaskScheduled(task=A), assigned(A), TaskPlanned(task=A, attempt=1, changes=Changes()))
    story.given(QueueConfigured(pool="default", queue="network", by="root", max_running=1))

    story.when(story.said("confirm", {"task": A})).then(Like(ApplyConfirmed), APPLY)


def test_what_was_confirmed_does_not_expire_while_it_is_held_back() -> None:
    story = with_plan().given(PAUSED_POOL, ApplyConfirmed(task=A, attempt=1, by="bob"))

    story.after(7 * 86_400).when().then_nothing()
    assert story.record().phase is Phase.APPLY_PENDING


@pytest.mark.parametrize("verb", ["cancel", "discard"])
def test_what_is_held_back_may_be_cancelled_or_discarded(verb: str) -> None:
    story = with_plan().given(PAUSED_POOL, ApplyConfirmed(task=A, attempt=1, by="bob"))

    story.when(story.said(verb, {"task": A}))

    assert story.codes() == [202]
    assert A not in story.machine.state.tasks.live


def test_what_asks_for_no_question_is_held_back_too() -> None:
    story = with_plan(auto_confirm=True).given(PAUSED_POOL)

    story.when().then(Like(ApplyConfirmed, by="auto"))
    story.given(QueueResumed(pool="default", by="root")).when().then(APPLY)


def test_an_apply_that_was_not_delivered_is_held_back_before_it_is_sent_again() -> None:
    story = with_plan().given(ApplyConfirmed(task=A, attempt=1, by="bob"), APPLY, assigned(A, 2))
    story.given(PAUSED_POOL, NotDelivered(task=A, attempt=2, reason="no responders"))

    story.after(6).when().then_nothing()
    story.given(QueueResumed(pool="default", by="root")).when().then(APPLY)


def test_an_apply_that_was_not_delivered_goes_on_when_its_delay_is_over() -> None:
    story = with_plan().given(ApplyConfirmed(task=A, attempt=1, by="bob"), APPLY, assigned(A, 2))
    story.given(NotDelivered(task=A, attempt=2, reason="no responders"))

    story.when().then_nothing()
    story.after(4).when().then_nothing()
    story.after(1).when().then(APPLY)


def test_an_answer_for_an_earlier_plan_does_not_hold_it_back_for_ever() -> None:
    story = with_plan().given(WorkerLost(worker="w1", incarnation=run(1)), joined("w2", **FOUR_SLOTS))
    story.when().then(TaskScheduled(task=A))
    story.given(assigned(A, 2, worker="w2"), TaskPlanned(task=A, attempt=2, changes=Changes()))
    story.given(ApplyConfirmed(task=A, attempt=2, by="bob"))

    story.when(story.said("discard", {"task": A, "attempt": 1}))

    assert story.chosen[-1] == TaskScheduled(task=A, attempt=2)


def test_what_this_very_decision_stops_is_not_applied() -> None:
    story = with_plan().given(ApplyConfirmed(task=A, attempt=1, by="bob"))

    story.when(story.said("cancel", {"task": A})).then(Like(TaskStopRequested))


# -- one workspace -----------------------------------------------------------------------------------------------------


def test_one_workspace_is_one_lock_whatever_pool_its_tasks_name() -> None:
    story = two_pools()

    story.given(assigned(A), TaskPlanned(task=A, attempt=1, changes=Changes())).when().then_nothing()
    story.given(ApplyConfirmed(task=A, attempt=1, by="bob"), APPLY, assigned(A, 2)).when().then_nothing()
    story.given(AttemptSucceeded(task=A, attempt=2)).when().then(TaskScheduled(task=B))


def test_two_runs_of_one_workspace_that_come_at_once_in_two_pools_go_one_after_the_other() -> None:
    story = Commands().given(joined(**FOUR_SLOTS), joined("w2", pool="west", **FOUR_SLOTS))
    body = {"kind": "plan_and_apply", "input": {"directory": "/tf"}, "queue": "prod"}

    story.when(story.said("submit", body | {"id": A}), story.said("submit", body | {"id": B}, pool="west"))

    assert [event.task for event in story.chosen if isinstance(event, TaskScheduled)] == [A]


def test_queues_of_other_kinds_are_each_pools_own() -> None:
    story = two_pools().given(LOCKED)

    story.given(submitted(C, pool="west", queue="network")).when().then(TaskScheduled(task=C))


@pytest.mark.parametrize("pool", ["default", "west"])
def test_a_lock_set_through_one_pool_holds_the_workspace_in_all(pool: str) -> None:
    story = Commands().given(joined(pool=pool, **FOUR_SLOTS), LOCKED, submitted(A, "plan_and_apply", pool=pool))

    story.when().then_nothing()
    story.given(QueueUnlocked(pool=pool, queue="network", by="root")).when().then(TaskScheduled(task=A))


def test_each_of_two_locks_holds_the_workspace_until_it_is_ended() -> None:
    story = Commands().given(joined(**FOUR_SLOTS), LOCKED, LOCKED_ELSEWHERE, submitted(A, "plan_and_apply"))

    story.given(QueueUnlocked(pool="default", queue="network", by="root")).when().then_nothing()
    story.given(QueueUnlocked(pool="west", queue="network", by="root")).when().then(TaskScheduled(task=A))


def test_of_two_tasks_that_an_old_log_gave_one_workspace_the_second_waits_for_the_first() -> None:
    story = two_pools().given(assigned(A), TaskScheduled(task=B), assigned(B, worker="w2"))
    story.given(*(TaskPlanned(task=task, attempt=1, changes=Changes()) for task in (A, B)))

    story.given(*(ApplyConfirmed(task=task, attempt=1, by="bob") for task in (A, B))).when().then(APPLY)
    story.given(assigned(A, 2), AttemptSucceeded(task=A, attempt=2)).when().then(TaskScheduled(task=B, attempt=1))


def test_a_discard_of_a_task_that_has_no_plan_leaves_it_in_its_place() -> None:
    story = Commands()
    story.given(joined(), submitted(A, "plan_and_apply"))
    story.when(story.said("discard", {"task": A, "attempt": 1}))
    assert TaskScheduled(task=A) in story.chosen
