"""Why: the story of a task from events, with what it waited for, for whom and how long, and why it got its slot."""

import inspect
import re
from typing import Any

import pytest

from taskyard.api import reasons
from taskyard.api.errors import Refusal
from taskyard.api.list_pages import first_page
from taskyard.api.past.checkpoints import Checkpoints
from taskyard.api.past.explaining import Explaining, Why
from taskyard.api.past.travel import TimeTravel
from taskyard.api.past.wording import duration_words
from taskyard.api.postgres_read_model import PostgresReadModel
from taskyard.api.reasons import Around, Waiting, waited_for
from taskyard.contracts.events import (
    ApplyConfirmed,
    AttemptFailed,
    AttemptSucceeded,
    CommandRejected,
    FieldError,
    NotDelivered,
    PoolConfigured,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    QueueUnlocked,
    RefusedTasks,
    TaskError,
    TaskReprioritised,
    TaskScheduled,
    TaskStopRequested,
    WorkerJoined,
    WorkerLost,
)
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.lifecycle import Phase
from taskyard.contracts.values import SECOND, Instant, TaskId, derive_uuid7
from taskyard.eventlog.snapshots import MemorySnapshots

Explain = Any


@pytest.fixture
def explain(story: Any, dsn: str, run: Any, project: Any) -> Explain:
    """Projects what the story tells, and explains one of its tasks."""

    def ask(task: TaskId, *, sees_only: str | None = None, **limits: Any) -> Why:
        async def scenario() -> Why:
            await project(story)
            async with PostgresReadModel.connect(dsn, lambda: story.now) as model:
                travel = TimeTravel(story.log, Checkpoints(MemorySnapshots(), story.log), lambda: story.now)
                return await Explaining(travel, model, lambda: story.now, **limits).why(task, sees_only=sees_only)

        return run(scenario())

    return ask


def waits(why: Why) -> list[tuple[str, float, str | None]]:
    return [(wait.code, wait.seconds, wait.blocker) for wait in why.waits]


def lines(why: Why) -> list[str]:
    return [f"{line.by}: {line.message}" for line in why.decisions]


def test_a_task_that_waited_for_its_workspace_then_for_a_slot_tells_both_and_why_it_got_that_slot(
    story: Any, explain: Explain
) -> None:
    story.join()
    first = story.submit(kind="plan_and_apply", queue="prod", by="alice")
    story.start(first)
    second = story.submit(kind="plan_and_apply", queue="prod", by="bob", max_attempts=3)
    story.commit(after_seconds=179)
    story.succeed(first)
    story.commit(TaskScheduled(task=second), after_seconds=2)
    story.assign(second)
    error = TaskError(code="exit_status", message="terraform plan ended with 1", retryable=True)
    story.commit(AttemptFailed(task=second, attempt=1, error=error), writer="dispatcher")
    why = explain(second)
    assert waits(why)[:2] == [("workspace_busy", 180.0, str(first)), ("no_free_slot", 3.0, None)]
    assert lines(why)[:6] == [
        "bob: submitted a plan_and_apply to queue prod of pool default with priority 5",
        f"scheduler: waited 3 min for workspace prod, held by {first}",
        "slot_allocator: waited 3 s for a free slot in pool default that takes plan_and_apply",
        "scheduler: may run now",
        "slot_allocator: attempt 1 was given slot 0 of worker-1 by first-fit since slots 1, 2 take plan only",
        "dispatcher: attempt 1 failed with exit_status: terraform plan ended with 1; tried again after 2 s (try 2 of 3)",
    ]
    assert why.summary.startswith(f"waited 3 min for workspace prod, held by {first}; waited 3 s for a free slot")
    assert "slot 0 of worker-1 by first-fit" in why.summary
    assert why.task is not None and why.task.pending_reason is not None
    assert why.task.pending_reason.code == why.waits[-1].code == "backoff"
    assert why.waits[-1].until is None and why.complete


def test_each_line_names_when_and_by_whom(story: Any, explain: Explain) -> None:
    story.join()
    task = story.submit(by="alice")
    story.start(task)
    story.succeed(task)
    why = explain(task)
    assert [line.position is None for line in why.decisions] == [line.type == "waited" for line in why.decisions]
    assert [line.at for line in why.decisions] == sorted(line.at for line in why.decisions)
    assert lines(why)[-1] == "dispatcher: attempt 1 succeeded; completed"


