"""The routes of the contract over a real HTTP server and a real nats-server."""

import asyncio
import json
import re

import pytest
from fake_read_model import FakeTask

from taskyard.api.clock import make_id
from taskyard.api.health import LAG_SECONDS_MAX
from taskyard.contracts.commands import Answer
from taskyard.contracts.values import Instant, Status, make_position, seconds
from taskyard.eventlog.errors import LogUnavailable

pytestmark = pytest.mark.anyio

NOOP = {"kind": "noop", "input": {}}


async def test_a_task_is_stored_under_its_author_and_answered_with_its_position(world):
    async with world.http("oscar") as http:
        answer = await http.post("/api/v1/tasks", json=NOOP)
    assert answer.status_code == 202
    assert set(answer.json()) == {"id", "position"}
    assert answer.json()["position"] == answer.headers["Taskyard-Position"] == "7.0"
    ((subject, body),) = world.stored
    assert subject == "taskyard.command.oscar.default.submit"
    assert body["id"] == answer.json()["id"]


ROUTES = [
    ("GET", "/tasks?statuss=running", "statuss"),
    ("GET", "/tasks/{id}?attempt=1", "attempt"),
    ("GET", "/tasks/{id}/history?at=1", "at"),
    ("GET", "/tasks/{id}/why?at=1", "at"),
    ("GET", "/tasks/{id}/output?tail=1", "tail"),
    ("GET", "/workers?pool=a", "pool"),
    ("GET", "/queues?pool=a", "pool"),
    ("GET", "/pools?name=a", "name"),
    ("GET", "/stats?pool=a", "pool"),
    ("GET", "/events?types=TaskStarted", "types"),
    ("GET", "/log?to=1", "to"),
    ("POST", "/tasks?pool=a", "pool"),
    ("POST", "/tasks/{id}/cancel?reason=a", "reason"),
    ("POST", "/pools/default/pause?reason=a", "reason"),
    ("POST", "/queues/default/lock?queue=a", "queue"),
    ("POST", "/workers/w1/drain?reason=a", "reason"),
]


@pytest.mark.parametrize(("method", "path", "name"), ROUTES, ids=[path for _, path, _ in ROUTES])
async def test_a_query_parameter_that_the_route_does_not_know_is_refused_by_name(world, method, path, name):
    async with world.http() as http:
        answer = await http.request(
            method, f"/api/v1{path.format(id=make_id())}", json=NOOP if method == "POST" else None
        )
    assert answer.status_code == 422
    assert [(error["path"], "unknown parameter" in error["message"]) for error in answer.json()["errors"]] == [
        (name, True)
    ]
    assert world.stored == []


async def test_many_submits_at_once_share_few_commands(world):
    async with world.http() as http:
        answers = await asyncio.gather(*(http.post("/api/v1/tasks", json=NOOP) for _ in range(60)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 60
    assert len(world.stored) < 60


async def test_a_batch_of_which_every_task_is_refused_is_a_problem_and_one_of_which_some_are_is_taken(world):
    wrong = {"kind": "teapot", "input": 1}
    async with world.http("admin") as http:
        none = await http.post("/api/v1/tasks", json={"tasks": [wrong, wrong]})
        some = await http.post("/api/v1/tasks", json={"tasks": [wrong, {"kind": "noop", "input": 1}]})
    assert none.status_code == 422
    assert none.headers["content-type"] == "application/problem+json"
    assert [fault["path"] for fault in none.json()["errors"]] == ["tasks[0].kind", "tasks[1].kind"]
    assert some.status_code == 202
    assert [("error" in entry) for entry in some.json()["tasks"]] == [True, False]


@pytest.mark.parametrize("path", ["/tasks/{}/cancel", "/pools/default/pause", "/workers/w1/drain"])
async def test_a_field_that_stands_twice_in_the_body_of_a_command_is_refused_by_name(world, path):
    async with world.http("admin") as http:
        headers = {"Content-Type": "application/json"}
        body = b'{"reason":"a","reason":"b"}'
        answer = await http.post(f"/api/v1{path.format(make_id())}", content=body, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "reason")
    assert answer.json()["detail"] == "reason: appears twice; leave one out"
    assert world.stored == []


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("limit=x", "limit: must be a whole number"),
        ("limit=0", "limit: must be at least 1"),
        ("limit=501", "limit: must be at most 500"),
        ("limit=" + "9" * 5_000, "limit: "),
    ],
)
async def test_a_wrong_parameter_is_told_in_words_for_people(world, query, text):
    async with world.http("admin") as http:
        told = (await http.get(f"/api/v1/tasks?{query}")).json()["detail"]
    assert told.startswith(text)
    assert not re.search(r"`|Expected|\bint\b|\bstr\b|null", told)


