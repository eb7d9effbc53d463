"""Healthy attempts: whoever ends one for want of contact or of time is found, unless something had happened to its worker."""

import pytest
from judged import BEGIN, Story, rules

from taskyard.contracts.events import (
    AttemptFailed,
    AttemptLost,
    Event,
    SlotAssigned,
    TaskDispatched,
    TaskError,
    TaskScheduled,
    TaskStopRequested,
    WorkerLost,
)
from taskyard.contracts.values import SECOND
from taskyard.judge.evidence import Ran, Trouble
from taskyard.judge.faults import Rule

BEGUN = BEGIN / SECOND
CODES = ("self_fenced", "worker_stopped", "worker_replaced", "cancelled", "agent_error")
ENDS = len(CODES) + 2


def running(seconds: float = 20.0) -> tuple[Story, str]:
    """A task that has run for so long."""
    story = Story()
    story.join()
    task = story.submit(1, "command")
    story.run(task)
    story.now += seconds
    return story, task


def trouble(worker: str, began: float, ended: float) -> Trouble:
    return Trouble(worker=worker, began=BEGUN + began, ended=BEGUN + ended)


def ends_of(task: str) -> list[Event]:
    failed = [AttemptFailed(task=task, attempt=1, error=TaskError(code=code, message="")) for code in CODES]  # type: ignore[arg-type]
    return [*failed, AttemptLost(task=task, attempt=1), WorkerLost(worker="w", incarnation=1)]  # type: ignore[arg-type]


@pytest.mark.parametrize("number", range(ENDS))
def test_an_attempt_that_is_ended_though_nothing_happened_is_found(number: int) -> None:
    story, task = running()
    story.tell(ends_of(task)[number])
    assert rules(story.judged(troubles=[])) == {Rule.HEALTHY}
    assert rules(story.judged(troubles=[trouble("another", 0, 60)])) == {Rule.HEALTHY}


@pytest.mark.parametrize("number", range(ENDS))
def test_what_something_happened_to_is_not_nor_is_anything_where_nobody_noted_it(number: int) -> None:
    story, task = running()
    story.tell(ends_of(task)[number])
    assert not story.judged(troubles=[trouble("w", 5, 15)]).faults
    assert not story.judged(troubles=None).faults


def test_what_happened_long_before_the_attempt_is_no_excuse() -> None:
    story, task = running(60.0)
    story.tell(AttemptLost(task=task, attempt=1))  # type: ignore[arg-type]
    assert rules(story.judged(troubles=[trouble("w", -60, -50)])) == {Rule.HEALTHY}


def test_an_attempt_that_fails_by_itself_is_no_ones_fault() -> None:
    story, task = running()
    story.tell(AttemptFailed(task=task, attempt=1, error=TaskError(code="exit_status", message="")))  # type: ignore[arg-type]
    assert not story.judged(troubles=[]).faults


def test_a_program_that_ended_in_time_and_is_told_to_have_timed_out_is_found() -> None:
    story = Story()
    story.join()
    task = story.submit(1, "command", timeout_seconds=30.0)
    position = story.run(task)
    began = BEGUN + story.now
    ran = Ran(
        host="w",
        slot=0,
        position=position,
        task=task,
        attempt=1,
        kind="command",
        apply=False,
        began=began,
        ended=began + 5,
    )
    story.now += 40
    story.tell(TaskStopRequested(task=task, cause="timeout", by="dispatcher", attempt=1))
    assert Rule.HEALTHY in rules(story.judged(troubles=[], ran=[ran]))
    late = Ran(
        host="w",
        slot=0,
        position=position,
        task=task,
        attempt=1,
        kind="command",
        apply=False,
        began=began,
        ended=began + 39,
    )
    assert Rule.HEALTHY not in rules(story.judged(troubles=[], ran=[late]))


def test_an_attempt_that_its_worker_ends_after_somebody_asked_for_it_is_no_ones_fault() -> None:
    story, task = running()
    story.tell(TaskStopRequested(task=task, cause="cancel", by="root", attempt=1))
    story.tell(AttemptFailed(task=task, attempt=1, error=TaskError(code="cancelled", message="")))  # type: ignore[arg-type]
    assert not story.judged(troubles=[]).faults


def test_an_attempt_that_its_worker_took_and_lost_before_it_began_was_healthy() -> None:
    story = Story()
    story.join()
    task = story.submit(1, "command")
    story.tell(TaskScheduled(task=task))  # type: ignore[arg-type]
    story.tell(SlotAssigned(task=task, attempt=1, worker="w", incarnation=1, slot=0))  # type: ignore[arg-type]
    story.tell(TaskDispatched(task=task, attempt=1))  # type: ignore[arg-type]
    story.tell(AttemptLost(task=task, attempt=1))  # type: ignore[arg-type]
    assert Rule.HEALTHY in rules(story.judged(troubles=[]))
