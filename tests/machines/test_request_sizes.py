"""What is assigned to one worker at once goes in requests that a server takes, however long the inputs are."""

import msgspec
import pytest
from machine_story import Story, assigned, joined, submitted, task_id
from msgspec import Raw

from taskyard.contracts.agent_protocol import AssignRequest, Seen
from taskyard.contracts.events import TaskScheduled, TaskStopRequested
from taskyard.contracts.kind import INPUT_BYTES_MAX
from taskyard.contracts.lifecycle import TaskRecord
from taskyard.dispatcher import delivery
from taskyard.dispatcher.delivery import SendAssignments, SendCancels
from taskyard.dispatcher.machine import Dispatcher
from taskyard.machine.machine import Fault

MESSAGE_BYTES_MAX = 1 << 20
"""What a server of NATS takes as it is set up by default."""


def assigned_at_once(count: int, input_bytes: int) -> Story:
    """A worker with so many slots gets so many tasks with such inputs in one moment."""
    story = Story(Dispatcher())
    text = msgspec.json.encode({"script": "x" * (input_bytes - len('{"script":""}'))})
    story.given(joined(slots=(("any",),) * count))
    for number in range(count):
        task = task_id(number + 1)
        story.given(submitted(task, "command", input=Raw(text)), TaskScheduled(task=task), assigned(task, slot=number))
    return story


@pytest.mark.parametrize(("count", "input_bytes"), [(30, 60_000), (64, INPUT_BYTES_MAX), (500, 2_000)])
def test_no_request_is_larger_than_a_message_may_be_and_every_assignment_is_sent(count: int, input_bytes: int) -> None:
    sent = [one for one in assigned_at_once(count, input_bytes).effects() if isinstance(one, SendAssignments)]
    sizes = [len(msgspec.json.encode(AssignRequest(incarnation=1, assignments=one.assignments))) for one in sent]
    assert max(sizes) < MESSAGE_BYTES_MAX
    assert sorted(each.slot for one in sent for each in one.assignments) == list(range(count))


def test_short_ones_still_go_together() -> None:
    assert len(assigned_at_once(100, 200).effects()) == 1


def test_so_it_is_with_what_is_stopped() -> None:
    story = assigned_at_once(450, 20)
    story.effects()
    story.given(*(TaskStopRequested(task=task_id(number + 1), cause="cancel", by="alice") for number in range(450)))
    sent = [one for one in story.effects() if isinstance(one, SendCancels)]
    assert sum(len(one.cancels) for one in sent) == 450
    assert all(len(msgspec.json.encode(one.cancels)) < MESSAGE_BYTES_MAX for one in sent)


def test_one_task_of_which_no_message_can_be_made_stands_aside_and_all_others_are_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = assigned_at_once(5, 200)
    make = delivery._seen  # pyright: ignore[reportPrivateUsage]

    def touchy(record: TaskRecord) -> Seen:
        if record.slot == 2:
            raise ZeroDivisionError("a bug")
        return make(record)

    monkeypatch.setattr(delivery, "_seen", touchy)
    sent = story.effects()

    assert [each.slot for one in sent if isinstance(one, SendAssignments) for each in one.assignments] == [0, 1, 3, 4]
    (fault,) = [one for one in sent if isinstance(one, Fault)]
    assert fault.reference == f"assignment of task {task_id(3)}" and isinstance(fault.error, ZeroDivisionError)
    monkeypatch.undo()
    again = story.after(delivery.RESEND_STOP_SECONDS).effects()
    assert {each.slot for one in again if isinstance(one, SendAssignments) for each in one.assignments} == set(range(5))
