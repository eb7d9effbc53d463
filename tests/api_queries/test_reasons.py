"""Why a task waits: every code, first from facts alone, then from rows of a real read model."""

from typing import Any

import pytest
from msgspec.structs import replace as replace_struct

from taskyard.api.reasons import Around, Waiting, pending_reason, suspects_words
from taskyard.contracts.events import (
    ApplyConfirmed,
    AttemptFailed,
    NotDelivered,
    PlacingFailed,
    PlacingResumed,
    PoolConfigured,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    TaskError,
    TaskScheduled,
    WorkerDrainRequested,
    WorkerLost,
    WorkerSuspected,
)
from taskyard.contracts.lifecycle import Phase
from taskyard.contracts.values import SECOND, Instant, format_instant

NOW = Instant(1_000 * SECOND)
FREE = Around(queue_position=1, has_worker=True)


def waiting(**facts: Any) -> Waiting:
    values: dict[str, Any] = {
        "id": "task",
        "kind": "plan",
        "pool": "default",
        "queue": "prod",
        "phase": Phase.PENDING,
        "due": Instant(0),
        "locks_queue": False,
        "is_admitted": False,
        "is_apply": False,
        "worker": None,
        "slot": None,
        "error_code": None,
    }
    return Waiting(**(values | facts))


LATER = Instant(NOW + 5 * SECOND)


@pytest.mark.parametrize(
    ("task", "around", "code", "blocker"),
    [
        (waiting(due=LATER), FREE, "not_before", None),
        (waiting(due=LATER, error_code="exit_status"), FREE, "backoff", None),
        (waiting(due=LATER, error_code="dispatch_failed", worker="w"), FREE, "backoff", None),
        (waiting(), Around(queue_paused_by="bob", queue_paused_reason="night"), "queue_paused", "bob"),
        (
            waiting(),
            Around(queue_paused_by="scheduler", queue_paused_reason="internal_error: see the log"),
            "internal_error",
            None,
        ),
        (waiting(), Around(pool_paused_by="bob"), "pool_paused", "bob"),
        (waiting(), Around(locked_by="bob", locked_reason="mine"), "queue_locked", "bob"),
        (waiting(locks_queue=True), Around(workspace_holder="other"), "workspace_busy", "other"),
        (waiting(), Around(max_running=2, admitted=2, next_ahead="x"), "queue_limit", None),
        (waiting(), Around(next_ahead="other", has_worker=True), "queue_order", "other"),
        (waiting(), Around(has_worker=False), "no_worker", None),
        (waiting(), FREE, "no_free_slot", None),
        (waiting(phase=Phase.SCHEDULED), FREE, "no_free_slot", None),
        (waiting(phase=Phase.SCHEDULED), Around(), "no_worker", None),
        (waiting(phase=Phase.SCHEDULED), Around(aside_reason="KeyError", has_worker=True), "internal_error", None),
        (waiting(phase=Phase.SCHEDULED, is_apply=True), Around(aside_reason="KeyError"), "internal_error", None),
        (waiting(phase=Phase.SCHEDULED, is_apply=True, worker="w", slot=0), Around(), "no_free_slot", None),
        (waiting(phase=Phase.SCHEDULED, is_apply=True, due=LATER, error_code="dispatch_failed"), FREE, "backoff", None),
        (waiting(phase=Phase.APPLY_PENDING), Around(), "approval", None),
        (waiting(phase=Phase.HELD, worker="w"), Around(), "worker_lost", "w"),
    ],
)
def test_every_waiting_task_says_for_what(task: Waiting, around: Around, code: str, blocker: str | None) -> None:
    reason = pending_reason(task, around, NOW)

    assert reason is not None
    assert (reason.code, reason.blocker) == (code, blocker)
    assert reason.message


@pytest.mark.parametrize("phase", [Phase.ASSIGNED, Phase.RUNNING, Phase.STOPPING, Phase.COMPLETED, Phase.CANCELLED])
def test_what_does_not_wait_has_no_reason(phase: Phase) -> None:
    assert pending_reason(waiting(phase=phase), FREE, NOW) is None


def test_a_task_that_waits_for_a_worker_with_a_full_disk_names_it_and_its_reason(story: Any, read: Any) -> None:
    story.join()
    task = story.submit(kind="plan")
    story.commit(WorkerSuspected(worker="worker-1", incarnation=1, reason="the disk is full"), writer="slot_allocator")

    (reason,) = ask_for(read, task)

    assert reason.code == "no_worker"
    assert "worker-1 takes nothing new (the disk is full)" in reason.message


def test_tasks_of_a_kind_that_stands_aside_say_so_until_that_is_over(story: Any, read: Any) -> None:
    story.join()
    plan, other = story.submit(kind="plan"), story.submit()
    why = "KeyError, in the log as kind plan of pool default"
    story.commit(TaskScheduled(task=plan), TaskScheduled(task=other))
    story.commit(PlacingFailed(pool="default", what="plan", reason=why), writer="slot_allocator")

    assert [reason.code for reason in ask_for(read, other)] == ["no_free_slot"]
    (reason,) = ask_for(read, plan)
    assert reason.code == "internal_error" and why in reason.message
    story.commit(PlacingResumed(pool="default", what="plan"), writer="slot_allocator")
    assert [reason.code for reason in ask_for(read, plan)] == ["no_free_slot"]


