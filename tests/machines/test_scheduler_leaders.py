"""A new leader of the scheduler, from a snapshot or from the whole log, decides as the old one would have."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from machine_story import A, B, C, Story, assigned, joined, submitted, task_id
from scheduler_story import Commands

from taskyard.contracts.events import (
    AttemptFailed,
    AttemptSucceeded,
    Changes,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    QueueUnlocked,
    TaskError,
    TaskPlanned,
    TaskReprioritised,
    TaskScheduled,
)

SUCCESSORS = [pytest.param(Story.successor, id="snapshot"), pytest.param(Story.refolded, id="whole log")]


def full() -> Commands:
    """Something of everything: plans that wait, delays, limits, pauses, retries, places that were changed."""
    story = Commands().given(
        joined(slots=(("any",),) * 6), QueueConfigured(pool="default", queue="x", by="r", max_running=2)
    )
    randomly = random.Random(7)
    for number in range(10, 60):
        kind = randomly.choice(["noop", "command", "plan", "plan_and_apply"])
        queue = randomly.choice(["x", "y", "z", "network"])
        delay = randomly.choice([None, None, story.now + 5_000_000])
        priority = randomly.randint(1, 10)
        story.given(submitted(task_id(number), kind, queue=queue, priority=priority, not_before=delay))
    story.given(QueuePaused(pool="default", queue="z", by="r"))
    story.given(*(TaskReprioritised(task=task_id(n), priority=n % 10 + 1, by="r") for n in range(10, 60, 3)))
    story.given(submitted(A, "plan_and_apply", queue="w"), TaskScheduled(task=A), assigned(A))
    story.given(TaskPlanned(task=A, attempt=1, changes=Changes()))
    story.given(submitted(B), TaskScheduled(task=B), assigned(B, slot=1))
    story.given(AttemptFailed(task=B, attempt=1, error=TaskError(code="e", message="", retryable=True)))
    return story


@pytest.mark.parametrize("succeed", SUCCESSORS)
def test_a_new_leader_decides_the_same(succeed: Callable[[Story], Story]) -> None:
    story = full()
    successor = succeed(story)

    for moment in range(8):
        slot, attempt = moment % 5 + 1, 1
        for each in (story, successor):
            each.after(1).when()
        assert successor.chosen == story.chosen
        done = next((event.task for event in story.chosen if isinstance(event, TaskScheduled)), None)
        if done is None:
            continue
        attempt = story.record(done).attempt + 1
        for each in (story, successor):
            each.given(assigned(done, attempt, slot=slot), AttemptSucceeded(task=done, attempt=attempt))
    assert successor.log == story.log


@pytest.mark.parametrize("succeed", SUCCESSORS)
def test_a_new_leader_remembers_ids_and_outcomes(succeed: Callable[[Story], Story]) -> None:
    story = Commands()
    cancel = story.said("cancel", {"id": story.command_id(1), "task": A})
    story.when(story.submit(1))
    story.when(cancel)
    successor = succeed(story)

    successor.when(story.submit(1), cancel).then_nothing()

    told = [
        answer.code for effect in successor.effects() for outcome in effect.batch.outcomes for answer in outcome.answers
    ]
    assert told == [202, 202]


def test_a_snapshot_of_a_snapshot_is_the_same() -> None:
    story = full()

    assert story.successor().machine.snapshot() == story.machine.snapshot()
    assert story.refolded().machine.snapshot() == story.machine.snapshot()


def test_a_queue_is_known_for_as_long_as_there_is_something_to_know_about_it() -> None:
    """Names of queues are people's to choose, and there is no end to them."""
    here: dict[str, Any] = {"pool": "default", "queue": "x", "by": "r"}
    story = Commands()
    for begin, end in (
        (QueueConfigured(**here, max_running=2), QueueConfigured(**here, max_running=0)),
        (QueuePaused(**here), QueueResumed(**here)),
        (QueueLocked(**here), QueueUnlocked(**here)),
    ):
        assert story.given(begin).machine.state.queues.keys() == {("default", "x")}
        assert story.given(end).machine.state.queues == {}


def test_a_leader_that_stood_by_in_between_decides_as_if_it_had_not() -> None:
    story = full()
    successor = story.successor()

    story.machine.stand_by()
    story.given(submitted(C, priority=1))
    story.machine.lead(story.now)
    successor.given(submitted(C, priority=1))

    assert story.when().chosen == successor.when().chosen != []