async def test_a_batch_larger_than_a_command_is_answered_in_order(world):
    tasks = [{**NOOP, "id": make_id()} for _ in range(1_100)]
    async with world.http() as http:
        answer = await http.post("/api/v1/tasks", json={"tasks": tasks})
    assert answer.status_code == 202
    assert [entry["id"] for entry in answer.json()["tasks"]] == [task["id"] for task in tasks]
    assert len(world.stored) == 3


async def test_without_a_verdict_the_position_is_null(impatient):
    impatient.silent = True
    async with impatient.http() as http:
        answer = await http.post("/api/v1/tasks", json=NOOP)
    assert answer.status_code == 202
    assert answer.json()["position"] is None
    assert answer.json()["id"]


async def test_the_scheduler_s_refusals_are_problems(world):
    world.decide = lambda task: Answer(code=429, error="pool_full", message="full")
    async with world.http() as http:
        full = await http.post("/api/v1/tasks", json=NOOP)
        world.decide = lambda task: Answer(code=409, error="status_forbids", message="ended", status=Status.FAILED)
        conflict = await http.post(f"/api/v1/tasks/{make_id()}/cancel")
    assert full.status_code == 429
    assert full.headers["Retry-After"]
    assert conflict.status_code == 409
    assert conflict.headers["content-type"] == "application/problem+json"
    assert conflict.json()["task_status"] == "failed"
    assert conflict.json()["status"] == 409


async def test_commands_go_to_the_pool_of_their_task(world):
    task = world.read_model.put(FakeTask(id=make_id(), pool="gpu", submitted_by="oscar"))
    new = make_id()
    world.decide = lambda body: Answer(code=202, id=new, position=make_position(9, 1))
    async with world.http("oscar") as http:
        for verb in ("cancel", "confirm", "discard"):
            answer = await http.post(f"/api/v1/tasks/{task.id}/{verb}")
            assert (answer.status_code, answer.json()) == (202, {"position": "9.1"})
        retried = await http.post(f"/api/v1/tasks/{task.id}/retry", json={"reason": "again"})
    assert retried.json() == {"id": new, "position": "9.1"}
    assert [subject for subject, _ in world.stored] == [
        f"taskyard.command.oscar.gpu.{verb}" for verb in ("cancel", "confirm", "discard", "retry")
    ]
    assert world.stored[-1][1]["reason"] == "again"


async def test_reason_and_comment_say_the_same(world):
    async with world.http() as http:
        await http.post(f"/api/v1/tasks/{make_id()}/confirm", json={"reason": "looks good"})
        await http.post(f"/api/v1/tasks/{make_id()}/cancel", json={"comment": "no"})
    assert world.stored[0][1]["comment"] == "looks good"
    assert world.stored[1][1]["reason"] == "no"