def test_what_a_worker_declined_says_why_while_it_waits_for_the_next_try() -> None:
    task = waiting(due=LATER, error_code="dispatch_failed", error_message="the disk is full", worker="w")
    reason = pending_reason(task, FREE, NOW)
    assert reason is not None
    assert "delivery to w failed: the disk is full; goes on at" in reason.message


def test_of_many_suspects_the_first_are_named() -> None:
    assert suspects_words((f"w{n}", "x") for n in range(5)).endswith("w2 takes nothing new (x); and 2 more")


def test_a_plan_does_not_wait_for_the_workspace() -> None:
    reason = pending_reason(waiting(), replace(FREE, workspace_holder="other"), NOW)
    assert reason is not None
    assert reason.code == "no_free_slot"


def test_what_holds_the_workspace_itself_does_not_wait_for_it() -> None:
    task = waiting(locks_queue=True, is_admitted=True)
    reason = pending_reason(task, replace(FREE, workspace_holder="other"), NOW)
    assert reason is not None
    assert reason.code == "no_free_slot"


def replace(around: Around, **changes: Any) -> Around:
    from dataclasses import replace

    return replace(around, **changes)


# -- from rows ---------------------------------------------------------------------------------------------------------


def ask_for(read: Any, *tasks: str) -> list[Any]:
    async def question(model: Any) -> list[Any]:
        return [(await model.task(task, sees_only=None)).pending_reason for task in tasks]

    return read(question)


def shown(reason: Any) -> tuple[str, str | None, int | None]:
    return reason.code, reason.blocker, reason.queue_position


def test_a_workspace_in_use_names_who_has_it_and_the_place_in_the_queue(story: Any, read: Any) -> None:
    story.join()
    holder = story.submit(kind="plan_and_apply", queue="prod")
    second = story.submit(kind="plan_and_apply", queue="prod")
    third = story.submit(kind="plan_and_apply", queue="prod")
    urgent = story.submit(kind="plan_and_apply", queue="prod", priority=1)
    plan = story.submit(kind="plan", queue="prod")
    elsewhere = story.submit(kind="plan_and_apply", queue="test")
    story.start(holder)

    reasons = ask_for(read, holder, second, third, urgent, plan, elsewhere)

    assert reasons[0] is None
    assert [shown(reason) for reason in reasons[1:]] == [
        ("workspace_busy", holder, 2),
        ("workspace_busy", holder, 3),
        ("workspace_busy", holder, 1),
        ("no_free_slot", None, 4),
        ("no_free_slot", None, 1),
    ]
    assert reasons[1].message == f"waits for {holder} in prod"


def test_who_is_behind_another_names_the_one_just_ahead(story: Any, read: Any) -> None:
    story.join()
    first, second, third = story.submit(), story.submit(), story.submit()
    urgent = story.submit(priority=1)

    reasons = ask_for(read, first, second, third, urgent)

    assert [shown(reason) for reason in reasons] == [
        ("queue_order", urgent, 2),
        ("queue_order", first, 3),
        ("queue_order", second, 4),
        ("no_free_slot", None, 1),
    ]


def test_tasks_that_are_not_due_are_not_ahead(story: Any, read: Any) -> None:
    story.join()
    later = story.submit(not_before=Instant(story.now + 3_600 * SECOND), priority=1)
    now = story.submit()

    assert [shown(reason) for reason in ask_for(read, later, now)] == [
        ("not_before", None, 1),
        ("no_free_slot", None, 1),
    ]


def test_failures_wait_for_their_next_try(story: Any, read: Any) -> None:
    failed, undelivered = story.submit(kind="noop"), story.submit(kind="noop")
    story.start(failed)
    story.commit(TaskScheduled(task=undelivered))
    story.assign(undelivered, slot=1)
    error = TaskError(code="exit_status", message="1", retryable=True)
    story.commit(
        AttemptFailed(task=failed, attempt=1, error=error),
        NotDelivered(task=undelivered, attempt=1, reason="no responders"),
        writer="dispatcher",
    )

    reasons = ask_for(read, failed, undelivered)

    assert [reason.code for reason in reasons] == ["backoff", "backoff"]
    assert "exit_status" in reasons[0].message
    assert "delivery to worker-1 failed" in reasons[1].message


def test_pauses_locks_and_limits_are_told_with_their_author(story: Any, read: Any) -> None:
    story.join()
    paused, locked, limited = story.submit(queue="a"), story.submit(queue="b"), story.submit(queue="c")
    running = story.submit(queue="c")
    in_pool = story.submit(pool="night")
    story.start(running)
    story.commit(
        QueuePaused(pool="default", queue="a", by="bob", reason="audit"),
        QueueLocked(pool="default", queue="b", by="bob", reason="mine"),
        QueueConfigured(pool="default", queue="c", by="bob", max_running=1),
        QueuePaused(pool="night", by="bob"),
        PoolConfigured(pool="night", by="bob", max_waiting=3),
    )

    reasons = ask_for(read, paused, locked, limited, in_pool)

    assert [reason.code for reason in reasons] == ["queue_paused", "queue_locked", "queue_limit", "pool_paused"]
    assert reasons[0].message == "queue a was paused by bob at 2026-09-21T14:13:31.000Z: audit"
    assert reasons[1].blocker == "bob"


