"""Live reading: the event feed, ranges of the log, and output, over real streams."""

import asyncio
import json
import socket
from contextlib import suppress

import httpx
import msgspec
import pytest
from fake_read_model import FakeTask
from running_api import TOKENS, running

from taskyard.api import feed as feed_module
from taskyard.api.clock import make_id
from taskyard.api.output import TaskOutput
from taskyard.contracts.agent_protocol import HEADER_ATTEMPT, HEADER_OFFSET, HEADER_STREAM
from taskyard.contracts.events import (
    CommandRejected,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    RefusedTasks,
    TaskScheduled,
    TaskStarted,
    TaskSubmitted,
    WorkerSuspected,
)
from taskyard.contracts.subjects import output_subject
from taskyard.contracts.values import make_position

pytestmark = pytest.mark.anyio

SECONDS_MAX = 10.0
LARGE_EVENTS = 90


def submitted(task: str, *, by: str = "admin", queue: str = "default") -> TaskSubmitted:
    return TaskSubmitted(
        task=task,
        kind="noop",
        pool="default",
        queue=queue,
        by=by,
        input=msgspec.Raw(b"{}"),
        digest="d",
        timeout_seconds=1,
    )


class Stream:
    """Reads server-sent events one by one."""

    def __init__(self, response) -> None:
        self._lines = response.aiter_lines()
        self.comments = 0

    async def stands_at(self) -> str:
        """The position that is told before any event."""
        async with asyncio.timeout(SECONDS_MAX):
            async for line in self._lines:
                if line.startswith("id: "):
                    return line.removeprefix("id: ")
        raise EOFError

    async def next(self) -> dict:
        async with asyncio.timeout(SECONDS_MAX):
            event: dict = {}
            async for line in self._lines:
                if line.startswith(":"):
                    self.comments += 1
                elif line:
                    name, _, value = line.partition(": ")
                    event[name] = value
                elif "data" in event:
                    return {**event, "data": json.loads(event["data"])}
            raise EOFError