async def test_pools_queues_and_workers_are_commanded(world):
    async with world.http() as http:
        answers = [
            await http.post("/api/v1/pools/gpu/configure", json={"max_waiting": 5}),
            await http.post("/api/v1/pools/gpu/pause", json={"reason": "r"}),
            await http.post("/api/v1/pools/gpu/resume"),
            await http.post("/api/v1/queues/gpu/configure", json={"queue": "a/b", "max_running": 2}),
            await http.post("/api/v1/queues/gpu/lock", json={"queue": "a/b", "reason": "r"}),
            await http.post("/api/v1/queues/gpu/unlock", json={"queue": "a/b"}),
            await http.post("/api/v1/queues/gpu/pause", json={"queue": "a/b"}),
            await http.post("/api/v1/workers/worker-1/drain", json={"reason": "r"}),
            await http.post(f"/api/v1/tasks/{make_id()}/reprioritise", json={"priority": 2}),
            await http.post(f"/api/v1/tasks/{make_id()}/force-stop", json={"reason": "r"}),
        ]
    assert {answer.status_code for answer in answers} == {202}
    assert [subject.split(".", 3)[3] for subject, _ in world.stored] == [
        "gpu.configure-pool",
        "gpu.pause",
        "gpu.resume",
        "gpu.configure-queue",
        "gpu.lock",
        "gpu.unlock",
        "gpu.pause",
        "gpu.drain",
        "default.reprioritise",
        "default.force-stop",
    ]


async def test_who_may_what(world):
    mine = world.read_model.put(FakeTask(id=make_id(), submitted_by="oscar"))
    other = world.read_model.put(FakeTask(id=make_id(), submitted_by="admin"))
    async with world.http("") as nobody, world.http("oscar") as oscar, world.http("vera") as vera:
        unknown = await nobody.get("/api/v1/tasks")
        assert unknown.status_code == 401
        assert unknown.headers["WWW-Authenticate"].startswith("Bearer")
        assert unknown.headers["content-type"] == "application/problem+json"
        for token in ("Bearer wrong", "Bearer", "Basic abc", "Bearer \xff"):
            refused = await nobody.post("/api/v1/tasks", json=NOOP, headers={"Authorization": token.encode("latin-1")})
            assert refused.status_code == 401
        assert (await vera.post("/api/v1/tasks", json=NOOP)).status_code == 403
        assert (await vera.post(f"/api/v1/tasks/{mine.id}/cancel")).status_code == 403
        assert (await vera.get(f"/api/v1/tasks/{other.id}")).status_code == 200
        assert (await oscar.get(f"/api/v1/tasks/{mine.id}")).status_code == 200
        assert (await oscar.get(f"/api/v1/tasks/{other.id}")).status_code == 404
        assert (await oscar.post(f"/api/v1/tasks/{other.id}/cancel")).status_code == 404
        assert (await oscar.post(f"/api/v1/tasks/{mine.id}/force-stop", json={"reason": "r"})).status_code == 403
        assert (await oscar.post("/api/v1/pools/default/pause")).status_code == 403
        assert (await oscar.get("/api/v1/log")).status_code == 403
        await oscar.get("/api/v1/tasks")
        await vera.get("/api/v1/tasks")
    assert world.stored == []
    assert [wanted.sees_only for wanted in world.read_model.asked] == ["oscar", None]


async def test_list_filters_are_read(world):
    async with world.http() as http:
        answer = await http.get(
            "/api/v1/tasks?status=canceled,running&status=failed&kind=plan&label=team:net:x&sort=-priority&limit=7&worker=w&queue=a/b"
        )
    assert answer.status_code == 200
    (wanted,) = world.read_model.asked
    assert wanted.statuses == (Status.CANCELLED, Status.RUNNING, Status.FAILED)
    assert wanted.labels == (("team", "net:x"),)
    assert (wanted.kinds, wanted.workers, wanted.queues) == (("plan",), ("w",), ("a/b",))
    assert (wanted.sort, wanted.limit) == ("-priority", 7)


