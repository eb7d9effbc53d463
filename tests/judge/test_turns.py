"""The judge's rules of turns and of what doors are told, each broken on purpose."""

from collections.abc import Callable

import msgspec
import pytest
from judged import BEGIN, Story, rules, task_id

from taskyard.contracts.events import (
    ApplyConfirmed,
    Changes,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    QueueUnlocked,
    StreamMark,
    TaskPlanned,
    TaskReprioritised,
    TaskScheduled,
    TaskStopRequested,
    WorkerDrainRequested,
    WorkerLost,
)
from taskyard.contracts.values import CommandId, TaskId, make_uuid7
from taskyard.judge.evidence import Asked, Told
from taskyard.judge.faults import Rule

PAUSED = QueuePaused(pool="default", queue="q", by="alice")
RESUMED = QueueResumed(pool="default", queue="q", by="alice")
COMMAND, OTHER = CommandId(make_uuid7(BEGIN, 99)), CommandId(make_uuid7(BEGIN, 98))


def _pause_queue(story: Story) -> None:
    story.tell(PAUSED)


def _pause_pool(story: Story) -> None:
    story.tell(QueuePaused(pool="default", by="alice"))


def _lock(story: Story) -> None:
    story.tell(QueueLocked(pool="default", queue="q", by="alice"))


def _limit(story: Story) -> None:
    story.tell(QueueConfigured(pool="default", queue="q", by="alice", max_running=1))
    story.tell(TaskScheduled(task=story.submit(1, "noop")))


@pytest.mark.parametrize("close", [_pause_queue, _pause_pool, _lock, _limit])
def test_what_is_scheduled_against_a_setting_is_found(close: Callable[[Story], None]) -> None:
    story = Story()
    story.join()
    task = story.submit(2, "noop")
    close(story)
    story.tell(TaskScheduled(task=task))
    assert rules(story.judged()) == {Rule.TURN}


def test_what_is_scheduled_after_a_setting_has_ended_is_not() -> None:
    story = Story()
    story.tell(PAUSED, QueueLocked(pool="default", queue="q", by="alice"), RESUMED)
    story.tell(QueueUnlocked(pool="default", queue="q", by="alice"))
    story.tell(TaskScheduled(task=story.submit(1, "noop")))
    assert not story.judged().faults


def test_what_is_scheduled_before_its_turn_is_found() -> None:
    story = Story()
    first, second = story.submit(1, "noop"), story.submit(2, "noop")
    story.tell(TaskScheduled(task=second))
    assert rules(story.judged()) == {Rule.TURN}
    fair = Story()
    fair.submit(1, "noop")
    fair.submit(2, "noop")
    fair.tell(TaskReprioritised(task=second, priority=1, by="alice"), TaskScheduled(task=second))
    fair.tell(TaskScheduled(task=first))
    assert not fair.judged().faults


@pytest.mark.parametrize(("incarnation", "found"), [(1, {Rule.TURN}), (2, set[Rule]())])
def test_a_drained_worker_that_gets_a_task_is_found_until_it_is_another(incarnation: int, found: set[Rule]) -> None:
    story = Story()
    story.join()
    story.tell(WorkerDrainRequested(pool="default", worker="w", by="alice"))
    story.tell(WorkerLost(worker="w", incarnation=1, reason="silent"))
    story.join(incarnation=incarnation)
    task = story.submit(1, "noop")
    story.tell(TaskScheduled(task=task))
    story.assign(task, incarnation=incarnation)
    assert rules(story.judged()) == found


@pytest.mark.parametrize("code", [202, 409])
def test_a_door_that_is_told_another_verdict_than_the_logs_is_found(code: int) -> None:
    story = Story()
    task = story.submit(1, "noop")
    effective = story.tell(_cancel(task, COMMAND))
    void = story.tell(TaskReprioritised(task=task, priority=1, by="bob", command=OTHER))
    told = [Told(command=COMMAND, code=code, task=task, position=effective if code == 409 else void)]
    assert rules(story.judged(told=told)) == {Rule.ANSWERS}


def test_a_repeated_stop_is_granted_and_may_be_told_so() -> None:
    story = Story()
    task = story.submit(1, "noop")
    told = [Told(command=id, code=202, task=task, position=story.tell(_cancel(task, id))) for id in (COMMAND, OTHER)]
    assert not story.judged(told=told).faults


def _cancel(task: TaskId, command: CommandId) -> TaskStopRequested:
    return TaskStopRequested(task=task, cause="cancel", by="bob", command=command)


@pytest.mark.parametrize(("sequence", "found"), [(7, {Rule.CONFIRMATION}), (8, set[Rule]())])
def test_an_answer_that_is_older_than_the_plan_that_it_confirms_is_found(sequence: int, found: set[Rule]) -> None:
    story = Story()
    story.join()
    task = story.submit(1, "plan_and_apply")
    story.run(task)
    before = StreamMark(stream="TASKYARD_COMMANDS", sequence=7)
    story.tell(TaskPlanned(task=task, attempt=1, changes=Changes(), commands_before=before))
    story.commit("scheduler", ApplyConfirmed(task=task, attempt=1, by="bob", command=COMMAND), cursors=_reads(sequence))
    data = msgspec.json.encode({"id": COMMAND, "task": task_id(1)})
    asked = Asked(sequence=sequence, verb="confirm", data=data)
    assert rules(story.judged(asked=[asked])) == found


def _reads(sequence: int) -> dict[str, int]:
    return {"TASKYARD_COMMANDS": sequence}


# -- applies and workspaces --------------------------------------------------------------------------------------------


def confirmed() -> tuple[Story, TaskId]:
    story = Story()
    story.join()
    task = story.submit(1, "plan_and_apply")
    story.run(task)
    story.tell(TaskPlanned(task=task, attempt=1, changes=Changes()), ApplyConfirmed(task=task, attempt=1, by="bob"))
    return story, task


@pytest.mark.parametrize("close", [_pause_queue, _pause_pool, _lock])
def test_an_apply_that_is_scheduled_or_begun_against_a_pause_or_lock_is_found(close: Callable[[Story], None]) -> None:
    for begin in ("scheduled", "assigned"):
        story, task = confirmed()
        close(story)
        if begin == "scheduled":
            story.tell(TaskScheduled(task=task, attempt=1))
        story.assign(task, attempt=2)
        assert rules(story.judged()) == {Rule.TURN}


def test_an_apply_that_is_scheduled_when_nothing_holds_it_back_is_not() -> None:
    story, task = confirmed()
    story.tell(PAUSED, RESUMED, TaskScheduled(task=task, attempt=1))
    story.assign(task, attempt=2)
    assert not rules(story.judged())


def test_one_workspace_that_two_tasks_of_two_pools_have_at_once_is_found() -> None:
    story, _ = confirmed()
    story.tell(TaskScheduled(task=story.submit(2, "plan_and_apply", pool="west")))
    assert rules(story.judged()) == {Rule.WORKSPACE}


def test_a_lock_through_one_pool_that_another_pools_run_does_not_mind_is_found_and_other_kinds_need_not() -> None:
    for kind, broken in (("plan_and_apply", {Rule.TURN}), ("noop", set[str]())):
        story = Story()
        story.join()
        task = story.submit(1, kind, pool="west")
        _lock(story)
        story.tell(TaskScheduled(task=task))
        assert rules(story.judged()) == broken
