"""Which waiting task may run now: priority, slots, workspaces, limits, pauses and locks."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from machine_story import A, B, C, D, Like, assigned, joined, run, submitted, task_id
from scheduler_story import Commands

from taskyard.contracts.events import (
    AttemptFailed,
    AttemptSucceeded,
    Changes,
    CommandRejected,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    QueueUnlocked,
    TaskError,
    TaskPlanned,
    TaskScheduled,
    TaskStarted,
    TaskStopRequested,
    TaskSubmitted,
    WorkerDrainRequested,
    WorkerLost,
    WorkerRecovered,
    WorkerSuspected,
)
from taskyard.contracts.values import TaskId
from taskyard.scheduler.admission import Admission

ONE = {"slots": (("any",),)}
AGAIN = TaskError(code="exit", message="not now", retryable=True)


def scheduled(*tasks: TaskId) -> list[TaskScheduled]:
    return [TaskScheduled(task=task) for task in tasks]


def chosen_to_run(story: Commands) -> list[TaskScheduled]:
    return [event for event in story.chosen if isinstance(event, TaskScheduled)]


def any_slots(count: int) -> dict[str, Any]:
    return {"slots": (("any",),) * count}


# -- order and slots ---------------------------------------------------------------------------------------------------


def test_priority_goes_first_and_submission_inside_it() -> None:
    story = Commands()
    story.given(submitted(A, priority=5), submitted(B, priority=9), submitted(C, priority=1), submitted(D, priority=5))

    story.given(joined(**any_slots(4))).when().then(*scheduled(C, A, D, B))


def test_priority_goes_across_queues_and_kinds_of_a_pool() -> None:
    story = Commands()
    story.given(
        submitted(A, priority=5, queue="x"), submitted(B, "command", priority=4, queue="y"), submitted(C, priority=3)
    )

    story.given(joined(**any_slots(3))).when().then(*scheduled(C, B, A))


def test_nothing_is_scheduled_without_a_worker() -> None:
    story = Commands().given(submitted())

    story.when().then_nothing()


def test_a_small_pool_schedules_for_idle_slots_only() -> None:
    story = Commands().given(joined(**any_slots(2)), *(submitted(each) for each in (A, B, C)))

    story.when().then(*scheduled(A, B))
    story.given(assigned(A), assigned(B, slot=1)).when().then_nothing()
    story.given(AttemptSucceeded(task=A, attempt=1)).when().then(*scheduled(C))


def test_a_large_pool_has_one_more_scheduled_for_every_eight_slots() -> None:
    story = Commands().given(joined(**any_slots(16)), *(submitted(task_id(n)) for n in range(1, 31)))

    story.when()

    assert len(story.chosen) == 16 + 2


def test_a_kind_waits_for_a_slot_that_takes_it() -> None:
    story = Commands().given(joined(), submitted(A), submitted(B), submitted(C, "plan"), submitted(D, "plan"))

    story.when().then(*scheduled(A, C, D))  # B waits for slot 0; the plans do not wait for it


def test_what_waits_for_a_busy_slot_keeps_nobody_from_an_idle_one() -> None:
    """A is scheduled for the only other slot that takes it, and that is lost before A has it."""
    story = Commands().given(
        joined(slots=(("any",), ("plan",))), joined("w2", slots=(("any",),)), submitted(A), submitted(B)
    )
    story.when().then(*scheduled(A, B))
    story.given(assigned(A), WorkerLost(worker="w2", incarnation=run(1)), submitted(C, "plan"))
    story.when().then(*scheduled(C))


def test_what_comes_first_is_not_overtaken_on_the_slot_that_it_waits_for() -> None:
    """The plan could take any slot; while the no-op before it waits for slot 0, slot 0 is not the plan's."""
    story = Commands().given(joined(slots=(("any",), ("plan",))), submitted(A), submitted(B))
    story.given(submitted(C, "plan"), submitted(D, "plan"))
    story.when().then(*scheduled(A, C))
    story.given(assigned(A), assigned(C, slot=1)).when().then_nothing()

    story.given(AttemptSucceeded(task=A, attempt=1)).when().then(*scheduled(B))