async def test_events_come_live_and_resume_after_any_position(world):
    first, second = make_id(), make_id()
    await world.append(submitted(make_id()))
    async with world.http() as http:
        async with http.stream("GET", "/api/v1/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            assert "Taskyard-Position" in response.headers
            stream = Stream(response)
            sequence = await world.append(submitted(first), submitted(second), TaskScheduled(task=first))
            events = [await stream.next() for _ in range(3)]
        assert [event["id"] for event in events] == [f"{sequence}.{index}" for index in range(3)]
        assert [event["event"] for event in events] == ["TaskSubmitted", "TaskSubmitted", "TaskScheduled"]
        assert events[1]["data"]["data"]["task"] == second
        assert events[0]["data"]["position"] == events[0]["id"]
        assert events[0]["data"]["at"].endswith("Z")
        async with http.stream("GET", "/api/v1/events", headers={"Last-Event-ID": f"{sequence}.1"}) as response:
            assert (await Stream(response).next())["id"] == f"{sequence}.2"
        async with http.stream("GET", f"/api/v1/events?from={sequence}.0") as response:
            assert (await Stream(response).next())["id"] == f"{sequence}.1"
        async with http.stream("GET", "/api/v1/events?from=0") as response:
            assert (await Stream(response).next())["id"].endswith(".0")


async def test_events_are_filtered(world):
    first, second = make_id(), make_id()
    start = await world.append(QueueLocked(pool="default", queue="z", by="admin"))
    await world.append(submitted(first, queue="a"), submitted(second, queue="b"))
    await world.append(
        TaskScheduled(task=first), TaskScheduled(task=second), QueueLocked(pool="default", queue="a", by="admin")
    )
    await world.append(TaskStarted(task=first, attempt=1), TaskStarted(task=second, attempt=1), writer="dispatcher")

    async def take(query: str, count: int) -> list[tuple]:
        async with world.http() as http, http.stream("GET", f"/api/v1/events?from={start}&{query}") as response:
            stream = Stream(response)
            events = [await stream.next() for _ in range(count)]
            return [(event["event"], event["data"]["data"].get("task")) for event in events]

    assert await take(f"task={first}", 3) == [
        ("TaskSubmitted", first),
        ("TaskScheduled", first),
        ("TaskStarted", first),
    ]
    assert await take("type=TaskStarted,QueueLocked", 3) == [
        ("QueueLocked", None),
        ("TaskStarted", first),
        ("TaskStarted", second),
    ]
    assert await take("queue=b", 3) == [("TaskSubmitted", second), ("TaskScheduled", second), ("TaskStarted", second)]
    assert await take("queue=a", 4) == [
        ("TaskSubmitted", first),
        ("TaskScheduled", first),
        ("QueueLocked", None),
        ("TaskStarted", first),
    ]


async def test_an_event_that_cannot_be_shown_is_told_as_unreadable_and_those_behind_it_are_shown(world, monkeypatch):
    shown_to = feed_module.shown_to
    monkeypatch.setattr(
        feed_module, "shown_to", lambda event, to: 1 // 0 if isinstance(event, QueueLocked) else shown_to(event, to)
    )
    first = make_id()
    start = await world.append(submitted(make_id()))
    await world.append(QueueLocked(pool="default", queue="z", by="admin"), submitted(first))
    async with world.http() as http, http.stream("GET", f"/api/v1/events?from={start}") as response:
        stream = Stream(response)
        events = [await stream.next() for _ in range(2)]
    assert [(event["event"], event["data"]["data"].get("task")) for event in events] == [
        ("QueueLocked", None),
        ("TaskSubmitted", first),
    ]
    assert events[0]["data"]["data"] == {"unreadable": True}


async def test_the_events_of_a_queue_tell_that_its_pool_is_paused_and_goes_on(world):
    start = await world.append(QueueLocked(pool="default", queue="z", by="admin"))
    await world.append(
        QueuePaused(pool="default", queue="b", by="admin"),
        QueuePaused(pool="default", queue=None, by="admin", reason="freeze"),
        QueueResumed(pool="default", queue=None, by="admin"),
    )
    async with world.http() as http, http.stream("GET", f"/api/v1/events?from={start}&queue=a") as response:
        stream = Stream(response)
        events = [await stream.next() for _ in range(2)]
    assert [(event["event"], event["data"]["data"]["pool"]) for event in events] == [
        ("QueuePaused", "default"),
        ("QueueResumed", "default"),
    ]


async def test_a_task_that_passed_by_before_is_found_in_the_read_model(world):
    old = world.read_model.put(FakeTask(id=make_id(), queue="far")).id
    start = await world.append(WorkerSuspected(worker="w", incarnation=1), writer="slot_allocator")
    await world.append(TaskScheduled(task=make_id()), TaskScheduled(task=old))
    async with world.http() as http, http.stream("GET", f"/api/v1/events?from={start}&queue=far") as response:
        assert (await Stream(response).next())["data"]["data"]["task"] == old


async def test_a_stream_of_a_queue_ends_while_postgresql_is_away_and_resumes_without_a_hole(world):
    old = world.read_model.put(FakeTask(id=make_id(), queue="far")).id
    locked = await world.append(QueueLocked(pool="default", queue="far", by="admin"))
    async with world.http() as http:
        async with http.stream("GET", f"/api/v1/events?from={locked - 1}.0&queue=far") as response:
            stream = Stream(response)
            assert (await stream.next())["id"] == f"{locked}.0"
            world.read_model.is_away = True
            started = await world.append(TaskStarted(task=old, attempt=1), writer="dispatcher")
            with pytest.raises(EOFError):
                await stream.next()
        world.read_model.is_away = False
        headers = {"Last-Event-ID": f"{locked}.0"}
        async with http.stream("GET", "/api/v1/events?queue=far", headers=headers) as response:
            assert (await Stream(response).next())["id"] == f"{started}.0"


async def test_an_operator_hears_of_own_tasks_only(world):
    own, other = make_id(), make_id()
    start = await world.append(WorkerSuspected(worker="w", incarnation=1), writer="slot_allocator")
    await world.append(
        submitted(other, by="admin"), submitted(own, by="oscar"), TaskScheduled(task=other), TaskScheduled(task=own)
    )
    async with world.http("oscar") as http, http.stream("GET", f"/api/v1/events?from={start}") as response:
        stream = Stream(response)
        assert [(await stream.next())["data"]["data"]["task"] for _ in range(2)] == [own, own]


async def test_a_range_of_the_log_is_shown_as_it_stands(world):
    sequences = [await world.append(submitted(make_id())) for _ in range(3)]
    async with world.http() as http:
        page = (await http.get(f"/api/v1/log?from={sequences[1]}&limit=2")).json()
        assert [item["sequence"] for item in page["items"]] == sequences[1:]
        assert page["items"][0]["events"][0]["type"] == "TaskSubmitted"
        assert page["next"] == sequences[2] + 1
        tail = (await http.get("/api/v1/log?limit=1")).json()
        assert [item["sequence"] for item in tail["items"]] == sequences[2:]
        beyond = (await http.get(f"/api/v1/log?from={sequences[2] + 100}")).json()
        assert beyond["items"] == []


async def write(
    world, task: str, data: bytes, *, offset: int, attempt: int = 1, stream: str = "stdout", agent: str = "worker-1"
):
    headers = {HEADER_ATTEMPT: str(attempt), HEADER_STREAM: stream, HEADER_OFFSET: str(offset)}
    nc = await world.nats("agents.dispatcher")  # which has it stored for the agent
    await nc.publish(output_subject(agent, task), data, headers=headers)
    await nc.flush()
    await nc.close()


async def test_output_is_put_together(world):
    task = world.read_model.put(FakeTask(id=make_id(), attempt=2, status="completed")).id
    world.read_model.workers_by_attempt = {1: "worker-2", 2: "worker-1"}
    await write(world, task, b"old\n", offset=0, attempt=1, agent="worker-2")
    await write(world, task, b"one\n", offset=0, attempt=2)
    await write(world, task, b"warn\n", offset=0, attempt=2, stream="stderr")
    await write(world, task, b"one\ntwo\n", offset=0, attempt=2)
    await write(world, task, b"\xff\n", offset=8, attempt=2)
    await write(world, task, b"forged\n", offset=0, attempt=2, agent="worker-2")
    async with world.http() as http:

        async def read(query: str) -> bytes:
            answer = await http.get(f"/api/v1/tasks/{task}/output?{query}")
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/plain")
            return answer.content

        assert await read("") == b"one\nwarn\ntwo\n\xff\n"
        assert await read("stream=stdout") == b"one\ntwo\n\xff\n"
        assert await read("stream=stderr") == b"warn\n"
        assert await read("attempt=1") == b"old\n"
        assert await read("attempt=9") == b""
        assert await read("stream=stdout&from=4") == b"two\n\xff\n"
        assert await read("from=4000") == b""
        empty = world.read_model.put(FakeTask(id=make_id())).id
        assert (await http.get(f"/api/v1/tasks/{empty}/output")).content == b""


async def test_following_output_ends_with_the_task(world):
    task = world.read_model.put(FakeTask(id=make_id()))
    await write(world, task.id, b"a", offset=0)
    async with world.http() as http, http.stream("GET", f"/api/v1/tasks/{task.id}/output?follow=1") as response:
        chunks = response.aiter_bytes()
        async with asyncio.timeout(SECONDS_MAX):
            assert await anext(chunks) == b"a"
            await write(world, task.id, b"b", offset=1)
            assert await anext(chunks) == b"b"
            world.read_model.workers_by_attempt = {1: "worker-1", 2: "worker-2"}
            await write(world, task.id, b"c", offset=0, attempt=2, agent="worker-2")
            assert await anext(chunks) == b"c"
            task.status = "completed"
            assert [chunk async for chunk in chunks] == []


async def test_streams_end_when_the_service_stops(nats_server):
    async with running(nats_server) as world:
        http = world.http()
        stream = http.stream("GET", "/api/v1/events")
        response = await stream.__aenter__()
    async with asyncio.timeout(SECONDS_MAX):
        chunks = [chunk async for chunk in response.aiter_bytes()]
    assert b"".join(chunks).startswith(b"retry:")
    await stream.__aexit__(None, None, None)
    await http.aclose()


async def test_a_reader_that_takes_nothing_is_cut_off(nats_server, monkeypatch):
    monkeypatch.setattr("taskyard.http_server.protocol.UNREAD_SECONDS_MAX", 0.5)
    async with running(nats_server) as world, world.http() as http:
        host, _, port = world.url.removeprefix("http://").partition(":")
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((host, int(port)))
            head = f"GET /api/v1/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKENS['admin']}\r\n\r\n"
            client.sendall(head.encode())
            await until_streams(http, 1)
            # More than the kernel keeps for a client.
            large = msgspec.Raw(b'"%s"' % (b"x" * 120_000))
            for _ in range(LARGE_EVENTS):
                await world.append(msgspec.structs.replace(submitted(make_id()), input=large))
            await until_streams(http, 0)


async def until_streams(http, count: int) -> None:
    """Wait until so many event streams are open."""
    async with asyncio.timeout(SECONDS_MAX):
        while f"taskyard_event_streams {count}.0" not in (await http.get("/metrics")).text:
            await asyncio.sleep(0.05)


async def test_a_body_that_does_not_come_is_not_waited_for(world, monkeypatch):
    monkeypatch.setattr("taskyard.api.http_shared.BODY_SECONDS_MAX", 0.2)
    host, _, port = world.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /api/v1/tasks HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKENS['admin']}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{{".encode())
    async with asyncio.timeout(SECONDS_MAX):
        answer = await reader.read()  # to the end: the connection is closed
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not come within 0.2 s" in answer
    assert world.stored == []
    writer.close()
    await writer.wait_closed()


async def test_a_reader_that_has_got_no_event_yet_resumes_from_where_it_began(world):
    await world.append(submitted(make_id()))
    async with world.http() as http:
        async with http.stream("GET", "/api/v1/events") as response:
            began = await Stream(response).stands_at()
        sequence = await world.append(submitted(make_id()))
        async with http.stream("GET", "/api/v1/events", headers={"Last-Event-ID": began}) as response:
            stream = Stream(response)
            assert await stream.stands_at() == began
            assert (await stream.next())["id"] == f"{sequence}.0"


async def test_a_reader_learns_where_it_stands_while_nothing_is_for_it(world):
    async with world.http() as http, http.stream("GET", f"/api/v1/events?task={make_id()}") as response:
        lines = response.aiter_lines()
        await world.append(submitted(make_id()))
        sequence = await world.append(submitted(make_id()))
        async with asyncio.timeout(SECONDS_MAX):
            seen = [line async for line in until_line(lines, f"id: {sequence}.999")]
    assert not any(line.startswith(("event:", "data:")) for line in seen)


async def until_line(lines, last: str):
    async for line in lines:
        yield line
        if line == last:
            return


async def test_a_stream_ends_where_the_read_model_lags_and_resumes_without_a_hole(world):
    late = make_id()
    begun = await world.append(WorkerSuspected(worker="w", incarnation=1), writer="slot_allocator")
    world.read_model.move_to(make_position(begun, 0))
    started = await world.append(TaskStarted(task=late, attempt=1), writer="dispatcher")
    for user, query in (("admin", "queue=far"), ("oscar", "")):
        async with world.http(user) as http, http.stream("GET", f"/api/v1/events?from={begun}&{query}") as response:
            stream = Stream(response)
            with pytest.raises(EOFError):
                await stream.next()
    world.read_model.put(FakeTask(id=late, queue="far", submitted_by="oscar"))
    world.read_model.move_to(make_position(started, 0))
    for user, query in (("admin", "queue=far"), ("oscar", "")):
        async with world.http(user) as http, http.stream("GET", f"/api/v1/events?from={begun}&{query}") as response:
            assert (await Stream(response).next())["id"] == f"{started}.0"


async def test_a_reader_of_a_task_hears_of_refused_commands_about_it_and_of_its_own_refusal(world):
    start = await world.append(WorkerSuspected(worker="w", incarnation=1), writer="slot_allocator")
    about, alone, packed = make_id(), make_id(), make_id()
    batch = RefusedTasks(status=422, code="invalid", message="no", tasks=(packed,))
    sequence = await world.append(
        refused(make_id()),
        refused(make_id(), task=about, verb="confirm"),
        refused(alone),
        refused(make_id(), refused=(batch,)),
    )
    async with world.http() as http:
        for index, task in enumerate((about, alone, packed), 1):
            async with http.stream("GET", f"/api/v1/events?from={start}&task={task}") as response:
                assert (await Stream(response).next())["id"] == f"{sequence}.{index}"


def refused(command: str, *, verb: str = "submit", **fields) -> CommandRejected:
    """A refusal."""
    told = {"status": 422, "code": "invalid", "message": "no", **fields}
    return CommandRejected(command=command, verb=verb, by="admin", pool="default", **told)


async def test_output_that_cannot_go_on_is_broken_off_and_does_not_look_like_an_end(nats_server, monkeypatch):
    monkeypatch.setattr("taskyard.api.output.READ_SECONDS_MAX", 0.2)
    async with running(nats_server) as world, world.http() as http:
        task = world.read_model.put(FakeTask(id=make_id()))
        await write(world, task.id, b"a", offset=0)

        async def read(query: str, then=lambda: None) -> bytes:
            received = b""
            async with http.stream("GET", f"/api/v1/tasks/{task.id}/output?{query}") as response:
                with suppress(httpx.RemoteProtocolError):
                    async with asyncio.timeout(SECONDS_MAX):
                        async for piece in response.aiter_bytes():
                            received += piece
                            then()
                    pytest.fail("it looks like an end")
            return received

        def go_away() -> None:
            world.read_model.is_away = True

        assert await read("follow=1", go_away) == b"a"
        world.read_model.is_away = False
        head = TaskOutput.head

        async def before_the_last_chunk_expired(output: TaskOutput, task: str) -> int:
            return await head(output, task) + 1

        monkeypatch.setattr(TaskOutput, "head", before_the_last_chunk_expired)
        assert await read("") == b"a"
        monkeypatch.setattr(TaskOutput, "head", head)
        assert await read("follow=1", world.stop.set) == b"a"


async def test_output_that_is_not_kept_any_more_is_marked_also_behind_an_offset(world):
    task = world.read_model.put(FakeTask(id=make_id(), status="completed")).id
    await write(world, task, b"beginning", offset=100)
    await write(world, task, b"end", offset=1_000)
    await write(world, task, b"end of it", offset=1_000)
    mark = "\n[taskyard: {} bytes of output are missing here: they are not kept any more]\n".format
    async with world.http() as http:
        for first, expected in (
            (0, mark(100) + "beginning" + mark(891) + "end of it"),
            (40, mark(60) + "beginning" + mark(891) + "end of it"),
            (100, "beginning" + mark(891) + "end of it"),
            (105, "ning" + mark(891) + "end of it"),
            (109, mark(891) + "end of it"),
            (999, mark(1) + "end of it"),
            (1_000, "end of it"),
            (1_004, "of it"),
            (1_009, ""),
        ):
            answer = await http.get(f"/api/v1/tasks/{task}/output?stream=stdout&from={first}")
            assert (answer.status_code, answer.text) == (200, expected)
