"""The table of a task's life: every event in every phase becomes a phase, or is void."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from taskyard.contracts.events import (
    ApplyConfirmed,
    ApplyDiscarded,
    ApprovalExpired,
    AttemptFailed,
    AttemptLost,
    AttemptReleased,
    AttemptSucceeded,
    Changes,
    ForceStopped,
    NotDelivered,
    SlotAssigned,
    TaskDispatched,
    TaskError,
    TaskPlanned,
    TaskProgressed,
    TaskReprioritised,
    TaskScheduled,
    TaskStarted,
    TaskStopRequested,
    TaskSubmitted,
    WorkerJoined,
    WorkerLost,
)
from taskyard.contracts.kind import Lock, OnLost
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.lifecycle import (
    DECLINES_REMEMBERED_MAX,
    DELIVERY_DELAYS_SECONDS,
    Phase,
    TaskRecord,
    Verdict,
    fold,
    new_record,
)
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import SECOND, Instant, Position, Status, TaskId, seconds

T = TaskId("01900000-0000-7000-8000-000000000001")
AT = Instant(1_000 * SECOND)
P = Phase
VOID, SAME = "void", "same"
FATAL = TaskError(code="exit", message="no", retryable=False)
AGAIN = TaskError(code="exit", message="not now", retryable=True)
ENDED = (P.COMPLETED, P.FAILED, P.TIMEOUT, P.CANCELLED)


def of_kind(kind: str, **fields: Any) -> TaskSubmitted:
    policy = KINDS[kind]
    values: dict[str, Any] = {
        "timeout_seconds": policy.timeout_seconds,
        "max_attempts": policy.max_attempts,
        "retry_delays_seconds": policy.retry_delays_seconds,
        "lock": policy.lock,
        "approval": policy.approval,
        "on_lost": policy.on_lost,
    }
    return TaskSubmitted(
        task=T, kind=kind, pool="default", queue="q", by="alice", input=Raw(b"{}"), digest="", **(values | fields)
    )


def assigned(attempt: int = 1) -> SlotAssigned:
    return SlotAssigned(task=T, attempt=attempt, worker="w1", incarnation=1, slot=0)


CANCEL = TaskStopRequested(task=T, cause="cancel", by="alice", reason="enough")
PLANNED = TaskPlanned(task=T, attempt=1, changes=Changes(add=1))
LOST = WorkerLost(worker="w1", incarnation=1)
JOINED = WorkerJoined(worker="w1", incarnation=2, pool="default", slots=(("any",),), kinds=("noop", "plan_and_apply"))
PATHS: dict[Phase, tuple[Any, ...]] = {
    P.PENDING: (),
    P.SCHEDULED: (TaskScheduled(task=T),),
    P.ASSIGNED: (TaskScheduled(task=T), assigned()),
    P.DISPATCHED: (TaskScheduled(task=T), assigned(), TaskDispatched(task=T, attempt=1)),
    P.RUNNING: (TaskScheduled(task=T), assigned(), TaskStarted(task=T, attempt=1)),
    P.APPLY_PENDING: (TaskScheduled(task=T), assigned(), PLANNED),
    P.HELD: (TaskScheduled(task=T), assigned(), TaskStarted(task=T, attempt=1), LOST),
    P.STOPPING: (TaskScheduled(task=T), assigned(), CANCEL),
    P.COMPLETED: (TaskScheduled(task=T), assigned(), AttemptSucceeded(task=T, attempt=1)),
    P.FAILED: (TaskScheduled(task=T), assigned(), AttemptFailed(task=T, attempt=1, error=FATAL)),
    P.TIMEOUT: (TaskStopRequested(task=T, cause="schedule_to_start", by="auto"),),
    P.CANCELLED: (CANCEL,),
}


def record_in(phase: Phase, kind: str = "plan_and_apply", *then: Any, **fields: Any) -> TaskRecord:
    return record_after(of_kind(kind, **fields), *PATHS[phase], *then)


def record_after(submitted: TaskSubmitted, *then: Any) -> TaskRecord:
    record = new_record(submitted, AT, Position(1))
    for number, event in enumerate(then, start=2):
        assert fold(record, event, AT, Position(number)) is Verdict.EFFECTIVE
    return record


def row(becomes: dict[Phase, Any]) -> dict[Phase, Any]:
    """A row of the table: void wherever it says nothing."""
    return {phase: becomes.get(phase, VOID) for phase in Phase}


def each(phases: str, after: Any) -> dict[Phase, Any]:
    return {Phase(name): after for name in phases.split()}


ON_WORKER, OPEN = "assigned dispatched running", "assigned dispatched running held stopping"
TABLE: dict[str, tuple[Any, dict[Phase, Any]]] = {
    "scheduled": (TaskScheduled(task=T), row(each("pending", P.SCHEDULED))),
    "assigned": (assigned(2), row(each("scheduled", P.ASSIGNED))),
    "dispatched": (TaskDispatched(task=T, attempt=1), row(each("assigned", P.DISPATCHED))),
    "started": (TaskStarted(task=T, attempt=1), row(each("assigned dispatched", P.RUNNING))),
    "progressed": (TaskProgressed(task=T, attempt=1, progress=5), row(each(OPEN, SAME))),
    "planned": (
        PLANNED,
        row(each(ON_WORKER, P.APPLY_PENDING) | each("held", P.PENDING) | each("stopping", P.CANCELLED)),
    ),
    "confirmed": (ApplyConfirmed(task=T, attempt=1, by="bob"), row(each("apply_pending", SAME))),
    "confirmed of another attempt": (ApplyConfirmed(task=T, attempt=2, by="bob"), row({})),
    "discarded": (ApplyDiscarded(task=T, attempt=1, by="bob"), row(each("apply_pending", P.CANCELLED))),
    "discarded of another attempt": (ApplyDiscarded(task=T, attempt=2, by="bob"), row({})),
    "expired": (ApprovalExpired(task=T, attempt=1), row(each("apply_pending", P.CANCELLED))),
    "expired of another attempt": (ApprovalExpired(task=T, attempt=3), row({})),
    "cancel": (
        CANCEL,
        row(
            each("pending scheduled apply_pending", P.CANCELLED)
            | each("assigned dispatched running held", P.STOPPING)
            | each("stopping", Verdict.ALREADY)
        ),
    ),
    "timeout": (
        TaskStopRequested(task=T, cause="timeout", by="dispatcher", attempt=1),
        row(each("assigned dispatched running held", P.STOPPING) | each("stopping", Verdict.ALREADY)),
    ),
    "timeout of another attempt": (
        TaskStopRequested(task=T, cause="timeout", by="dispatcher", attempt=7),
        row(each("stopping", Verdict.ALREADY)),
    ),
    "schedule to start": (
        TaskStopRequested(task=T, cause="schedule_to_start", by="auto"),
        row(each("pending scheduled", P.TIMEOUT) | each("stopping", Verdict.ALREADY)),
    ),
    "an unknown cause": (
        TaskStopRequested(task=T, cause="of a newer version", by="auto"),
        row(each("stopping", Verdict.ALREADY)),
    ),
    "succeeded": (AttemptSucceeded(task=T, attempt=1), row(each(OPEN, P.COMPLETED))),
    "succeeded of another attempt": (AttemptSucceeded(task=T, attempt=2), row({})),
    "failed for good": (
        AttemptFailed(task=T, attempt=1, error=FATAL),
        row(each("assigned dispatched running held", P.FAILED) | each("stopping", P.CANCELLED)),
    ),
    "failed for now": (
        AttemptFailed(task=T, attempt=1, error=AGAIN),
        row(each("assigned dispatched running held", P.PENDING) | each("stopping", P.CANCELLED)),
    ),
    "failed by the agent's own timeout": (
        AttemptFailed(task=T, attempt=1, error=TaskError(code="timeout", message="late", retryable=True)),
        row(each("assigned dispatched running held", P.TIMEOUT) | each("stopping", P.CANCELLED)),
    ),
    "failed of another attempt": (AttemptFailed(task=T, attempt=2, error=FATAL), row({})),
    "attempt lost": (
        AttemptLost(task=T, attempt=1),
        row(each("assigned dispatched running held", P.PENDING) | each("stopping", P.CANCELLED)),
    ),
    "not delivered": (
        NotDelivered(task=T, attempt=1, reason="no responders"),
        row(each("assigned dispatched held", P.PENDING) | each("stopping", P.CANCELLED)),
    ),
    "not delivered of another attempt": (NotDelivered(task=T, attempt=2, reason="x"), row({})),
    "worker lost": (LOST, row(each(ON_WORKER, P.HELD) | each("apply_pending", P.PENDING))),
    "an earlier incarnation lost": (WorkerLost(worker="w1", incarnation=0), row({})),
    "another worker lost": (WorkerLost(worker="w2", incarnation=1), row({})),
    "worker joined": (
        JOINED,
        row(each("held", P.ASSIGNED) | each("assigned dispatched running stopping apply_pending", SAME)),
    ),
    "worker joined as it was": (
        WorkerJoined(worker="w1", incarnation=1, pool="default", slots=(("any",),), kinds=("noop",)),
        row(each("held", P.ASSIGNED)),
    ),
    "force stopped": (
        ForceStopped(task=T, by="root", reason="dead host"),
        row({phase: P.CANCELLED for phase in Phase if phase not in ENDED}),
    ),
    "released": (
        AttemptReleased(task=T, attempt=1, by="root", reason="host burnt"),
        row(each("held", P.FAILED)),
    ),
    "released of another attempt": (AttemptReleased(task=T, attempt=2, by="root", reason="x"), row({})),
    "reprioritised": (TaskReprioritised(task=T, priority=1, by="alice"), row(each("pending", SAME))),
    "reprioritised to what it is": (
        TaskReprioritised(task=T, priority=5, by="alice"),
        row(each("pending", Verdict.ALREADY)),
    ),
}
CELLS = [
    pytest.param(event, before, after, id=f"{name}-{before}")
    for name, (event, becomes) in TABLE.items()
    for before, after in becomes.items()
]


@pytest.mark.parametrize(("event", "before", "after"), CELLS)
def test_the_table_says_what_an_event_becomes(event: Any, before: Phase, after: Any) -> None:
    record = record_in(before)
    unchanged = msgspec.json.encode(record)

    verdict = fold(record, event, AT, Position(99))

    if after in (VOID, Verdict.ALREADY):
        assert verdict is Verdict(after)
        assert msgspec.json.encode(record) == unchanged, "what is void changes nothing at all"
        return
    assert verdict is Verdict.EFFECTIVE
    assert record.phase is (before if after is SAME else after)


@pytest.mark.parametrize(("event", "before", "after"), CELLS)
def test_the_same_event_again_changes_nothing_more(event: Any, before: Phase, after: Any) -> None:
    record = record_in(before)
    fold(record, event, AT, Position(99))
    once = msgspec.json.encode(record)

    fold(record, event, AT, Position(100))

    assert msgspec.json.encode(record) == once


def test_every_phase_shows_a_status() -> None:
    shown = {phase: record_in(phase).status for phase in Phase}

    assert shown.pop(P.HELD) is Status.RUNNING
    assert shown.pop(P.STOPPING) is Status.CANCELLING
    assert {phase: status.value for phase, status in shown.items()} == {phase: phase.value for phase in shown}


@pytest.mark.parametrize("phase", list(Phase))
def test_slot_and_workspace_follow_from_the_phase(phase: Phase) -> None:
    record = record_in(phase)

    holds_slot = phase in (P.ASSIGNED, P.DISPATCHED, P.RUNNING, P.APPLY_PENDING, P.HELD, P.STOPPING)
    assert record.held_slot == (("w1", 0) if holds_slot else None)
    assert record.is_reserved is (phase is P.APPLY_PENDING)
    assert record.holds_workspace is (phase not in (P.PENDING, *ENDED))
    assert record.has_ended is (phase in ENDED)
    assert (record.finished_at is not None) is record.has_ended


def test_one_that_goes_back_to_pending_keeps_its_workspace_and_gives_back_its_slot() -> None:
    record = record_in(P.RUNNING, "plan_and_apply", AttemptFailed(task=T, attempt=1, error=AGAIN))

    assert record.phase is P.PENDING
    assert record.holds_workspace
    assert record.held_slot is None


# -- tries and delays --------------------------------------------------------------------------------------------------


def fail(record: TaskRecord, attempt: int, *, start: bool = True) -> None:
    fold(record, TaskScheduled(task=T), AT, Position(50))
    fold(record, assigned(attempt), AT, Position(51))
    if start:
        fold(record, TaskStarted(task=T, attempt=attempt), AT, Position(52))
    assert fold(record, AttemptFailed(task=T, attempt=attempt, error=AGAIN), AT, Position(53)) is Verdict.EFFECTIVE


def test_retries_wait_longer_each_time_and_end_with_the_tries() -> None:
    record = new_record(of_kind("noop", max_attempts=4, retry_delays_seconds=(2.0, 4.0)), AT, Position(1))

    for attempt, delay in enumerate((2, 4, 4), start=1):
        fail(record, attempt)
        assert (record.phase, record.due) == (P.PENDING, AT + seconds(delay))
        assert record.error == AGAIN
    fail(record, 4)

    assert record.phase is P.FAILED
    assert record.error == AGAIN


def test_a_delivery_that_failed_spends_no_try_and_waits_longer_each_time() -> None:
    record = new_record(of_kind("noop", max_attempts=1), AT, Position(1))

    for attempt, delay in enumerate(DELIVERY_DELAYS_SECONDS, start=1):
        fold(record, TaskScheduled(task=T), AT, Position(50))
        fold(record, assigned(attempt), AT, Position(51))
        fold(record, NotDelivered(task=T, attempt=attempt, reason="no responders"), AT, Position(52))
        assert (record.phase, record.due, record.tries) == (P.PENDING, AT + seconds(delay), 0)
    fold(record, TaskScheduled(task=T), AT, Position(50))
    fold(record, assigned(6), AT, Position(51))
    fold(record, NotDelivered(task=T, attempt=6, reason="no responders"), AT, Position(52))

    assert record.phase is P.FAILED
    assert record.error is not None and record.error.code == "dispatch_failed"


def test_what_workers_decline_waits_a_bounded_time_and_never_ends() -> None:
    record = new_record(of_kind("noop", max_attempts=1), AT, Position(1))

    for attempt in range(1, 101):
        fold(record, TaskScheduled(task=T), AT, Position(50))
        fold(record, assigned(attempt), AT, Position(51))
        fold(record, NotDelivered(task=T, attempt=attempt, reason="full", declined=True), AT, Position(52))
        delay = DELIVERY_DELAYS_SECONDS[min(attempt, len(DELIVERY_DELAYS_SECONDS)) - 1]
        assert (record.phase, record.due, record.tries) == (P.PENDING, AT + seconds(delay), 0)

    assert len(record.declined_by) == DECLINES_REMEMBERED_MAX
    assert record.error is not None and record.error.message == "full"


def test_a_delivery_that_works_forgets_the_failed_ones() -> None:
    record = record_in(P.ASSIGNED, "noop", NotDelivered(task=T, attempt=1, reason="x"))
    for event in (TaskScheduled(task=T), assigned(2), TaskDispatched(task=T, attempt=2)):
        fold(record, event, AT, Position(9))

    assert record.deliveries_failed == 0


@pytest.mark.parametrize("phase", [P.ASSIGNED, P.DISPATCHED, P.RUNNING])
@pytest.mark.parametrize(
    ("fields", "after"),
    [
        ({"on_lost": OnLost("retry"), "max_attempts": 2}, P.PENDING),
        ({"on_lost": OnLost("retry"), "max_attempts": 1}, P.FAILED),
        ({"on_lost": OnLost("fail"), "max_attempts": 2}, P.FAILED),
        ({"on_lost": OnLost("hold"), "max_attempts": 2}, P.HELD),
    ],
)
def test_a_lost_worker_means_what_the_kind_says(phase: Phase, fields: dict[str, Any], after: Phase) -> None:
    record = record_in(phase, "noop", **fields)

    assert fold(record, LOST, AT, Position(99)) is Verdict.EFFECTIVE
    assert record.phase is after


def test_a_lost_worker_ends_what_was_stopping_unless_it_is_held() -> None:
    stopping = record_in(P.STOPPING, "noop")
    held = record_in(P.STOPPING, "plan_and_apply")

    assert fold(stopping, LOST, AT, Position(99)) is Verdict.EFFECTIVE
    assert fold(held, LOST, AT, Position(99)) is Verdict.VOID
    assert stopping.phase is P.CANCELLED
    assert held.phase is P.STOPPING and held.held_slot == ("w1", 0)


@pytest.mark.parametrize(
    ("ends", "after"),
    [
        (AttemptFailed(task=T, attempt=1, error=AGAIN), P.TIMEOUT),
        (AttemptLost(task=T, attempt=1), P.TIMEOUT),
        (AttemptSucceeded(task=T, attempt=1), P.COMPLETED),
    ],
)
def test_what_is_stopping_ends_as_what_stopped_it(ends: Any, after: Phase) -> None:
    timeout = TaskStopRequested(task=T, cause="timeout", by="dispatcher", attempt=1)
    record = record_in(P.RUNNING, "noop", timeout)

    fold(record, ends, AT, Position(99))

    assert record.phase is after


def test_a_held_attempt_that_is_found_again_runs_on() -> None:
    record = record_in(P.HELD, "plan_and_apply", JOINED)

    assert (record.phase, record.incarnation, record.assigned_incarnation) == (P.ASSIGNED, 2, 1)
    assert fold(record, TaskDispatched(task=T, attempt=1), AT, Position(99)) is Verdict.EFFECTIVE
    assert record.phase is P.RUNNING


@pytest.mark.parametrize("tried", [1, 2])
def test_a_held_attempt_that_did_not_begin_spends_no_try_and_gives_none_back(tried: int) -> None:
    kind = {"lock": Lock.NONE, "approval": False, "on_lost": OnLost.HOLD, "max_attempts": 3}
    again = [AttemptFailed(task=T, attempt=1, error=AGAIN), TaskScheduled(task=T), assigned(2)] if tried == 2 else []
    record = record_after(of_kind("noop", **kind), TaskScheduled(task=T), assigned(), *again, LOST)
    assert (record.phase, record.tries) == (P.HELD, tried)

    assert fold(record, NotDelivered(task=T, attempt=tried, reason="never came"), AT, Position(99)) is Verdict.EFFECTIVE
    assert (record.phase, record.tries) == (P.PENDING, tried - 1)


def test_no_report_makes_a_task_wait_for_approval_whose_kind_asks_for_none() -> None:
    locks = {"lock": Lock.QUEUE, "approval": False}
    record = record_after(of_kind("noop", **locks), TaskScheduled(task=T), assigned(), TaskStarted(task=T, attempt=1))

    assert fold(record, TaskPlanned(task=T, attempt=1, changes=Changes()), AT, Position(99)) is Verdict.VOID
    assert record.phase is P.RUNNING and record.holds_workspace


def test_what_the_first_logs_call_exclusive_locks_its_queue_and_asks_for_approval() -> None:
    old = of_kind("plan_and_apply", lock=Lock.NONE, approval=False, exclusive=True)
    record = new_record(old, AT, Position(1))

    assert record.locks_queue and record.asks_approval


# -- the apply ---------------------------------------------------------------------------------------------------------

CONFIRMED = ApplyConfirmed(task=T, attempt=1, by="bob")
RESERVED = (CONFIRMED,)
APPLYING = (CONFIRMED, assigned(2), TaskStarted(task=T, attempt=2))


def applying(*then: Any) -> TaskRecord:
    return record_in(P.APPLY_PENDING, "plan_and_apply", *then)


def is_planned_again(record: TaskRecord) -> bool:
    return record.phase is P.PENDING and not record.confirmed and record.plan_attempt is None and record.tries == 0


def test_a_confirmed_apply_is_scheduled_and_only_then_takes_its_slot() -> None:
    record = applying(CONFIRMED)
    assert (record.phase, record.confirmed, record.is_reserved) == (P.APPLY_PENDING, True, True)

    assert fold(record, TaskScheduled(task=T, attempt=1), AT, Position(98)) is Verdict.EFFECTIVE
    assert (record.phase, record.held_slot, record.scheduled_at) == (P.SCHEDULED, ("w1", 0), AT)
    assert fold(record, assigned(2), AT, Position(99)) is Verdict.EFFECTIVE
    assert record.phase is P.ASSIGNED


def test_an_apply_of_the_first_logs_takes_its_slot_without_being_scheduled() -> None:
    assert fold(applying(CONFIRMED), assigned(2), AT, Position(99)) is Verdict.EFFECTIVE
    assert fold(applying(), assigned(2), AT, Position(99)) is Verdict.VOID


@pytest.mark.parametrize("attempt", [2, 3])
def test_an_apply_is_scheduled_for_its_own_plan_only(attempt: int) -> None:
    assert fold(applying(CONFIRMED), TaskScheduled(task=T, attempt=attempt), AT, Position(99)) is Verdict.VOID


def test_an_apply_whose_plan_was_lost_meanwhile_is_not_begun_by_what_was_chosen_for_it() -> None:
    record = applying(CONFIRMED, LOST)
    assert is_planned_again(record)

    assert fold(record, TaskScheduled(task=T, attempt=1), AT, Position(99)) is Verdict.VOID
    assert record.phase is P.PENDING


def test_a_plan_that_is_not_confirmed_is_not_scheduled() -> None:
    assert fold(applying(), TaskScheduled(task=T, attempt=1), AT, Position(99)) is Verdict.VOID


def test_what_was_confirmed_does_not_expire_and_may_be_discarded_until_it_is_scheduled() -> None:
    discarded = ApplyDiscarded(task=T, attempt=1, by="bob")
    scheduled = TaskScheduled(task=T, attempt=1)

    assert fold(applying(CONFIRMED), ApprovalExpired(task=T, attempt=1), AT, Position(99)) is Verdict.VOID
    assert fold(applying(CONFIRMED, scheduled), discarded, AT, Position(99)) is Verdict.VOID
    record = applying(CONFIRMED)
    assert fold(record, discarded, AT, Position(99)) is Verdict.EFFECTIVE
    assert record.phase is P.CANCELLED


def test_a_late_success_changes_nothing_of_a_task_that_is_pending() -> None:
    again = AttemptFailed(task=T, attempt=1, error=AGAIN)
    record = record_in(P.RUNNING, "noop", again, max_attempts=2)
    assert record.phase is P.PENDING

    assert fold(record, AttemptSucceeded(task=T, attempt=1), AT, Position(99)) is Verdict.VOID
    assert (record.phase, record.attempt, record.progress) == (P.PENDING, 1, 0)


def test_a_confirmed_apply_waits_on_its_reserved_slot() -> None:
    record = applying(*RESERVED)

    assert record.is_reserved and record.held_slot == ("w1", 0)
    assert fold(record, CONFIRMED, AT, Position(99)) is Verdict.ALREADY
    assert fold(record, assigned(1), AT, Position(99)) is Verdict.VOID
    assert fold(record, TaskReprioritised(task=T, priority=1, by="a"), AT, Position(99)) is Verdict.VOID


def test_a_confirmed_apply_does_not_end_for_not_having_started() -> None:
    record = applying(*RESERVED)
    late = TaskStopRequested(task=T, cause="schedule_to_start", by="auto")

    assert fold(record, late, AT, Position(99)) is Verdict.VOID


def test_an_apply_spends_no_try() -> None:
    assert applying(CONFIRMED, assigned(2)).tries == 1


@pytest.mark.parametrize(
    "ends", [AttemptFailed(task=T, attempt=2, error=AGAIN), AttemptLost(task=T, attempt=2)], ids=["failed", "lost"]
)
def test_an_apply_is_never_repeated(ends: Any) -> None:
    record = applying(*APPLYING)

    fold(record, ends, AT, Position(99))

    assert record.phase is P.FAILED


@pytest.mark.parametrize(
    "make",
    [
        lambda: (applying(*RESERVED), LOST),
        lambda: (applying(), LOST),
        lambda: (
            applying(*APPLYING),
            AttemptFailed(task=T, attempt=2, error=TaskError(code="plan_missing", message="gone")),
        ),
        lambda: (applying(CONFIRMED, assigned(2), LOST), NotDelivered(task=T, attempt=2, reason="declined")),
    ],
    ids=["its worker is lost while it waits", "its worker is lost before", "the plan is gone", "held and declined"],
)
def test_a_lost_plan_is_planned_and_asked_for_again(make: Callable[[], tuple[TaskRecord, Any]]) -> None:
    record, event = make()

    assert fold(record, event, AT, Position(99)) is Verdict.EFFECTIVE
    assert is_planned_again(record)


def test_an_apply_that_was_not_delivered_keeps_its_slot_however_often() -> None:
    record = applying(CONFIRMED)
    for attempt in range(2, 10):
        fold(record, assigned(attempt), AT, Position(90))
        not_delivered = NotDelivered(task=T, attempt=attempt, reason="no responders")
        assert fold(record, not_delivered, AT, Position(91)) is Verdict.EFFECTIVE
        assert (record.phase, record.held_slot, record.confirmed) == (P.APPLY_PENDING, ("w1", 0), True)
    assert record.due == AT + seconds(60)


def test_a_plan_reported_for_an_apply_is_void() -> None:
    record = applying(*APPLYING)

    assert fold(record, TaskPlanned(task=T, attempt=2, changes=Changes()), AT, Position(99)) is Verdict.VOID


def test_a_held_apply_that_is_cancelled_still_holds_everything() -> None:
    record = applying(*APPLYING, LOST, CANCEL)

    assert record.phase is P.STOPPING
    assert record.holds_workspace and record.held_slot == ("w1", 0)


# -- the table of live tasks -------------------------------------------------------------------------------------------


def test_one_worker_event_tells_of_all_its_tasks_in_the_order_of_submission() -> None:
    table, other = TaskTable(), TaskId("01900000-0000-7000-8000-000000000000")
    for position, event in enumerate(
        (
            of_kind("noop"),
            msgspec.structs.replace(of_kind("noop"), task=other),
            TaskScheduled(task=T),
            TaskScheduled(task=other),
            SlotAssigned(task=other, attempt=1, worker="w1", incarnation=1, slot=1),
            assigned(),
        ),
        start=1,
    ):
        table.apply(event, AT, Position(position))

    changes = table.apply(LOST, AT, Position(99))

    assert [change.record.id for change in changes if change.record] == [T, other]
    assert [change.released for change in changes] == [("w1", 0), ("w1", 1)]
    assert table.apply(LOST, AT, Position(100)) == []


def test_a_task_that_has_ended_leaves_the_table_and_its_id_makes_nothing_there() -> None:
    table = TaskTable()
    table.apply(of_kind("noop"), AT, Position(1))
    table.apply(CANCEL, AT, Position(2))

    assert not table.live and not any(table.on_worker.values())
    assert table.apply(CANCEL, AT, Position(3))[0].verdict is Verdict.VOID


def test_the_same_submission_twice_is_void() -> None:
    table = TaskTable()
    table.apply(of_kind("noop"), AT, Position(1))

    assert table.apply(of_kind("noop"), AT, Position(2))[0].verdict is Verdict.VOID
    assert table.live[T].submitted == 1