async def test_after_waits_for_the_read_model(world):
    world.read_model.move_to(make_position(5, 999))
    async with world.http() as http:
        assert (await http.get("/api/v1/tasks?after=5.3")).headers["Taskyard-Position"] == "5.999"
        world.read_model.moved.clear()
        waiting = asyncio.create_task(http.get("/api/v1/workers?after=6.0"))
        await asyncio.wait((waiting,), timeout=0.2)
        assert not waiting.done()
        world.read_model.move_to(make_position(6, 999))
        assert (await waiting).headers["Taskyard-Position"] == "6.999"
        bad = await http.get("/api/v1/tasks?after=yesterday")
        assert bad.status_code == 422
        assert bad.json()["errors"][0]["path"] == "after"


@pytest.mark.parametrize("path", ["tasks", "stats", "queues", "pools", "workers"])
async def test_without_postgresql_reading_is_503_and_commands_are_taken(world, path):
    world.read_model.is_away = True
    async with world.http() as http:
        reading = await http.get(f"/api/v1/{path}")
        assert reading.status_code == 503
        assert reading.headers["content-type"] == "application/problem+json"
        assert reading.headers["Retry-After"]
        assert "Taskyard-Position" in reading.headers
        assert (await http.post("/api/v1/tasks", json=NOOP)).status_code == 202
        assert (await http.post(f"/api/v1/tasks/{make_id()}/cancel")).status_code == 202
        assert (await http.post("/api/v1/workers/worker-1/drain")).status_code == 202
        ready = await http.get("/readyz")
        assert ready.status_code == 503
        assert "postgres" in ready.json()["reasons"]


async def test_readiness_tells_a_read_model_that_lags_and_minds_once_it_lags_for_long(world, monkeypatch):
    async with world.http("") as http:
        ready = (await http.get("/readyz")).json()
        assert (ready["ready"], ready["reasons"], ready["projection_lag_commits"]) == (True, {}, 0)
        assert ready["leaders"] == {"scheduler": None, "slot_allocator": None, "dispatcher": None}
        head = await world.append()
        world.read_model.reached = make_position(head - 1, 999)
        lagging = await http.get("/readyz")
        assert (lagging.status_code, lagging.json()["projection_lag_commits"]) == (200, 1)
        at = (await world.log.last("scheduler")).at
        monkeypatch.setattr("taskyard.api.health.now", lambda: Instant(at + seconds(LAG_SECONDS_MAX + 1)))
        lagging = await http.get("/readyz")
    assert lagging.status_code == 503
    assert lagging.json()["projection_lag_seconds"] == LAG_SECONDS_MAX + 1
    assert lagging.json()["reasons"] == {"projection": "the read model is 6.0 s behind the log, commits it lacks: 1"}


async def test_readiness_tells_rows_of_another_log(world):
    await world.append()
    async with world.http("") as http:
        assert (await http.get("/readyz")).status_code == 200
        world.read_model.hash = "of a commit of another log"
        ready = await http.get("/readyz")
    assert (ready.status_code, list(ready.json()["reasons"])) == (503, ["projection"])
    assert "of another log" in ready.json()["reasons"]["projection"]


async def test_readiness_asks_for_all_leaders_at_once_and_tells_those_that_it_learns(world, monkeypatch):
    asked = asyncio.Barrier(3)

    async def holder(_nc, _bucket, writer):
        await asked.wait()  # one after the other would never get on
        if writer == "scheduler":
            await asyncio.Event().wait()
        if writer == "dispatcher":
            raise LogUnavailable("no answer")
        return "one"

    monkeypatch.setattr("taskyard.api.health.read_holder", holder)
    async with world.http("") as http:
        ready = (await http.get("/readyz")).json()
    assert ready["ready"] and ready["leaders"] == {"scheduler": None, "slot_allocator": "one", "dispatcher": None}
    assert ready["leaders_unknown"] == ["scheduler", "dispatcher"]


async def test_system_routes_ask_for_no_token(world):
    async with world.http("") as http:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        await http.get("/api/v1/tasks")
        metrics = (await http.get("/metrics")).text
        assert 'taskyard_http_requests_total{method="GET",route="/api/v1/tasks",status="401"} 1.0' in metrics
        docs = await http.get("/docs/openapi.json")
        assert docs.status_code == 200
        paths = docs.json()["paths"]
        body = paths["/api/v1/tasks"]["post"]["requestBody"]["content"]["application/json"]["schema"]["oneOf"]
        assert {schema["title"] for schema in body} == {"TaskSpec", "TaskBatch"}
        assert "/api/v1/tasks/{task_id}/cancel" in paths


