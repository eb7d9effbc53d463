"""Failures of the product that the simulator found, each by itself. Most of their causes are defects that `test_defects.py`
puts back, and some seed shows again; the others show themselves too rarely for that.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from taskyard.contracts.agent_protocol import (
    DECLINED,
    REASON_NO_KIND,
    REASON_NO_SLOT,
    AssignAnswer,
    Failed,
    ReportBatch,
)
from taskyard.contracts.events import (
    NO_RESPONDERS,
    AnyEvent,
    ApplyConfirmed,
    AttemptFailed,
    Changes,
    Event,
    NotDelivered,
    QueueLocked,
    SlotAssigned,
    TaskDispatched,
    TaskError,
    TaskPlanned,
    TaskScheduled,
    TaskStarted,
    TaskStopRequested,
    TaskSubmitted,
    WorkerDrainRequested,
    WorkerJoined,
    WorkerLost,
    decode_event,
)
from taskyard.contracts.fleet import GONE_KEPT_MAX, Fleet
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.lifecycle import Phase
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import SECOND, Instant, Role, TaskId, make_position, make_uuid7
from taskyard.dispatcher.decide import Answered, NobodyListened
from taskyard.dispatcher.delivery import SendAssignments, SendCancels
from taskyard.dispatcher.machine import Dispatcher
from taskyard.dispatcher.reports import ReportsRead
from taskyard.eventlog.commit import Commit, CommitCodec, StoredCommit
from taskyard.machine.core import LoopCore
from taskyard.machine.core import Role as LoopRole
from taskyard.scheduler.machine import Scheduler
from taskyard.scheduler.messages import CommandMessage

TASK = TaskId("01a3185c-52dd-7ce5-85c6-5b2fc1658618")
AT = Instant(1_800_000_000 * SECOND)


def test_now_never_goes_back_when_the_own_clock_was_ahead_of_the_logs() -> None:
    codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
    core = LoopCore(Dispatcher(), codec, "one")
    core.fold(_stored(1, AT), 100.0)
    ahead = core.now(110.0)
    core.fold(_stored(2, Instant(ahead - SECOND)), 110.0)
    assert core.now(110.0) == ahead
    assert core.now(112.0) == ahead + SECOND


def test_a_leader_that_begins_with_a_snapshot_takes_no_uptime_for_time_that_passed() -> None:
    codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
    before = LoopCore(Dispatcher(), codec, "one")
    before.fold(_stored(1, AT), 100.0)
    after = LoopCore(Dispatcher(), codec, "two")
    after.restore(before.saved(), 5_000_000.0)
    assert after.now(5_000_001.0) == AT + SECOND


def test_a_task_has_all_its_time_when_the_clock_of_the_log_was_set_back() -> None:
    codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
    core = LoopCore(Dispatcher(), codec, "one")
    core.take_over(0.0)
    core.appended(1)
    core.fold(_stored(1, AT, writer="dispatcher"), 0.0)
    assert core.role is LoopRole.LEADER
    assert core.decide(3600.0) is None  # nothing happened for an hour
    events = (*_assigned(), TaskStarted(task=TASK, attempt=1, at=AT))  # stored as if only a second had passed
    core.fold(_stored(2, Instant(AT + SECOND), *events), 3600.0)
    assert core.decide(3601.0) is None
    assert core.decide(3600.0 + 63.0) is None
    core.inputs_read(core.now(3600.0 + 63.0))
    later = core.decide(3600.0 + 63.0)
    assert later is not None
    assert [type(event) for event in codec.decode(later.data).events] == [TaskStopRequested]


def test_an_apply_is_not_offered_for_ever_to_a_worker_that_no_longer_runs_its_kind() -> None:
    table = TaskTable()
    for index, event in enumerate((*_assigned("plan_and_apply"), *_planned_and_confirmed())):
        table.apply(event, AT, make_position(1, index))
    assert table.live[TASK].is_reserved
    table.apply(_joined(2, kinds=("plan",)), AT, make_position(2, 0))
    assert table.live[TASK].phase is Phase.PENDING
    assert not table.live[TASK].confirmed


def test_a_drained_worker_that_was_lost_and_comes_back_as_it_was_is_still_drained() -> None:
    fleet = Fleet()
    drain = WorkerDrainRequested(pool="default", worker="w", by="alice")
    for event in (_joined(1), drain, WorkerLost(worker="w", incarnation=1, reason="silent"), _joined(1)):
        fleet.apply(event, ())
    assert fleet.workers["w"].is_draining
    assert not _idle_for_plans(fleet)
    fleet.apply(_joined(2), ())
    assert _idle_for_plans(fleet) == 1


def test_a_drain_that_stands_behind_the_loss_of_its_worker_has_no_effect() -> None:
    """Whether or not the worker still holds slots: some who fold have forgotten it by then."""
    drain = WorkerDrainRequested(pool="default", worker="w", by="alice")
    for busy in ({}, {0: TASK}):
        fleet = Fleet()
        fleet.apply(_joined(1), ())
        fleet.workers["w"].busy.update(busy)
        for event in (WorkerLost(worker="w", incarnation=1, reason="silent"), drain, _joined(1)):
            fleet.apply(event, ())
        assert not fleet.workers["w"].is_draining


def test_of_drained_workers_that_are_gone_only_so_many_are_remembered() -> None:
    fleet = Fleet()
    for number in range(GONE_KEPT_MAX + 3):
        name = f"w{number}"
        fleet.apply(_joined(1, name=name), ())
        fleet.apply(WorkerDrainRequested(pool="default", worker=name, by="alice"), ())
        fleet.apply(WorkerLost(worker=name, incarnation=1, reason="left"), ())
    assert len(fleet.workers) == GONE_KEPT_MAX
    assert "w0" not in fleet.workers


def test_the_end_of_an_earlier_attempt_is_told_once_however_often_it_is_reported() -> None:
    error = TaskError(code="exit_status", message="failed", retryable=True)
    again = (WorkerLost(worker="w", incarnation=1, reason="silent"), _joined(1), TaskScheduled(task=TASK), _slot(2))
    machine = _leading(*_assigned(), *again)
    told = machine.decide(AT, [_reported(1, error)]).events
    assert [(type(event), event.attempt) for event in told] == [(AttemptFailed, 1)]
    machine.apply(told[0], AT, make_position(2, 0))
    assert machine.decide(AT, [_reported(1, error)]).events == []


def test_a_cancelled_task_whose_only_assignment_nobody_heard_ends_though_its_worker_is_gone() -> None:
    machine = _leading(*_assigned("plan_and_apply"))
    (sent,) = machine.effects(AT)
    assert isinstance(sent, SendAssignments)
    machine.apply(_cancel(), AT, make_position(2, 0))
    assert machine.decide(AT, [NobodyListened(request=sent)]).events == [
        NotDelivered(task=TASK, attempt=1, reason=NO_RESPONDERS)
    ]


def test_a_task_that_was_cancelled_before_anything_was_sent_ends_when_nobody_hears_the_stop() -> None:
    machine = _leading(*_assigned("plan_and_apply"))
    machine.apply(_cancel(), AT, make_position(2, 0))
    (sent,) = machine.effects(AT)
    assert isinstance(sent, SendCancels)
    told = machine.decide(AT, [NobodyListened(request=sent)]).events
    assert [type(event) for event in told] == [NotDelivered]


def test_that_nobody_hears_a_stop_proves_nothing_once_the_assignment_was_sent() -> None:
    machine = _leading(*_assigned("plan_and_apply"))
    machine.effects(AT)
    machine.apply(_cancel(), AT, make_position(2, 0))
    (sent,) = machine.effects(AT)
    assert machine.decide(AT, [NobodyListened(request=sent)]).events == []


def test_what_is_told_of_an_earlier_incarnation_does_not_settle_the_question_to_the_new_one() -> None:
    machine = _leading(*_assigned())
    assert _asked(machine, AT) == [1]
    machine.apply(_joined(2), AT, make_position(2, 0))
    machine.apply(TaskDispatched(task=TASK, attempt=1), AT, make_position(3, 0))  # of the incarnation that is gone
    assert _asked(machine, Instant(AT + 5 * SECOND)) == [2]


@pytest.mark.parametrize("reason", [REASON_NO_SLOT, REASON_NO_KIND])
def test_an_apply_that_was_sent_to_a_worker_that_came_back_without_its_slot_is_planned_again(reason: str) -> None:
    machine = _leading(*_assigned("plan_and_apply"), *_planned_and_confirmed(), _slot(2), _joined(2))
    (sent,) = machine.effects(AT)
    assert isinstance(sent, SendAssignments)
    answer = AssignAnswer(position=sent.assignments[0].position, outcome=DECLINED, reason=reason)
    (told,) = machine.decide(AT, [Answered(request=sent, answers=(answer,))]).events
    machine.apply(told, AT, make_position(2, 0))
    record = machine.state.tasks.live[TASK]
    assert (record.phase, record.confirmed, record.held_slot) == (Phase.PENDING, False, None)


def test_a_command_that_is_ahead_of_a_log_whose_clock_was_set_back_is_decided_once() -> None:
    stored_at = Instant(AT + 3600 * SECOND)  # the clock was right again when it was decided
    body = {"id": make_uuid7(stored_at, 1), "queue": "q", "create": True, "reason": "maintenance"}
    first = CommandMessage(
        sequence=1, at=stored_at, principal="alice", pool="default", verb="lock", data=msgspec.json.encode(body)
    )
    machine = Scheduler({"alice": Role.ADMIN})
    machine.lead(AT)
    told = machine.decide(AT, [first]).events
    assert [type(event) for event in told] == [QueueLocked]
    machine.apply(told[0], AT, make_position(2, 0))
    assert machine.decide(AT, [msgspec.structs.replace(first, sequence=2)]).events == []


def _asked(machine: Dispatcher, now: Instant) -> list[int]:
    return [effect.incarnation for effect in machine.effects(now) if isinstance(effect, SendAssignments)]


def _leading(*events: Any) -> Dispatcher:
    machine = Dispatcher()
    machine.lead(AT)
    for index, event in enumerate(events):
        machine.apply(event, AT, make_position(1, index))
    return machine


def _assigned(kind: str = "plan") -> Sequence[Any]:
    submitted = TaskSubmitted(
        task=TASK,
        kind=kind,
        pool="default",
        queue="q",
        by="bob",
        input=Raw(b"{}"),
        digest="d",
        timeout_seconds=60,
        max_attempts=3,
        lock=KINDS[kind].lock,
        approval=KINDS[kind].approval,
    )
    return (_joined(1), submitted, TaskScheduled(task=TASK), _slot(1))


def _slot(attempt: int) -> SlotAssigned:
    return SlotAssigned(task=TASK, attempt=attempt, worker="w", incarnation=1, slot=0)


def _planned_and_confirmed() -> Sequence[Any]:
    planned = TaskPlanned(task=TASK, attempt=1, changes=Changes())
    return (planned, ApplyConfirmed(task=TASK, attempt=1, by="alice"))


def _cancel() -> TaskStopRequested:
    return TaskStopRequested(task=TASK, cause="cancel", by="bob")


def _reported(attempt: int, error: TaskError) -> ReportsRead:
    batch = ReportBatch(incarnation=1, number=1, reports=(Failed(task=TASK, attempt=attempt, at=AT, error=error),))
    return ReportsRead(agent="w", batch=batch, size=100)


def _joined(incarnation: int, *, name: str = "w", kinds: tuple[str, ...] = ("plan", "plan_and_apply")) -> WorkerJoined:
    return WorkerJoined(worker=name, incarnation=incarnation, pool="default", slots=(("any",),), kinds=kinds)


def _idle_for_plans(fleet: Fleet) -> int:
    return sum(count for accepts, count in fleet.idle.get("default", {}).items() if "plan" in accepts)


def _stored(sequence: int, at: Instant, *events: Event, writer: str = "scheduler") -> StoredCommit[Any]:
    commit: Commit[Any] = Commit(writer=writer, instance="one", epoch=1, at=at, events=events)
    return StoredCommit(sequence=sequence, at=at, commit=commit, hash=str(sequence))
