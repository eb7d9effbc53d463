"""What the scheduler does because time passes: delays, tries, starts that come too late, plans that nobody answers."""

import pytest
from machine_story import A, B, Like, assigned, joined, run, submitted
from scheduler_story import Commands

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
    TaskStarted,
    TaskStopRequested,
    WorkerLost,
)
from taskyard.contracts.lifecycle import Phase
from taskyard.contracts.values import Instant, seconds

AGAIN = TaskError(code="exit", message="not now", retryable=True)
DAY_SECONDS = 24 * 3600


def planned(story: Commands, **fields: object) -> Commands:
    story.given(joined(), submitted(kind="plan_and_apply", **fields), TaskScheduled(task=A), assigned())
    story.given(TaskPlanned(task=A, attempt=1, changes=Changes(add=1)))
    return story


# -- delays ------------------------------------------------------------------------------------------------------------


def test_a_task_does_not_run_before_its_time() -> None:
    story = Commands()
    start = Instant(story.now + seconds(60))
    story.given(joined(), submitted(not_before=start)).when().then_nothing()
    assert story.machine.next_deadline() == start

    story.after(59).when().then_nothing()
    story.after(1).when().then(TaskScheduled(task=A))


def test_what_waits_for_its_time_keeps_nobody_else_waiting() -> None:
    story = Commands()
    story.given(joined(), submitted(A, priority=1, not_before=Instant(story.now + 1)), submitted(B, priority=9))

    story.when().then(TaskScheduled(task=B))


def test_another_priority_lets_no_task_run_before_its_time() -> None:
    story = Commands()
    story.given(joined(), submitted(not_before=Instant(story.now + seconds(60))))
    story.when(story.said("reprioritise", {"task": A, "priority": 1})).then(Like(TaskReprioritised, priority=1))

    story.after(59).when().then_nothing()
    story.after(1).when().then(TaskScheduled(task=A))
    story.given(assigned(), AttemptSucceeded(task=A, attempt=1)).after(60).when().then_nothing()


def test_tries_wait_longer_each_time() -> None:
    story = Commands().given(joined(), submitted(max_attempts=3, retry_delays_seconds=(2.0, 4.0)))
    for attempt, delay in ((1, 2), (2, 4)):
        story.when().then(TaskScheduled(task=A))
        story.given(assigned(attempt=attempt), TaskStarted(task=A, attempt=attempt))
        story.given(AttemptFailed(task=A, attempt=attempt, error=AGAIN)).after(delay - 0.5).when().then_nothing()
        story.after(0.5)

    story.when().then(TaskScheduled(task=A))
    story.given(assigned(attempt=3), AttemptFailed(task=A, attempt=3, error=AGAIN)).after(60).when().then_nothing()
    assert A not in story.machine.state.tasks.live


def test_a_delivery_that_failed_waits_five_seconds() -> None:
    story = Commands().given(joined(), submitted(), TaskScheduled(task=A), assigned())
    story.given(NotDelivered(task=A, attempt=1, reason="no responders"))

    story.after(4).when().then_nothing()
    story.after(1).when().then(TaskScheduled(task=A))


def test_what_a_lost_worker_had_is_tried_at_once_elsewhere() -> None:
    story = Commands().given(joined(), joined("w2"), submitted(), TaskScheduled(task=A), assigned())

    story.given(WorkerLost(worker="w1", incarnation=run(1))).when().then(TaskScheduled(task=A))


# -- starts that come too late -----------------------------------------------------------------------------------------

LATE = Like(TaskStopRequested, task=A, cause="schedule_to_start")


def test_a_task_that_does_not_start_in_time_ends() -> None:
    story = Commands().given(submitted(schedule_to_start_timeout_seconds=60))

    story.after(59).when().then_nothing()
    story.after(1).when().then(LATE)
    assert A not in story.machine.state.tasks.live


def test_also_one_that_was_scheduled_and_found_no_slot() -> None:
    story = Commands().given(joined(), submitted(schedule_to_start_timeout_seconds=60))
    story.when().then(TaskScheduled(task=A))

    story.after(60).when().then(LATE)


def test_a_slot_in_time_is_a_start_and_a_retry_does_not_count() -> None:
    story = Commands().given(joined(), submitted(schedule_to_start_timeout_seconds=60))
    story.when()
    story.given(assigned(), AttemptFailed(task=A, attempt=1, error=AGAIN)).given(
        PoolConfigured(pool="default", by="root", max_waiting=1)
    )

    story.after(90).when().then(TaskScheduled(task=A))


# -- plans that wait for an answer -------------------------------------------------------------------------------------