def test_a_kind_that_no_slot_of_the_pool_takes_keeps_nobody_waiting() -> None:
    story = Commands().given(joined(kinds=("noop",)), submitted(A, "command", priority=1), submitted(B, priority=9))

    story.when().then(*scheduled(B))


@pytest.mark.parametrize(
    "event",
    [
        WorkerSuspected(worker="w1", incarnation=run(1)),
        WorkerLost(worker="w1", incarnation=run(1)),
        WorkerDrainRequested(pool="default", worker="w1", by="root"),
    ],
    ids=["suspect", "lost", "draining"],
)
def test_slots_of_a_worker_that_takes_nothing_new_are_none(event: Any) -> None:
    story = Commands().given(joined(), event, submitted())

    story.when().then_nothing()


def test_a_worker_that_recovers_counts_again() -> None:
    story = Commands().given(joined(), WorkerSuspected(worker="w1", incarnation=run(1)), submitted())
    story.when().then_nothing()

    story.given(WorkerRecovered(worker="w1", incarnation=run(1))).when().then(*scheduled(A))


def test_another_pools_slots_are_another_pools() -> None:
    story = Commands().given(joined(pool="other"), submitted())

    story.when().then_nothing()


def test_a_task_that_need_not_wait_is_submitted_and_scheduled_by_one_commit() -> None:
    story = Commands().given(joined())

    decision = story.decide(story.submit(1))

    assert decision.events == [Like(TaskSubmitted, task=A), TaskScheduled(task=A)]


def test_what_is_submitted_now_is_not_scheduled_before_what_waits() -> None:
    story = Commands().given(joined(**any_slots(2)), *(submitted(task_id(900 + n), priority=9) for n in range(2)))

    story.when(story.submit(1))

    assert chosen_to_run(story) == scheduled(task_id(900), task_id(901))


def test_what_is_submitted_now_does_not_take_the_slot_that_a_waiting_task_of_another_kind_waits_for() -> None:
    story = Commands().given(joined(slots=(("any",), ("plan",))), submitted(A), submitted(B))
    story.when().then(*scheduled(A))

    story.when(story.submit(3, kind="plan", queue="network", input={"directory": "/tf"}, priority=10))

    assert chosen_to_run(story) == scheduled(C)  # by the plan's own slot, in a commit of its own


def test_tasks_of_one_decision_are_scheduled_with_it_by_priority_and_as_far_as_slots_go() -> None:
    story = Commands().given(joined(**any_slots(2)))

    story.when(story.submit(1, priority=5), story.submit(2, priority=1), story.submit(3, priority=3))

    assert chosen_to_run(story) == scheduled(B, C)


def test_one_commit_does_not_schedule_what_its_own_submissions_forbid() -> None:
    """The second of a workspace, more than a queue may run, and what has a delay."""
    story = Commands().given(joined(**any_slots(9)), limit(1, "x"))
    apply = {"kind": "plan_and_apply", "queue": "network", "input": {"directory": "/tf"}}

    story.when(
        *(story.submit(number, **apply) for number in (1, 2)),
        *(story.submit(number, queue="x") for number in (3, 4)),
        story.submit(5, not_before="2040-01-01T00:00:00Z"),
    )

    assert chosen_to_run(story) == scheduled(A, C)


@pytest.mark.parametrize(
    "closes",
    [
        QueuePaused(pool="default", by="r"),
        QueuePaused(pool="default", queue="default", by="r"),
        QueueLocked(pool="default", queue="default", by="r"),
    ],
    ids=["pool", "queue", "lock"],
)
def test_what_is_submitted_to_something_closed_waits(closes: Any) -> None:
    story = Commands().given(joined(), closes)

    story.when(story.submit(1)).then(Like(TaskSubmitted, task=A))


def test_a_task_that_this_very_decision_stops_is_not_scheduled_by_it() -> None:
    story = Commands().given(joined(**ONE), submitted(A), submitted(B))

    decision = story.decide(story.said("cancel", {"task": A}))

    assert decision.events == [Like(TaskStopRequested, task=A), TaskScheduled(task=B)]