CLOSINGS: list[tuple[str, Any, Any, str]] = [
    (
        "queue_paused",
        QueuePaused(pool="default", queue="prod", by="bob", reason="night"),
        QueueResumed(pool="default", queue="prod", by="bob"),
        "waited 5 s while queue prod was paused by bob: night",
    ),
    (
        "pool_paused",
        QueuePaused(pool="default", by="bob"),
        QueueResumed(pool="default", by="bob"),
        "waited 5 s while pool default was paused by bob",
    ),
    (
        "queue_locked",
        QueueLocked(pool="default", queue="prod", by="bob", reason="mine"),
        QueueUnlocked(pool="default", queue="prod", by="bob"),
        "waited 5 s while queue prod was locked by bob: mine",
    ),
]


@pytest.mark.parametrize("closing", CLOSINGS, ids=lambda closing: closing[0])
def test_a_task_behind_something_closed_says_who_closed_it_and_for_how_long(
    closing: tuple[str, Any, Any, str], story: Any, explain: Explain
) -> None:
    code, close, open_, says = closing
    story.join()
    task = story.submit(queue="prod")
    story.commit(close)
    story.commit(open_, after_seconds=5)
    story.start(task)
    why = explain(task)
    assert code in {wait.code for wait in why.waits}
    assert f"scheduler: {says}" in lines(why)


def test_a_task_that_was_not_to_start_yet_waited_until_its_time_though_nothing_happened_then(
    story: Any, explain: Explain
) -> None:
    story.join()
    task = story.submit(not_before=Instant(story.now + 11 * SECOND))
    story.commit(after_seconds=30)
    story.start(task)
    assert waits(explain(task)) == [("not_before", 10.0, None), ("no_free_slot", 22.0, None)]


def test_tasks_before_it_and_the_queues_limit_are_told(story: Any, explain: Explain) -> None:
    story.join()
    story.commit(QueueConfigured(pool="default", queue="prod", by="admin", max_running=1))
    first, second = (story.submit(queue="prod") for _ in range(2))
    last = story.submit(queue="prod", priority=7)
    story.start(first)
    story.commit(AttemptSucceeded(task=first, attempt=1), writer="dispatcher")
    story.start(second)
    story.commit(AttemptSucceeded(task=second, attempt=1), writer="dispatcher")
    found = explain(last)
    assert [wait.code for wait in found.waits] == [
        "queue_order",
        "queue_limit",
        "queue_order",
        "queue_limit",
        "no_free_slot",
    ]
    assert found.waits[0].blocker == second
    assert "of which 1 may run at a time" in found.waits[1].message
    assert found.waits[-1].until is None and found.waits[-1].message.startswith("has waited 0 ms for a free slot")


def test_without_a_worker_it_says_so_until_one_joins(story: Any, explain: Explain) -> None:
    task = story.submit(kind="plan", queue="prod")
    story.commit(after_seconds=60)
    story.join()
    story.start(task)
    assert waits(explain(task))[0] == ("no_worker", 61.0, None)


def test_a_plan_that_waits_for_an_answer_says_how_long_and_who_gave_it(story: Any, explain: Explain) -> None:
    story.join()
    task = story.submit(kind="plan_and_apply", queue="prod")
    story.start(task)
    story.plan(task)
    story.commit(ApplyConfirmed(task=task, attempt=1, by="carol", comment="looks right"), after_seconds=90)
    story.assign(task, attempt=2)
    why = explain(task)
    assert ("approval", 90.0, None) in waits(why)
    assert "scheduler: waited 1 min 30 s for an answer to its plan" in lines(why)
    assert "carol: confirmed the plan of attempt 1: looks right" in lines(why)
    assert (
        "slot_allocator: attempt 2 was given its reserved slot 0 of worker-1, since that worker has the plan"
        in lines(why)
    )


def test_a_held_task_says_which_worker_it_waits_for(story: Any, explain: Explain) -> None:
    story.join()
    task = story.submit(kind="plan_and_apply", queue="prod")
    story.start(task)
    story.commit(WorkerLost(worker="worker-1", incarnation=1, reason="silent for 30 s"), writer="slot_allocator")
    story.commit(after_seconds=40)
    held = explain(task)
    assert held.waits[-1].message == (
        "has waited 40 s for worker worker-1 to come back, since a plan_and_apply is never repeated by itself"
    )
    joined = WorkerJoined(worker="worker-1", incarnation=2, pool="default", slots=(("any",),), kinds=tuple(KINDS))
    story.commit(joined, writer="slot_allocator")
    why = explain(task)
    assert ("worker_lost", 41.0, None) in waits(why)
    assert (
        "slot_allocator: worker-1 was lost (silent for 30 s); it keeps its slot and workspace until that worker is back"
        in lines(why)
    )