def test_a_plan_that_nobody_answers_expires_after_a_day() -> None:
    story = planned(Commands())

    story.after(DAY_SECONDS - 1).when().then_nothing()
    story.after(1).when().then(ApprovalExpired(task=A, attempt=1))
    assert A not in story.machine.state.tasks.live


@pytest.mark.parametrize("before", [True, False], ids=["before the plan", "while it waits"])
def test_the_pool_says_how_long_a_plan_may_wait(before: bool) -> None:
    configured = PoolConfigured(pool="default", by="root", approval_timeout_seconds=60)
    story = Commands().given(configured) if before else Commands()
    planned(story)
    if not before:
        story.given(configured)

    story.after(59).when().then_nothing()
    story.after(1).when().then(ApprovalExpired(task=A, attempt=1))


def test_a_time_that_is_made_shorter_than_a_plan_has_waited_ends_it_at_once_and_once() -> None:
    story = planned(Commands()).after(120)
    story.when().then_nothing()

    story.given(PoolConfigured(pool="default", by="root", approval_timeout_seconds=60))

    story.when().then(ApprovalExpired(task=A, attempt=1))
    story.after(2 * DAY_SECONDS).when().then_nothing()


def test_a_time_that_is_made_longer_counts_for_plans_that_wait_already() -> None:
    story = planned(Commands())
    story.given(PoolConfigured(pool="default", by="root", approval_timeout_seconds=2 * DAY_SECONDS))

    story.after(DAY_SECONDS + 1).when().then_nothing()
    story.after(DAY_SECONDS).when().then(ApprovalExpired(task=A, attempt=1))


def test_an_answered_plan_does_not_expire() -> None:
    story = planned(Commands())
    story.when(story.said("confirm", {"task": A}))

    story.after(2 * DAY_SECONDS).when().then_nothing()


def test_a_plan_that_was_answered_in_time_does_not_expire_though_nobody_read_the_answer_before() -> None:
    story = planned(Commands())
    answer = story.said("confirm", {"task": A})
    story.is_read = False

    story.after(DAY_SECONDS + 1).when().then_nothing()
    assert story.machine.deadlines.waits
    story.when(answer).then(Like(ApplyConfirmed, task=A), Like(TaskScheduled, task=A))
    story.is_read = True
    story.when().then_nothing()


def test_a_plan_that_waits_for_answers_to_be_read_holds_back_no_other_timer() -> None:
    story = planned(Commands())
    story.given(submitted(B, schedule_to_start_timeout_seconds=DAY_SECONDS + 1.0, queue="other"))
    story.given(TaskScheduled(task=B))
    story.is_read = False

    story.after(DAY_SECONDS).when().then_nothing()
    story.after(2).when().then(Like(TaskStopRequested, task=B, cause="schedule_to_start"))
    story.is_read = True
    story.when().then(ApprovalExpired(task=A, attempt=1))


def test_a_step_of_the_clock_forward_ends_no_plan_and_no_waiting_task_early() -> None:
    story = planned(Commands())
    story.given(submitted(B, schedule_to_start_timeout_seconds=3600.0, queue="other"))
    story.given(TaskScheduled(task=B)).after(DAY_SECONDS)
    story.machine.deadlines.step(story.now, seconds(DAY_SECONDS))

    story.when().then_nothing()
    story.after(3600).when().then(Like(TaskStopRequested, task=B))
    story.after(DAY_SECONDS - 3600).when().then(ApprovalExpired(task=A, attempt=1))


def test_a_second_plan_has_its_own_day() -> None:
    story = planned(Commands())
    story.after(DAY_SECONDS - 1).given(WorkerLost(worker="w1", incarnation=run(1)), joined("w2"))
    story.when().then(TaskScheduled(task=A))
    story.given(assigned(attempt=2, worker="w2"), TaskPlanned(task=A, attempt=2, changes=Changes()))

    story.after(10).when().then_nothing()
    story.after(DAY_SECONDS).when().then(ApprovalExpired(task=A, attempt=2))


def test_a_task_that_asks_for_no_question_is_confirmed_by_itself() -> None:
    story = planned(Commands(), auto_confirm=True)

    story.when().then(ApplyConfirmed(task=A, attempt=1, by="auto"), TaskScheduled(task=A, attempt=1))
    assert story.record().phase is Phase.SCHEDULED


def test_also_by_a_new_leader() -> None:
    story = planned(Commands(), auto_confirm=True).successor()

    story.when().then(ApplyConfirmed(task=A, attempt=1, by="auto"), TaskScheduled(task=A, attempt=1))
