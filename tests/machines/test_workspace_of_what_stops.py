"""A workspace is its holder's until that has ended: also in the very decision that stops the holder."""

import pytest
from machine_story import A, B, assigned, joined, submitted
from scheduler_story import Commands

from taskyard.contracts.events import Changes, TaskPlanned, TaskScheduled, TaskStarted


def two_of_one_workspace() -> Commands:
    """A runs, and B waits for its workspace; there is room for both."""
    story = Commands()
    story.given(
        joined(slots=(("any",), ("any",), ("any",))),
        submitted(A, "plan_and_apply"),
        TaskScheduled(task=A),
        assigned(),
        TaskStarted(task=A, attempt=1),
        submitted(B, "plan_and_apply"),
    )
    return story


@pytest.mark.parametrize(("verb", "body"), [("cancel", {}), ("force-stop", {"reason": "its host is gone"})])
def test_a_decision_that_stops_the_holder_gives_its_workspace_to_nobody(verb: str, body: dict[str, str]) -> None:
    story = two_of_one_workspace()
    decision = story.machine.decide(story.now, [story.said(verb, {"task": A, **body}, "root")])
    assert not [event for event in decision.events if isinstance(event, TaskScheduled)]


def test_so_it_is_where_the_holder_waits_for_an_answer() -> None:
    story = two_of_one_workspace()
    story.given(TaskPlanned(task=A, attempt=1, changes=Changes(add=1)))
    decision = story.machine.decide(story.now, [story.said("cancel", {"task": A}, "root")])
    assert not [event for event in decision.events if isinstance(event, TaskScheduled)]