def test_a_pool_without_a_fitting_worker_says_so(story: Any, read: Any) -> None:
    story.join()
    elsewhere = story.submit(pool="other")
    here = story.submit(queue="a")
    scheduled = story.submit(queue="b")
    story.commit(TaskScheduled(task=scheduled))
    assert [reason.code for reason in ask_for(read, elsewhere, here, scheduled)] == [
        "no_worker",
        "no_free_slot",
        "no_free_slot",
    ]

    story.commit(WorkerDrainRequested(pool="default", worker="worker-1", by="bob"))
    assert [reason.code for reason in ask_for(read, here, scheduled)] == ["no_worker", "no_worker"]


def test_a_plan_waits_for_its_answer_and_then_for_its_slot(story: Any, read: Any) -> None:
    story.join()
    task = story.submit(kind="plan_and_apply", queue="prod")
    story.start(task)
    story.plan(task)
    assert shown(ask_for(read, task)[0]) == ("approval", None, None)

    story.commit(ApplyConfirmed(task=task, attempt=1, by="bob"))
    (reason,) = ask_for(read, task)
    assert reason.code == "no_free_slot"
    assert "slot 0 of worker-1" in reason.message


HOLDS = {
    "pool default was paused by bob at": QueuePaused(pool="default", by="bob", reason="freeze"),
    "queue prod was paused by bob at": QueuePaused(pool="default", queue="prod", by="bob"),
    "queue prod was locked by bob at": QueueLocked(pool="default", queue="prod", by="bob", reason="mine"),
    "queue prod of pool west was locked by bob at": QueueLocked(pool="west", queue="prod", by="bob"),
}


@pytest.mark.parametrize("told", HOLDS)
def test_an_apply_that_is_confirmed_and_held_back_says_by_what_by_whom_and_since_when(
    story: Any, read: Any, told: str
) -> None:
    story.join()
    task = story.submit(kind="plan_and_apply", queue="prod")
    story.start(task)
    story.plan(task)
    story.commit(HOLDS[told])
    story.commit(ApplyConfirmed(task=task, attempt=1, by="bob"))

    (reason,) = ask_for(read, task)

    assert shown(reason) == ("locked" if "locked" in told else "paused", "bob", None)
    assert f"{told} 2026-09-21T" in reason.message


def test_a_workspace_that_a_task_of_another_pool_has_is_busy_and_the_reason_names_that_task(
    story: Any, read: Any
) -> None:
    story.join()
    first = story.submit(kind="plan_and_apply", queue="prod")
    story.start(first)
    second = story.submit(kind="plan_and_apply", queue="prod", pool="west")

    (reason,) = ask_for(read, second)

    assert shown(reason) == ("workspace_busy", first, 1)


def test_a_held_task_waits_for_its_worker(story: Any, read: Any) -> None:
    story.join()
    task = story.submit(kind="plan_and_apply", queue="prod")
    story.start(task)
    story.commit(WorkerLost(worker="worker-1", incarnation=1), writer="slot_allocator")

    async def question(model: Any) -> Any:
        return await model.task(task, sees_only=None)

    view = read(question)
    assert view.status == "running"
    assert shown(view.pending_reason) == ("worker_lost", "worker-1", None)
    assert replace_struct(view.pending_reason, message="").message == ""


def test_a_page_tells_the_same_places_as_each_task_alone(story: Any, read: Any) -> None:
    story.join()
    for number in range(60):
        not_before = Instant(story.now + 3_600 * SECOND) if number % 7 == 0 else None
        story.submit(queue=("a", "b")[number % 2], priority=1 + number % 3, not_before=not_before)

    async def question(model: Any) -> None:
        from taskyard.api.read_model import TaskFilter

        page = await model.tasks(TaskFilter(limit=25))
        for view in page.items:
            assert view.pending_reason == (await model.task(view.id, sees_only=None)).pending_reason

    read(question)


def test_a_pause_tells_what_it_was_for_by_whom_since_when_and_why_as_a_lock_does() -> None:
    at = Instant(NOW - SECOND)
    told = [
        pending_reason(waiting(), around, NOW)
        for around in (
            replace(FREE, queue_paused_by="bob", queue_paused_reason="night", queue_paused_at=at),
            replace(FREE, pool_paused_by="bob", pool_paused_reason="night", pool_paused_at=at),
            replace(FREE, locked_by="bob", locked_reason="night", locked_at=at),
        )
    ]
    since = f"by bob at {format_instant(at)}: night"
    assert [(reason.message, reason.blocker) for reason in told if reason] == [
        (f"queue {waiting().queue} was paused {since}", "bob"),
        (f"pool {waiting().pool} was paused {since}", "bob"),
        (f"queue {waiting().queue} was locked {since}", "bob"),
    ]