@pytest.mark.parametrize(
    ("verb", "body"),
    [("pause", {}), ("pause", {"queue": "default"}), ("lock", {"queue": "default"})],
    ids=["pool", "queue", "lock"],
)
def test_what_this_very_decision_closes_is_not_filled_by_it(verb: str, body: dict[str, Any]) -> None:
    story = Commands().given(joined(**ONE), submitted(A))

    story.when(story.said(verb, body, "root"))

    assert [type(event) for event in story.chosen if isinstance(event, TaskScheduled | CommandRejected)] == []


def test_thousands_that_wait_are_scheduled_in_several_commits() -> None:
    story = Commands().given(*(joined(f"w{n}", **any_slots(200)) for n in range(3)))
    story.when(*(story.submit(n) for n in range(1, 600)))

    assert sum(isinstance(event, TaskScheduled) for event in story.chosen) == 599


# -- workspaces --------------------------------------------------------------------------------------------------------

PLAN = Changes(add=1)


def workspace() -> Commands:
    """Two runs, A before B, of the workspace `network`, and a worker with room for both."""
    story = Commands().given(joined(**any_slots(4)))
    return story.given(submitted(A, "plan_and_apply"), submitted(B, "plan_and_apply"))


def test_two_runs_of_one_workspace_go_one_after_the_other() -> None:
    story = workspace()

    story.when().then(*scheduled(A))
    story.given(assigned(A), TaskStarted(task=A, attempt=1)).when().then_nothing()
    story.given(TaskPlanned(task=A, attempt=1, changes=PLAN)).when().then_nothing()
    story.when(story.said("confirm", {"task": A}))
    story.given(assigned(A, 2), TaskStarted(task=A, attempt=2)).when().then_nothing()
    story.given(AttemptSucceeded(task=A, attempt=2)).when().then(*scheduled(B))


@pytest.mark.parametrize(
    "ends",
    [
        AttemptFailed(task=A, attempt=1, error=TaskError(code="exit", message="1")),
        TaskStopRequested(task=A, cause="cancel", by="alice"),
    ],
    ids=["failed", "cancelled"],
)
def test_the_next_run_follows_however_the_first_one_ends(ends: Any) -> None:
    story = workspace()
    story.when()
    if isinstance(ends, AttemptFailed):
        story.given(assigned(A))

    story.given(ends).when().then(*scheduled(B))


def test_runs_of_two_workspaces_go_side_by_side() -> None:
    story = Commands().given(joined(**any_slots(2)))
    story.given(submitted(A, "plan_and_apply", queue="x"), submitted(B, "plan_and_apply", queue="y"))

    story.when().then(*scheduled(A, B))


def test_plans_of_a_workspace_wait_for_nobody() -> None:
    story = workspace().given(submitted(C, "plan"), submitted(D, "plan"))

    story.when().then(*scheduled(A, C, D))


def test_a_run_that_is_tried_again_keeps_the_workspace_and_goes_first() -> None:
    story = workspace()
    story.when().then(*scheduled(A))
    story.given(assigned(A), AttemptFailed(task=A, attempt=1, error=AGAIN), submitted(C, "plan_and_apply", priority=1))

    story.when().then_nothing()
    story.after(2).when().then(*scheduled(A))


def test_a_run_that_must_plan_again_goes_before_more_urgent_work() -> None:
    story = Commands().given(joined(**ONE), submitted(A, "plan_and_apply", priority=9))
    story.when().then(*scheduled(A))
    story.given(assigned(A), TaskPlanned(task=A, attempt=1, changes=PLAN), submitted(B, "plan_and_apply", priority=1))

    story.given(submitted(C, priority=1), WorkerLost(worker="w1", incarnation=run(1)), joined("w2", **ONE))

    story.when().then(*scheduled(A))


