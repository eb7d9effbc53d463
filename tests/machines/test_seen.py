"""An assignment says how far the log has seen its attempt, so that an agent whose journal was put back begins nothing twice."""

import pytest
from machine_story import A, Story, assigned, joined, submitted

from taskyard.contracts.events import TaskDispatched, TaskScheduled, TaskStarted, WorkerJoined, WorkerLost
from taskyard.dispatcher.delivery import SendAssignments
from taskyard.dispatcher.machine import Dispatcher


def asked_of_a_new_run(*events: TaskDispatched | TaskStarted | WorkerLost) -> str:
    """How far the log has seen task A, as the assignment says that is sent to the next run of its agent."""
    story = Story(Dispatcher())
    story.given(joined(), submitted(A, "plan_and_apply"), TaskScheduled(task=A), assigned(), *events)
    story.effects()
    again: WorkerJoined = joined(incarnation=2)
    story.given(again)
    (sent,) = (one for one in story.effects() if isinstance(one, SendAssignments))
    return sent.assignments[0].seen


@pytest.mark.parametrize(
    ("events", "seen"),
    [
        ((), "new"),
        ((TaskDispatched(task=A, attempt=1),), "accepted"),
        ((TaskStarted(task=A, attempt=1),), "started"),
        ((TaskStarted(task=A, attempt=1), WorkerLost(worker="w1", incarnation=1)), "started"),
    ],
)
def test_an_assignment_says_how_far_the_log_has_seen_its_attempt(
    events: tuple[TaskDispatched | TaskStarted | WorkerLost, ...], seen: str
) -> None:
    assert asked_of_a_new_run(*events) == seen
