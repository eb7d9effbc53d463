"""Whatever strangers send, what a machine decides fits a commit: one that does not fit would stop every leader for ever."""

from collections.abc import Sequence
from typing import Any

import pytest
from machine_story import START, Story, assigned, joined, submitted, task_id
from msgspec import Raw, json
from scheduler_story import Commands

from taskyard.contracts.agent_protocol import REPORT_BATCH_MAX, AnyReport, Failed, Heartbeat, ReportBatch, Started
from taskyard.contracts.commands import COMMAND_BYTES_MAX, TASKS_PER_COMMAND_MAX
from taskyard.contracts.events import (
    AnyEvent,
    AttemptFailed,
    Event,
    SlotAssigned,
    TaskError,
    TaskScheduled,
    TaskSubmitted,
    decode_event,
)
from taskyard.contracts.kind import INPUT_BYTES_MAX
from taskyard.contracts.values import TaskId, make_uuid7
from taskyard.dispatcher.machine import Dispatcher
from taskyard.dispatcher.reports import REPORT_BYTES_READ_MAX, ReportsRead, read_reports
from taskyard.eventlog.commit import COMMIT_BYTES_MAX, Commit, CommitCodec
from taskyard.slot_allocator.liveness import DESCRIPTION_BYTES_MAX, HeartbeatSeen
from taskyard.slot_allocator.machine import SlotAllocator

CODEC: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
COMMIT_BYTES_AIM = COMMIT_BYTES_MAX // 2
"""What machines aim at: the rest is for what only names add."""
TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"
KINDS = ("command", "noop", "plan", "plan_and_apply")


def stored_bytes(events: Sequence[Event]) -> int:
    """How long a commit of these events is; raises where it is too long."""
    return len(CODEC.encode(Commit(writer="w", instance="i", epoch=1, at=START, events=tuple(events))))


def decide_all(story: Story, *inputs: Any) -> list[Event]:
    """Decide until every input is taken, and hold that each commit fits."""
    waiting, chosen = list(inputs), list[Event]()
    while waiting:
        decision = story.decide(*waiting)
        assert decision.taken > 0, "an input that is never taken stops every leader"
        assert stored_bytes(decision.events) <= COMMIT_BYTES_AIM
        waiting = waiting[decision.taken :]
        story.given(*decision.events)
        chosen += decision.events
    return chosen


def test_retries_bring_the_whole_of_their_old_submissions_with_them() -> None:
    story = Commands()
    script = json.encode({"script": "x" * (INPUT_BYTES_MAX - 100)})
    old = [submitted(task_id(number), "command", input=Raw(script)) for number in range(20)]
    fails = [
        AttemptFailed(task=event.task, attempt=1, error=TaskError(code="exit", message="1"), result=Raw(b"1"))
        for event in old
    ]
    story.given(joined(slots=(("any",),) * 20), *old, *(TaskScheduled(task=event.task) for event in old))
    story.given(*(assigned(event.task, slot=slot) for slot, event in enumerate(old)), *fails)

    retries = [story.said("retry", {"task": event.task}, original=event) for event in old]

    chosen = decide_all(story, *retries)
    assert [event.retry_of for event in chosen if isinstance(event, TaskSubmitted)] == [event.task for event in old]


@pytest.mark.parametrize(
    ("traceparent", "kept"),
    [("00-" + "a" * 10_000, None), (TRACEPARENT + "\n", None), (TRACEPARENT, TRACEPARENT)],
    ids=["endless", "with a line break", "one of ours"],
)
def test_the_trace_of_a_command_is_stored_with_each_of_its_tasks(traceparent: str, kept: str | None) -> None:
    story = Commands()
    tasks = [{"id": task_id(number), "kind": "noop", "input": ""} for number in range(TASKS_PER_COMMAND_MAX)]
    padding = (COMMAND_BYTES_MAX - len(json.encode({"tasks": tasks})) - 100) // TASKS_PER_COMMAND_MAX
    for task in tasks:
        task["input"] = "x" * padding

    chosen = decide_all(story, story.said("submit", json.encode({"tasks": tasks}), traceparent=traceparent))

    made = [event for event in chosen if isinstance(event, TaskSubmitted)]
    assert len(made) == TASKS_PER_COMMAND_MAX
    assert {event.traceparent for event in made} == {kept}


