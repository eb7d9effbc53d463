"""What every answer bears, and the places that answers take, at the real API of one process."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator

import httpx
import msgspec
import pytest
from fake_read_model import FakeTask
from real_servers import nats_running
from running_api import TOKENS, USERS, World, running

from taskyard.api.clock import make_id
from taskyard.embedded.nats_server import NatsServer
from taskyard.http_server.headers import HEADERS
from taskyard.settings import Settings

pytestmark = pytest.mark.anyio

NOOP = {"kind": "noop", "input": {}}


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_running(tmp_path_factory.mktemp("nats"), **USERS) as server:
        yield server


@pytest.fixture
async def world(nats_server: NatsServer) -> AsyncIterator[World]:
    async with running(nats_server) as world:
        yield world


def bears_all(answer: httpx.Response) -> None:
    for name, value in HEADERS:
        given = answer.headers.get_list(name.decode())
        assert len(given) == 1, (answer, name)
        is_special = answer.url.path.startswith("/docs") and name in {b"content-security-policy", b"cache-control"}
        assert given == [value.decode()] or is_special, (answer, given)


async def test_every_answer_bears_the_headers_that_browsers_obey_and_is_kept_by_no_cache(world):
    task = world.read_model.put(FakeTask(id=make_id(), submitted_by="admin"))
    answers = []
    async with world.http() as http, world.http("") as nobody, world.http("vera") as vera:
        for path in (
            "/api/v1/tasks",
            f"/api/v1/tasks/{task.id}",
            "/api/v1/tasks/x",
            "/api/v1/tasks?limit=0",
            "/nowhere",
        ):
            answers += [await http.get(path), await http.head(path), await nobody.get(path), await http.options(path)]
        answers += [await nobody.get(path) for path in ("/healthz", "/readyz", "/metrics", "/api/v1/health")]
        answers += [
            await nobody.get(f"/docs{path}") for path in ("", "/openapi.json", "/openapi.yaml", "/x", "/assets/x")
        ]
        answers += [await http.post("/api/v1/tasks", json=NOOP), await http.post("/api/v1/tasks", content=b"{")]
        answers += [await vera.post("/api/v1/tasks", json=NOOP), await http.put("/api/v1/tasks")]
        answers += [
            await http.post("/api/v1/tasks", content=b"x" * (2 << 20)),
            await http.get("/", headers={"a": b"\xff"}),
        ]
        for path in ("/api/v1/events", f"/api/v1/tasks/{task.id}/output"):
            async with http.stream("GET", path) as streaming:
                answers.append(streaming)
    assert {answer.status_code for answer in answers} >= {200, 202, 204, 401, 403, 404, 405, 413, 422}
    for answer in answers:
        bears_all(answer)
        assert answer.headers["cache-control"] == "no-store"


async def test_the_page_runs_no_script_but_its_own_files(world):
    async with world.http("") as http:
        page = await http.get("/docs")
        script = await http.get("/docs/assets/start.js")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy and "frame-ancestors 'none'" in policy and "default-src 'none'" in policy
    assert re.findall(r"<script(?![^>]*\bsrc=)", page.text) == [] and " on" not in re.sub(r"<(?!\w)", "", page.text)
    assert script.headers["content-type"].startswith("text/javascript") and "openapi.json" in script.text
    assert script.headers["x-content-type-options"] == "nosniff"


async def test_more_connections_than_there_are_places_are_503_until_one_is_free(nats_server, monkeypatch):
    few = lambda settings: msgspec.structs.replace(settings, http_connections_max=3)  # noqa: E731
    monkeypatch.setattr("running_api.settings_for", _changed(few))
    async with running(nats_server) as world, world.http() as http:
        streams = [http.stream("GET", "/api/v1/events") for _ in range(3)]
        opened = [await stream.__aenter__() for stream in streams]
        assert [stream.status_code for stream in opened] == [200, 200, 200]
        headers = {"Authorization": f"Bearer {TOKENS['admin']}"}
        async with httpx.AsyncClient(base_url=world.url, headers=headers, trust_env=False, verify=False) as other:
            refused = await other.get("/api/v1/tasks")
            assert (refused.status_code, refused.json()["error"]) == (503, "full")
            assert refused.headers["Retry-After"]
            bears_all(refused)
            await streams[0].__aexit__(None, None, None)
            async with asyncio.timeout(5):
                while (await other.get("/api/v1/tasks")).status_code != 200:
                    await asyncio.sleep(0.05)
            assert "taskyard_http_connections_refused_total" in (await other.get("/metrics")).text
        for stream in streams[1:]:
            await stream.__aexit__(None, None, None)


def _changed(change):
    from running_api import settings_for

    def settings(server: NatsServer, **more) -> Settings:
        return change(settings_for(server, **more))

    return settings