def test_a_held_run_keeps_its_workspace_until_a_person_ends_it() -> None:
    story = workspace()
    story.when()
    story.given(assigned(A), TaskStarted(task=A, attempt=1), WorkerLost(worker="w1", incarnation=run(1)), joined("w2"))
    story.when().then_nothing()

    story.when(story.said("force-stop", {"task": A, "reason": "burnt"}, "root"))

    assert story.chosen[1:] == scheduled(B)


def test_two_runs_of_a_workspace_are_not_scheduled_by_one_decision() -> None:
    story = workspace()

    assert story.decide().events == scheduled(A)


# -- limits, pauses, locks ---------------------------------------------------------------------------------------------


def limit(max_running: int, queue: str = "default") -> QueueConfigured:
    return QueueConfigured(pool="default", queue=queue, by="root", max_running=max_running)


def test_a_queue_runs_no_more_than_its_limit() -> None:
    story = Commands().given(joined(**any_slots(4)), limit(2), *(submitted(each) for each in (A, B, C)))

    story.when().then(*scheduled(A, B))
    story.given(assigned(A), assigned(B, slot=1)).when().then_nothing()
    story.given(AttemptSucceeded(task=B, attempt=1)).when().then(*scheduled(C))


def test_a_limit_that_is_raised_or_lifted_lets_more_run() -> None:
    story = Commands().given(joined(**any_slots(4)), limit(1), *(submitted(each) for each in (A, B, C, D)))
    story.when().then(*scheduled(A))

    story.given(limit(2)).when().then(*scheduled(B))
    story.given(limit(0)).when().then(*scheduled(C, D))


def test_a_task_that_waits_for_its_retry_leaves_its_place_to_another() -> None:
    story = Commands().given(joined(**any_slots(4)), limit(1), submitted(A), submitted(B))
    story.when().then(*scheduled(A))

    story.given(assigned(A), AttemptFailed(task=A, attempt=1, error=AGAIN)).when().then(*scheduled(B))


def test_the_limit_of_one_queue_is_not_anothers() -> None:
    story = Commands().given(joined(**any_slots(4)), limit(1, "x"), submitted(A, queue="x"), submitted(B, queue="x"))

    story.given(submitted(C, queue="y", priority=9)).when().then(*scheduled(A, C))


@pytest.mark.parametrize(
    ("closes", "opens"),
    [
        (QueuePaused(pool="default", by="r"), QueueResumed(pool="default", by="r")),
        (QueuePaused(pool="default", queue="default", by="r"), QueueResumed(pool="default", queue="default", by="r")),
        (QueueLocked(pool="default", queue="default", by="r"), QueueUnlocked(pool="default", queue="default", by="r")),
    ],
    ids=["pool", "queue", "lock"],
)
def test_nothing_starts_while_it_is_closed_and_goes_on_when_it_opens(closes: Any, opens: Any) -> None:
    story = Commands().given(joined(**any_slots(4)), closes, submitted(A))
    story.when().then_nothing()
    story.given(submitted(B, priority=1)).when().then_nothing()

    story.given(opens).when().then(*scheduled(B, A))


def test_a_queue_may_be_both_paused_and_locked() -> None:
    story = Commands().given(joined(), submitted())
    story.given(
        QueuePaused(pool="default", queue="default", by="r"), QueueLocked(pool="default", queue="default", by="r")
    )

    story.given(QueueResumed(pool="default", queue="default", by="r")).when().then_nothing()
    story.given(QueueUnlocked(pool="default", queue="default", by="r")).when().then(*scheduled(A))


def test_settings_of_a_queue_outlive_its_tasks() -> None:
    story = Commands().given(joined(), limit(1), submitted(A))
    story.when()
    story.given(assigned(A), AttemptSucceeded(task=A, attempt=1), submitted(B), submitted(C))

    story.when().then(*scheduled(B))


# -- many at once ------------------------------------------------------------------------------------------------------

WAITING = st.lists(
    st.tuples(
        st.sampled_from(["noop", "plan", "plan_and_apply", "command"]), st.sampled_from("xyz"), st.integers(1, 3)
    ),
    min_size=1,
    max_size=40,
)
TEMPLATES = st.lists(
    st.sampled_from([("any",), ("plan",), ("noop",), ("noop", "command"), ("plan_and_apply",)]), min_size=1, max_size=24
)


