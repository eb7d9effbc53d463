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
from taskyard.api.health import Health
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.processes import free_port
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
            assert 'taskyard_http_connections_refused_total{reason="full"} 1.0' in (await other.get("/metrics")).text
        for stream in streams[1:]:
            await stream.__aexit__(None, None, None)


async def test_metrics_and_what_readiness_found_are_told_to_who_bears_a_token(nats_server, monkeypatch):
    health_port = free_port()
    asked = lambda settings: msgspec.structs.replace(settings, details="token", health_port=health_port)  # noqa: E731
    monkeypatch.setattr("running_api.settings_for", _changed(asked))
    async with running(nats_server) as world, world.http("") as nobody, world.http("vera") as vera:
        told = await nobody.get("/readyz")
        assert (told.status_code, told.json()) == (200, {"ready": True})
        assert (await nobody.get("/metrics")).status_code == 401
        assert {"leaders", "reasons", "projection_lag_commits"} <= (await vera.get("/readyz")).json().keys()
        assert "taskyard_http_requests_total" in (await vera.get("/metrics")).text
        forged = {"Authorization": "Bearer forged"}
        assert (await nobody.get("/metrics", headers=forged)).status_code == 401
        world.read_model.is_away = True
        away = await nobody.get("/readyz")
        assert (away.status_code, away.json()) == (503, {"ready": False})
        assert "postgres" in (await vera.get("/readyz")).json()["reasons"]
        for path, of_nobody, of_vera in (("metrics", 401, 200), ("readyz", 200, 200), ("healthz", 200, 200)):
            url = f"http://127.0.0.1:{health_port}/{path}"
            answers = [await nobody.get(url), await vera.get(url)]
            assert [answer.status_code for answer in answers] == [of_nobody, of_vera], path
            assert all(answer.headers["x-content-type-options"] == "nosniff" for answer in answers)


def test_details_are_told_to_anyone_on_loopback_and_elsewhere_where_the_setting_says_so():
    settings = Settings(
        nats_urls=[], control_user="", control_password="", fleet_user="", fleet_password="", postgres_dsn=""
    )
    shown = {
        (host, details): msgspec.structs.replace(settings, http_host=host, details=details).shows_details_to_anyone
        for host in ("127.0.0.1", "::1", "0.0.0.0", "192.0.2.1", "::")
        for details in ("by-host", "anyone", "token")
    }
    assert {key for key, is_shown in shown.items() if is_shown} == {
        ("127.0.0.1", "by-host"),
        ("::1", "by-host"),
        *((host, "anyone") for host, details in shown if details == "anyone"),
    }


async def test_however_many_ask_at_once_readiness_looks_once(world, monkeypatch):
    looks = 0
    look = Health._look

    async def counted(self):
        nonlocal looks
        looks += 1
        return await look(self)

    monkeypatch.setattr(Health, "_look", counted)
    async with world.http("") as http:
        answers = await asyncio.gather(*(http.get("/readyz") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert looks < 25


def _changed(change):
    from running_api import settings_for

    def settings(server: NatsServer, **more) -> Settings:
        return change(settings_for(server, **more))

    return settings