def test_a_delivery_that_failed_and_its_delay_are_told(story: Any, explain: Explain) -> None:
    story.join()
    task = story.submit()
    story.commit(TaskScheduled(task=task))
    story.assign(task)
    story.commit(NotDelivered(task=task, attempt=1, reason="no responders"), writer="dispatcher")
    why = explain(task)
    assert lines(why)[-2] == "dispatcher: attempt 1 was not delivered: no responders; given to a worker again after 5 s"
    assert why.waits[-1].message == "has waited 0 ms before it was sent out again, since worker-1 could not be reached"


def test_who_stopped_a_task_and_what_came_too_late_are_told(story: Any, explain: Explain) -> None:
    story.join()
    task = story.submit()
    story.commit(TaskReprioritised(task=task, priority=1, by="alice"))
    story.commit(TaskStopRequested(task=task, cause="cancel", by="bob", reason="wrong queue"))
    story.commit(TaskStopRequested(task=task, cause="cancel", by="carol"))
    why = explain(task)
    assert "alice: gave it priority 1" in lines(why)
    assert lines(why)[-2:] == [
        "bob: asked to cancel it: wrong queue; cancelled",
        "carol: asked to cancel it (too late, without effect)",
    ]


def test_the_policy_that_chose_the_slot_and_what_was_taken_are_named(story: Any, explain: Explain) -> None:
    story.join()
    first, second, third = (story.submit(kind="plan", queue=f"q{number}") for number in range(3))
    story.start(first)
    story.start(second, slot=1)
    story.commit(PoolConfigured(pool="default", by="admin", placement="keep-slot-0"))
    story.start(third, slot=2)
    [line] = [line.message for line in explain(third).decisions if line.type == "SlotAssigned"]
    assert line == (
        "attempt 1 was given slot 2 of worker-1 by keep-slot-0, which takes the most specialised idle slot, "
        f"since slot 0 had {first}, slot 1 had {second}"
    )


def test_a_refused_submission_says_why_to_who_gave_it(story: Any, explain: Explain) -> None:
    id = TaskId("0199f3c1-0000-7000-8000-000000000001")
    story.commit(
        CommandRejected(
            command=id, verb="submit", by="bob", pool="default", status=422, code="invalid", message="it does not fit",
            errors=(FieldError(path="input.argv", message="is required"),),
        )
    )  # fmt: skip
    why = explain(id, sees_only="bob")
    assert why.task is None
    assert why.summary == "refused the submit (422 invalid): it does not fit (input.argv: is required)"
    with pytest.raises(Refusal, match="no such task"):
        explain(id, sees_only="alice")


def refuse_two_of_a_batch(story: Any) -> tuple[str, TaskId, TaskId]:
    command = "0199f3c1-0000-7000-8000-000000000001"
    given, derived = TaskId("0199f3c1-0000-7000-8000-000000000002"), TaskId(derive_uuid7(command, "4"))
    story.commit(
        CommandRejected(
            command=command, verb="submit", by="bob", pool="default", status=422, code="invalid",
            message="2 tasks were refused",
            refused=(
                RefusedTasks(status=429, code="pool_full", message="no room", tasks=(given,)),
                RefusedTasks(status=422, code="invalid", message="priority: too high", items=(4,)),
            ),
        )
    )  # fmt: skip
    return command, given, derived


def test_a_task_refused_inside_a_stored_batch_is_explained_by_its_own_id(story: Any, explain: Explain) -> None:
    command, given, derived = refuse_two_of_a_batch(story)
    why = explain(given, sees_only="bob")
    assert why.summary == f"refused the submit, which came in command {command}, (429 pool_full): no room"
    assert explain(derived).decisions[0].message.endswith("(422 invalid): priority: too high")
    assert explain(TaskId(command)).summary.startswith("refused the submit (422 invalid): 2 tasks were refused")
    with pytest.raises(Refusal, match="no such task"):
        explain(given, sees_only="alice")


def test_a_task_refused_inside_a_stored_batch_is_not_there_and_the_answer_says_when_why_and_by_which_command(
    story: Any, read: Any
) -> None:
    command, given, _ = refuse_two_of_a_batch(story)

    async def question(model: PostgresReadModel) -> Refusal:
        with pytest.raises(Refusal, match="no such task"):
            await model.task(given, sees_only="alice")
        with pytest.raises(Refusal) as refused:
            await model.task(given, sees_only="bob")
        return refused.value

    refusal = read(question)
    assert (refusal.status, refusal.error) == (404, "task_refused")
    [told] = refusal.refusals
    assert (told.by, told.command, told.status, told.code, told.message) == (
        "bob",
        command,
        429,
        "pool_full",
        "no room",
    )
    assert told.at in refusal.detail and "no room" in refusal.detail and command in refusal.detail
    assert told.position == "1.0"