async def test_the_documentation_needs_nothing_from_elsewhere(world):
    async with world.http("") as http:
        page = (await http.get("/docs")).text
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
        files = [address for address in loaded if not address.startswith("data:")]
        assert len(files) == 4
        for address in files:
            assert address.startswith("/")
            answer = await http.get(address)
            assert answer.status_code == 200
            assert len(answer.content) > 100
        assert (await http.get("/docs/assets/__init__.py")).status_code == 404


TASK = "0199f3c2-0000-7000-8000-000000000000"
BAD_REQUESTS: list[tuple[str, str, bytes | None, dict[str, str], int]] = [
    ("GET", "/nowhere", None, {}, 404),
    ("GET", "/api/v1/nowhere", None, {}, 404),
    ("GET", "/api/v1/tasks/%ff", None, {}, 404),
    ("GET", "/api/v1/tasks/%00", None, {}, 404),
    ("GET", "/api/v1/tasks/1", None, {}, 404),
    ("GET", "/api/v1/tasks/" + "x" * 5_000, None, {}, 404),
    ("GET", f"/api/v1/tasks/{TASK}", None, {}, 404),
    ("GET", f"/api/v1/tasks/{TASK}%0a", None, {}, 404),
    ("GET", f"/api/v1/tasks/{TASK.upper()}", None, {}, 404),
    ("GET", f"/api/v1/tasks/{TASK}/history", None, {}, 404),
    ("GET", "/api/v1/tasks/x/history", None, {}, 404),
    ("GET", f"/api/v1/tasks/{TASK}/output", None, {}, 404),
    ("GET", "/api/v1/tasks/x/output", None, {}, 404),
    ("GET", f"/api/v1/tasks/{TASK}/output?attempt=x", None, {}, 422),
    ("GET", f"/api/v1/tasks/{TASK}/output?stream=x", None, {}, 422),
    ("GET", f"/api/v1/tasks/{TASK}/output?from=-1", None, {}, 422),
    ("GET", f"/api/v1/tasks/{TASK}/output?from={'9' * 400}", None, {}, 422),
    ("PUT", "/api/v1/tasks", b"{}", {}, 405),
    ("DELETE", f"/api/v1/tasks/{TASK}", None, {}, 405),
    ("PATCH", "/healthz", b"", {}, 405),
    ("GET", "/api/v1/tasks?limit=0", None, {}, 422),
    ("GET", "/api/v1/tasks?limit=501", None, {}, 422),
    ("GET", "/api/v1/tasks?limit=x", None, {}, 422),
    ("GET", "/api/v1/tasks?limit=" + "9" * 5_000, None, {}, 422),
    ("GET", "/api/v1/tasks?status=asleep", None, {}, 422),
    ("GET", "/api/v1/tasks?label=nocolon", None, {}, 422),
    ("GET", "/api/v1/tasks?queue=%00", None, {}, 422),
    ("GET", "/api/v1/tasks?cursor=%00", None, {}, 422),
    ("GET", "/api/v1/tasks?kind=" + ",".join("abc" for _ in range(100)), None, {}, 422),
    ("GET", "/api/v1/tasks?after=x", None, {}, 422),
    ("GET", "/api/v1/tasks?after=-1", None, {}, 422),
    ("GET", "/api/v1/tasks?after=1.9999", None, {}, 422),
    ("GET", "/api/v1/tasks?after=" + "9" * 500, None, {}, 422),
    ("GET", "/api/v1/events", None, {"Last-Event-ID": "x"}, 422),
    ("GET", "/api/v1/events", None, {"Last-Event-ID": "99999999999.1"}, 422),
    ("GET", "/api/v1/events?from=x", None, {}, 422),
    ("GET", "/api/v1/events?task=%00", None, {}, 422),
    ("GET", "/api/v1/log?limit=501", None, {}, 422),
    ("GET", "/api/v1/log?from=x", None, {}, 422),
    ("POST", "/api/v1/tasks", b"", {}, 422),
    ("POST", "/api/v1/tasks", b"{", {}, 422),
    ("POST", "/api/v1/tasks", b"\xff\xfe\x00", {}, 422),
    ("POST", "/api/v1/tasks", b"[" * 200_000, {}, 422),
    ("POST", "/api/v1/tasks", b'{"kind":"noop","input":"\xff"}', {}, 422),
    ("POST", "/api/v1/tasks", b'{"kind":"noop","input":1,"priority":1e400}', {}, 422),
    ("POST", "/api/v1/tasks", b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 422),
    ("POST", "/api/v1/tasks", json.dumps(NOOP).encode(), {"Content-Type": "text/xml"}, 415),
    ("POST", "/api/v1/tasks", json.dumps(NOOP).encode(), {"Content-Type": "multipart/form-data"}, 415),
    ("POST", "/api/v1/tasks", b" " * ((1 << 20) + 1), {}, 413),
    ("POST", "/api/v1/tasks", b'{"kind":"noop","input":"' + b"x" * (3 << 20) + b'"}', {}, 413),
    ("POST", "/api/v1/tasks/x/cancel", b"", {}, 404),
    ("POST", f"/api/v1/tasks/{TASK}/explode", b"", {}, 404),
    ("POST", f"/api/v1/tasks/{TASK}/cancel", b"[]", {}, 422),
    ("POST", f"/api/v1/tasks/{TASK}/cancel", b"nonsense", {}, 422),
    ("POST", f"/api/v1/tasks/{TASK}/cancel", b'{"task":"other"}', {}, 422),
    ("POST", f"/api/v1/tasks/{TASK}/cancel", b'{"reason":"\\u0000"}', {}, 422),
    ("POST", f"/api/v1/tasks/{TASK}/cancel", b'{"reason":' + b"9" * 500 + b"}", {}, 422),
    ("POST", f"/api/v1/tasks/{TASK}/cancel", b'{"reason":"' + b"x" * 200_000 + b'"}', {}, 413),
    ("POST", f"/api/v1/tasks/{TASK}/confirm", b'{"attempt":0}', {}, 422),
    ("POST", f"/api/v1/tasks/{TASK}/reprioritise", b"{}", {}, 422),
    ("POST", f"/api/v1/tasks/{TASK}/reprioritise", b'{"priority":11}', {}, 422),
    ("POST", "/api/v1/queues/default/lock", b"{}", {}, 422),
    ("POST", "/api/v1/queues/default/lock", b'{"queue":"UPPER"}', {}, 422),
    ("POST", "/api/v1/queues/A.B/lock", b'{"queue":"a"}', {}, 404),
    ("POST", "/api/v1/pools/%0a/pause", b"", {}, 404),
    ("POST", "/api/v1/pools/default%0a/pause", b"", {}, 404),
    ("POST", "/api/v1/pools/default/pause", b'{"queue":"a"}', {}, 422),
    ("POST", "/api/v1/workers/A/drain", b"", {}, 404),
]


async def test_bad_requests_are_problems_and_store_nothing(world):
    wrong = []
    async with world.http() as http:
        for method, path, content, headers, status in BAD_REQUESTS:
            answer = await http.request(method, path, content=content, headers=headers)
            is_problem = answer.headers.get("content-type") == "application/problem+json"
            told = answer.json().get("status") if is_problem else None
            if (answer.status_code, told) != (status, status) or "Taskyard-Position" not in answer.headers:
                wrong.append((method, path[:80], (content or b"")[:40], status, answer.status_code, answer.text[:200]))
        assert (await http.get("/healthz")).status_code == 200
    assert wrong == []
    assert world.stored == []