@settings(max_examples=60, deadline=None)
@example(
    [("noop", "x", 2), ("noop", "y", 2), ("plan", "x", 1), ("plan", "x", 1), ("plan", "x", 1)],
    [[("any",), ("any",), ("plan",), ("noop",), ("noop",)]],
    3,
    1,
)
@given(WAITING, st.lists(TEMPLATES, min_size=1, max_size=2), st.integers(0, 3), st.integers(0, 6))
def test_tasks_that_are_scheduled_together_are_those_that_one_after_the_other_would_be(
    waiting: list[tuple[str, str, int]], workers: list[Any], queue_max: int, busy: int
) -> None:
    """Room is counted for a run of tasks of one kind, behind the same kinds; counted anew for each it must come to the same."""

    def story() -> Commands:
        told = Commands().given(*(joined(f"w{number}", slots=tuple(slots)) for number, slots in enumerate(workers)))
        told.given(QueueConfigured(pool="default", queue="x", by="r", max_running=queue_max))
        for number in range(min(busy, len(workers[0]))):
            told.given(submitted(task_id(900 + number), "plan"), TaskScheduled(task=task_id(900 + number)))
            told.given(assigned(task_id(900 + number), slot=number, worker="w0"))
        for number, (kind, queue, priority) in enumerate(waiting):
            told.given(submitted(task_id(number), kind, queue=queue, priority=priority))
        return told

    together = story().decide().events
    admit_all = Admission._admit_all

    def one_after_the_other(self: Any, pool: str, best: Any) -> None:
        for _ in range(best.room):
            room = self._room(self._state.pool(pool), best.kind, best.before)
            admit_all(self, pool, best._replace(room=min(room, 1)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Admission, "_admit_all", one_after_the_other)
        assert story().decide().events == together


@settings(max_examples=100, deadline=None)
@given(WAITING, WAITING, st.lists(TEMPLATES, min_size=1, max_size=2), st.integers(0, 3))
def test_scheduling_in_the_commit_that_submits_chooses_what_the_next_commit_would_choose(
    waiting: list[tuple[str, str, int]], new: list[tuple[str, str, int]], workers: list[Any], queue_max: int
) -> None:
    def told() -> list[TaskScheduled]:
        story = Commands().given(*(joined(f"w{number}", slots=tuple(slots)) for number, slots in enumerate(workers)))
        story.given(QueueConfigured(pool="default", queue="x", by="r", max_running=queue_max))
        for number, (kind, queue, priority) in enumerate(waiting):
            story.given(submitted(task_id(number), kind, queue=queue, priority=priority))
        story.when()
        story.when(*(story.submit(100 + n, **fields(*each)) for n, each in enumerate(new)))
        return chosen_to_run(story)

    def fields(kind: str, queue: str, priority: int) -> dict[str, Any]:
        inputs: dict[str, Any] = {"noop": {}, "command": {"argv": ["true"]}}
        return {"kind": kind, "queue": queue, "priority": priority, "input": inputs.get(kind, {"directory": "/tf"})}

    at_once = told()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Admission, "_choose_submitted", lambda self: None)
        assert told() == at_once


def test_the_workspace_of_a_task_that_this_decision_stops_is_not_free_in_the_same_commit() -> None:
    """The stop may be void by the time that it is folded, and then two would hold the workspace."""
    story = Commands()
    story.given(joined(slots=(("any",),) * 3))
    story.given(submitted(A, "plan_and_apply", queue="prod"), TaskScheduled(task=A))
    story.given(submitted(B, "plan_and_apply", queue="prod"))

    for verb in ("cancel", "force-stop"):
        stop = story.said(verb, {"task": A, "reason": "r"}, "root")
        decision = story.decide(stop, story.submit(7, kind="plan_and_apply", queue="prod", input={"directory": "/d"}))
        assert not any(isinstance(event, TaskScheduled) for event in decision.events), verb