def test_a_task_that_was_refused_and_then_accepted_is_there(story: Any, read: Any) -> None:
    _, given, _ = refuse_two_of_a_batch(story)
    story.submit_again(given)
    assert read(lambda model: model.task(given, sees_only=None)).id == given


def test_another_ones_task_is_not_explained(story: Any, explain: Explain) -> None:
    task = story.submit(by="alice")
    with pytest.raises(Refusal, match="no such task"):
        explain(task, sees_only="bob")


def test_what_would_take_too_long_to_find_out_is_left_open_and_said(story: Any, explain: Explain) -> None:
    story.join()
    task = story.submit()
    story.start(task)
    why = explain(task, seconds_max=0.0)
    assert not why.complete
    assert [wait.code for wait in why.waits] == ["unknown"]
    assert "slot_allocator: attempt 1 was given slot 0 of worker-1" in lines(why)


def test_a_busy_queue_is_summed_up_and_not_told_blow_by_blow(story: Any, explain: Explain) -> None:
    story.join()
    task = story.submit(queue="prod", priority=9)
    for _ in range(15):
        story.commit(QueuePaused(pool="default", queue="prod", by="bob"))
        story.commit(QueueResumed(pool="default", queue="prod", by="bob"))
    story.start(task)
    why = explain(task)
    assert [(wait.code, wait.times) for wait in why.waits] == [("no_free_slot", 16), ("queue_paused", 15)]
    assert why.waits[1].message.endswith("while queue prod was paused by bob (15 times)")


# -- every code in words -----------------------------------------------------------------------------------------------

TASK = Waiting(
    id="task", kind="plan", pool="default", queue="prod", phase=Phase.PENDING, due=Instant(1_800_000_000 * SECOND),
    locks_queue=False, is_admitted=False, is_apply=False, worker="w1", slot=0, error_code="exit_status",
)  # fmt: skip
AROUND = Around(
    queue_paused_by="bob", queue_paused_reason="night", pool_paused_by="bob", locked_by="bob", workspace_holder="other",
    max_running=2, next_ahead="other",
)  # fmt: skip


WORDS = (
    ("not_before", "until 2027-01-15T08:00:00.000Z, before which it was not to start"),
    ("backoff", "before trying again, since the attempt before had failed (exit_status)"),
    ("queue_paused", "while queue prod was paused by bob: night"),
    ("pool_paused", "while pool default was paused by bob"),
    ("queue_locked", "while queue prod was locked by bob"),
    ("workspace_busy", "for workspace prod, held by other"),
    ("queue_limit", "for a place in queue prod, of which 2 may run at a time"),
    ("queue_order", "behind other in queue prod"),
    ("no_worker", "for a worker in pool default that takes plan"),
    ("no_free_slot", "for a free slot in pool default that takes plan"),
    ("approval", "for an answer to its plan"),
    ("worker_lost", "for worker w1 to come back, since a plan is never repeated by itself"),
)


def test_no_reason_that_is_given_to_tasks_is_without_words() -> None:
    given = re.findall(r'PendingReason\(\s*code="(\w+)"|_reason\(around, "(\w+)"', inspect.getsource(reasons))
    assert {one or other for one, other in given} == {code for code, _ in WORDS}


@pytest.mark.parametrize(("code", "words"), WORDS)
def test_every_reason_has_its_words(code: str, words: str) -> None:
    assert waited_for(TASK, AROUND, code) == words


@pytest.mark.parametrize(
    ("microseconds", "words"),
    [
        (0, "0 ms"), (340_000, "340 ms"), (2_000_000, "2 s"), (2_440_000, "2.4 s"), (180_000_000, "3 min"),
        (200_000_000, "3 min 20 s"), (7_500_000_000, "2 h 5 min"),
    ],
)  # fmt: skip
def test_durations_are_short(microseconds: int, words: str) -> None:
    assert duration_words(microseconds) == words


def test_a_story_that_is_longer_than_a_history_says_that_it_is_not_whole(
    story: Any, explain: Explain, monkeypatch: pytest.MonkeyPatch
) -> None:
    story.join()
    task = story.submit()
    story.start(task)
    story.succeed(task)
    monkeypatch.setattr("taskyard.api.past.explaining.first_page", lambda listed: first_page(listed, 3))
    assert not explain(task).complete
    monkeypatch.undo()
    assert explain(task).complete