def test_a_command_full_of_faults_is_refused_in_one_event_that_fits() -> None:
    story = Commands()
    tasks = [{"kind": "noop", "input": {}, "é" * 60 + str(number): 1} for number in range(TASKS_PER_COMMAND_MAX)]

    (refusal,) = decide_all(story, story.said("submit", json.encode({"tasks": tasks})))

    assert stored_bytes([refusal]) < COMMIT_BYTES_AIM // 4


def running(tasks: Sequence[TaskId]) -> Story:
    story = Story(Dispatcher()).given(joined(slots=(("any",),) * len(tasks)))
    story.given(*(submitted(task) for task in tasks), *(TaskScheduled(task=task) for task in tasks))
    return story.given(*(assigned(task, slot=slot) for slot, task in enumerate(tasks)))


def failed(task: TaskId, result_bytes: int) -> AnyReport:
    error = TaskError(code="exit", message="m" * 200)
    return Failed(task=task, attempt=1, at=START, error=error, result=Raw(b'"%s"' % (b"r" * result_bytes)))


def read(*reports: AnyReport) -> ReportsRead:
    return read_reports("w1", json.encode(ReportBatch(incarnation=1, number=1, reports=reports)))


def test_batches_of_reports_are_decided_in_several_commits() -> None:
    tasks = [task_id(number) for number in range(40)]
    story = running(tasks)

    chosen = decide_all(story, *(read(failed(task, 60_000)) for task in tasks))

    assert [event.task for event in chosen if isinstance(event, AttemptFailed)] == tasks


def test_the_longest_batch_that_is_read_fits_and_a_longer_one_is_passed_over() -> None:
    tasks = [task_id(number) for number in range(2)]
    story = running(tasks)
    fits, longer = read(failed(tasks[0], REPORT_BYTES_READ_MAX - 600)), read(failed(tasks[1], REPORT_BYTES_READ_MAX))

    decision = story.decide(fits, longer)
    assert decision.taken == 1
    stored_bytes(decision.events)
    story.given(*decision.events)

    assert decide_all(story, longer) == []


def test_a_batch_of_the_most_reports_makes_no_more_events_than_fit() -> None:
    tasks = [task_id(number) for number in range(REPORT_BATCH_MAX)]
    story = running(tasks)
    batch = read(*(Started(task=task, attempt=1, at=START) for task in tasks))

    chosen = decide_all(story, *[batch] * 10)

    assert len(chosen) == 2 * len(tasks)  # dispatched and started, once each


def test_workers_that_describe_themselves_at_length_join_in_several_commits() -> None:
    story = Story(SlotAllocator(10.0, 30.0))
    labels = {f"label{number}": "x" * 250 for number in range(230)}
    beats = [
        HeartbeatSeen(
            agent=f"w{number}",
            heartbeat=Heartbeat(incarnation=1, pool="default", slots=(("any",),), kinds=KINDS, labels=labels),
        )
        for number in range(20)
    ]
    assert len(json.encode(beats[0].heartbeat)) < DESCRIPTION_BYTES_MAX

    chosen = decide_all(story, *beats)

    assert len(chosen) == 20


def test_thousands_that_wait_get_their_slots_in_several_commits() -> None:
    story = Story(SlotAllocator(10.0, 30.0))
    story.given(*(joined(f"w{number}", slots=(("any",),) * 500) for number in range(3)))
    tasks = [TaskId(make_uuid7(START, number)) for number in range(1_500)]
    for task in tasks:
        story.given(submitted(task), TaskScheduled(task=task))

    given: list[Event] = []
    while events := story.decide().events:
        assert stored_bytes(events) <= COMMIT_BYTES_AIM
        story.given(*events)
        given += events

    assert [event.task for event in given if isinstance(event, SlotAssigned)] == tasks
