"""One trace shows a task through all services; switched off, there is nobody who could tell one."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode
from telemetry_world import WORKER, World, until

from taskyard.api.principals import Caller
from taskyard.api.submission import HTTP_LIMITS
from taskyard.contracts.events import AttemptFailed, AttemptSucceeded
from taskyard.contracts.values import Role, parse_position
from taskyard.telemetry.context import parse_traceparent, trace_of, valid_traceparent
from taskyard.telemetry.task_spans import TaskSpans

ADMIN = Caller(name="admin", role=Role.ADMIN)
GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NAMES = {
    "command.submit": "taskyard-api",
    "task": "taskyard-scheduler",
    "task.queued": "taskyard-scheduler",
    "task.placed": "taskyard-slot_allocator",
    "task.dispatched": "taskyard-dispatcher",
    "task.attempt": "taskyard-dispatcher",
    "agent.run": "taskyard-agent",
}


def in_world(story: Callable[[World], Awaitable[None]], *, is_traced: bool = True) -> World:
    world = World(is_traced=is_traced)

    async def run() -> None:
        async with world.running():
            await story(world)

    asyncio.run(run())
    return world


async def submit(world: World, *, argv: str = "true", traceparent: str | None = None) -> str:
    body = msgspec.json.encode({"kind": "command", "input": {"argv": [argv]}})
    reply = await world.door.submit(ADMIN, body, pool=None, limits=HTTP_LIMITS, traceparent=traceparent)
    assert reply.code == 202
    return reply.body.id


def finished(world: World) -> bool:
    return sum(world.task_counts.ended.values()) > 0


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def test_a_task_with_a_trace_context_is_one_trace_through_every_service() -> None:
    task = ""

    async def story(world: World) -> None:
        nonlocal task
        task = await submit(world, traceparent=GIVEN)
        await until(lambda: finished(world))

    spans = in_world(story).spans
    assert {name: span.resource.attributes["service.name"] for name, span in spans.items()} == NAMES
    assert {span.context.trace_id for span in spans.values()} == {0x0AF7651916CD43DD8448EB211C80319C}
    ids = {name: span.context.span_id for name, span in spans.items()}
    assert len(set(ids.values())) == len(NAMES)
    parents = {name: parent_of(span) for name, span in spans.items()}
    assert parents == {
        "command.submit": 0xB7AD6B7169203331,
        "task": ids["command.submit"],
        "task.queued": ids["task"],
        "task.placed": ids["task"],
        "task.dispatched": ids["task"],
        "task.attempt": ids["task"],
        "agent.run": ids["task.attempt"],
    }
    assert {span.attributes["taskyard.task"] for span in spans.values()} == {task}


def test_spans_bear_log_times_and_positions_that_follow_each_other() -> None:
    async def story(world: World) -> None:
        await submit(world)
        await until(lambda: finished(world))

    spans = in_world(story).spans
    life = spans["task"]
    steps = [spans[name] for name in ("task.queued", "task.placed", "task.dispatched", "task.attempt")]
    assert life.start_time == steps[0].start_time
    for before, after in pairwise(steps):
        assert before.end_time <= after.start_time or before.name == "task.dispatched"
        positions = [parse_position(step.attributes["taskyard.position"]) for step in (before, after)]
        assert positions == sorted(positions)
    assert life.end_time == steps[-1].end_time
    attempt = spans["task.attempt"].attributes
    assert (attempt["taskyard.worker"], attempt["taskyard.slot"], attempt["taskyard.attempt"]) == (WORKER, 0, 1)
    assert (attempt["taskyard.kind"], attempt["taskyard.pool"]) == ("command", "default")
    assert (attempt["taskyard.queue"], attempt["taskyard.outcome"]) == ("default", "succeeded")
    assert life.attributes["taskyard.status"] == "completed"


def test_a_task_without_a_trace_context_is_a_trace_of_its_own() -> None:
    task = ""

    async def story(world: World) -> None:
        nonlocal task
        task = await submit(world, traceparent="00-this-is-none")
        await until(lambda: finished(world))

    spans = in_world(story).spans
    assert spans.keys() == NAMES.keys()
    assert {span.context.trace_id for span in spans.values()} == {int(task.replace("-", ""), 16)}
    assert parent_of(spans["task"]) is None
    assert parent_of(spans["command.submit"]) == spans["task"].context.span_id


def test_a_failed_attempt_is_an_error_with_its_code() -> None:
    async def story(world: World) -> None:
        await submit(world, argv="false")
        await until(lambda: finished(world))

    spans = in_world(story).spans
    for name in ("task", "task.attempt", "agent.run"):
        assert spans[name].status.status_code is StatusCode.ERROR
        assert spans[name].attributes["error.type"] == "exit_status"
    assert spans["task.attempt"].attributes["taskyard.outcome"] == "failed"
    assert spans["task.placed"].status.status_code is StatusCode.UNSET


def test_a_trace_that_is_not_sampled_is_not_told() -> None:
    async def story(world: World) -> None:
        await submit(world, traceparent=GIVEN[:-1] + "0")
        await until(lambda: finished(world))

    assert not in_world(story).spans


def test_switched_off_nobody_watches_and_the_context_still_travels() -> None:
    async def story(world: World) -> None:
        await submit(world, traceparent=GIVEN)
        await until(lambda: finished(world))

    world = in_world(story, is_traced=False)
    assert not world.spans
    assert all(not isinstance(each, TaskSpans) for loop in world.loops.values() for each in loop.core.observers)
    assert list(world.loops["slot_allocator"].core.observers) == []
    stored = b"".join(message.data for message in world.log.after(0))
    assert b'"traceparent":"' + GIVEN.encode() in stored


def test_counts_tell_what_happened_while_leading() -> None:
    async def story(world: World) -> None:
        await submit(world)
        await submit(world, argv="false")
        await until(lambda: sum(world.task_counts.ended.values()) == 2)

    world = in_world(story, is_traced=False)
    assert world.task_counts.submitted == 2
    assert world.task_counts.ended == {"completed": 1, "failed": 1, "timeout": 0, "cancelled": 0}
    assert sum(world.task_counts.scheduling.counts) == 2
    assert world.attempt_counts.effective[AttemptSucceeded] == 1
    assert world.attempt_counts.effective[AttemptFailed] == 1
    assert sum(world.attempt_counts.execution.counts) == 2
    assert world.attempt_counts.void == 0


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        GIVEN + "\n",
    ],
)
def test_what_is_no_trace_context_is_none(text: str | None) -> None:
    assert parse_traceparent(text) is None
    assert valid_traceparent(text) is None


def test_a_trace_context_is_read_as_it_is_written() -> None:
    context = parse_traceparent(GIVEN)
    assert context is not None
    assert context.traceparent(context.span_id or 0) == GIVEN
    assert trace_of("whatever", GIVEN) == context
