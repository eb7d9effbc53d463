"""Every address as any HTTP client may use it: methods, headers, slashes, content types, answers without a token."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from forms import is_position, is_problem
from system import System

READS = ("/tasks", "/workers", "/queues", "/pools", "/stats")
NOOP = {"kind": "noop", "input": {}}


@pytest.fixture
def anybody(yard: System) -> Iterator[httpx.Client]:
    """A client without a token, at the root."""
    with httpx.Client(base_url=yard.connection["http_url"], timeout=15, trust_env=False, verify=False) as client:
        yield client


@pytest.fixture(scope="module")
def ended(yard: System) -> str:
    """A command that has completed, and written a line."""
    id = yard.command("echo line")
    yard.wait(id, "completed")
    return id


def test_every_answer_tells_its_position(yard: System, anybody: httpx.Client, ended: str) -> None:
    answers = [yard.http.get(path) for path in (*READS, f"/tasks/{ended}", f"/tasks/{ended}/history", "/tasks/x", "/x")]
    answers += [yard.http.get(f"/tasks/{ended}/output"), yard.http.post("/tasks", json=NOOP), yard.http.put("/tasks")]
    answers += [yard.http.post("/tasks", content=b"x"), anybody.get("/api/v1/tasks"), anybody.get("/nothing")]
    answers += [anybody.get(path) for path in ("/healthz", "/readyz", "/metrics", "/docs")]
    assert all(is_position(answer.headers.get("taskyard-position")) for answer in answers)
    with yard.http.stream("GET", "/events") as streaming:
        assert is_position(streaming.headers["taskyard-position"])


def test_a_position_of_an_answer_can_be_waited_for(yard: System) -> None:
    told = yard.http.get("/stats").headers["taskyard-position"]
    for path in READS:
        assert yard.http.get(path, params={"after": told}).status_code == 200


def test_head_is_get_without_the_body(yard: System, anybody: httpx.Client, ended: str) -> None:
    for client, path in (
        *((yard.http, path) for path in (*READS, f"/tasks/{ended}", f"/tasks/{ended}/history", "/tasks/none")),
        *((anybody, path) for path in ("/healthz", "/readyz", "/metrics", "/docs", "/api/v1/tasks")),
    ):
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"], path
    for path in ("/events", f"/tasks/{ended}/output", f"/tasks/{ended}/output?follow=1"):
        head = yard.http.head(path)  # a stream that would go on for ever ends too
        assert (head.status_code, head.content) == (200, b"")
    assert yard.http.get("/stats").status_code == 200


def test_what_an_address_takes_is_told(yard: System, anybody: httpx.Client, ended: str) -> None:
    for path, methods in (
        ("/tasks", {"GET", "HEAD", "OPTIONS", "POST"}),
        (f"/tasks/{ended}", {"GET", "HEAD", "OPTIONS"}),
        (f"/tasks/{ended}/cancel", {"OPTIONS", "POST"}),
        ("/events", {"GET", "HEAD", "OPTIONS"}),
    ):
        for answer in (yard.http.options(path), yard.http.delete(path)):
            assert set(answer.headers["allow"].split(", ")) == methods, (path, answer.headers)
        is_problem(yard.http.delete(path), 405)
    assert anybody.options("/healthz").headers["allow"] == "GET, HEAD, OPTIONS"


def test_a_slash_at_the_end_makes_no_difference(yard: System, ended: str) -> None:
    for path in (*READS, f"/tasks/{ended}", f"/tasks/{ended}/history", f"/tasks/{ended}/output"):
        assert yard.http.get(f"{path}/").status_code == 200, path
    accepted = yard.http.post("/tasks/", json=NOOP)
    assert accepted.status_code == 202
    yard.wait(accepted.json()["id"], "completed")


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 202),
        ("application/json; charset=utf-8", 202),
        ("APPLICATION/JSON", 202),
        ("application/vnd.example+json", 202),
        ("", 202),
        ("application/x-www-form-urlencoded", 202),
        ("text/plain", 415),
        ("text/html", 415),
        ("multipart/form-data; boundary=a", 415),
        ("application/msgpack", 415),
        (";", 202),
    ],
)
def test_bodies_are_json_whatever_curl_calls_them(yard: System, content_type: str, status: int) -> None:
    answer = yard.http.post("/tasks", content=json.dumps(NOOP), headers={"Content-Type": content_type})
    assert answer.status_code == status, answer.text
    if status == 202:
        yard.wait(answer.json()["id"], "completed")


def test_a_compressed_body_is_refused_as_such(yard: System) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    packed = gzip.compress(json.dumps(NOOP).encode())
    refused = is_problem(yard.http.post("/tasks", content=packed, headers=headers), 415)
    assert "compressed" in refused["detail"]


def test_answers_have_the_types_that_they_are(yard: System, anybody: httpx.Client, ended: str) -> None:
    assert all(yard.http.get(path).headers["content-type"] == "application/json" for path in READS)
    assert yard.http.get(f"/tasks/{ended}/output").headers["content-type"] == "text/plain; charset=utf-8"
    assert anybody.get("/metrics").headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert anybody.get("/docs").headers["content-type"].startswith("text/html")
    with yard.http.stream("GET", "/events") as streaming:
        assert streaming.headers["content-type"].startswith("text/event-stream")


def test_the_state_of_the_service_is_told_without_a_token(anybody: httpx.Client) -> None:
    assert anybody.get("/healthz").json() == {"status": "ok"}
    ready = anybody.get("/readyz").json()
    assert ready["ready"] is True
    assert isinstance(ready["projection_lag_commits"], int)
    names = {line.split("{")[0].split(" ")[0] for line in anybody.get("/metrics").text.splitlines() if line[:1] != "#"}
    assert any(name.startswith("taskyard_") for name in names)
    described = anybody.get("/docs/openapi.json").json()
    promised = ("", "/{task_id}", "/{task_id}/history", "/{task_id}/output", "/{task_id}/cancel", "/{task_id}/retry")
    assert {f"/api/v1/tasks{path}" for path in promised} <= described["paths"].keys()


def test_the_page_of_the_docs_needs_no_internet(anybody: httpx.Client) -> None:
    page = anybody.get("/docs").text
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_the_scheme_of_a_token_is_recognised_in_any_case(yard: System, anybody: httpx.Client, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {yard.connection['admin_token']}"}
    assert anybody.get("/api/v1/stats", headers=headers).status_code == 200


def test_without_a_token_nothing_is_told(yard: System, anybody: httpx.Client, ended: str) -> None:
    for method, path in (
        *(("GET", path) for path in (*READS, "/events", f"/tasks/{ended}", f"/tasks/{ended}/output", "/tasks/none")),
        *(("POST", path) for path in ("/tasks", f"/tasks/{ended}/cancel", f"/tasks/{ended}/retry")),
    ):
        answer = anybody.request(method, f"/api/v1{path}")
        is_problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")


PARAMETERS: list[tuple[str, dict[str, Any], str]] = [
    ("/tasks", {"limit": 0}, "limit"),
    ("/tasks", {"limit": 501}, "limit"),
    ("/tasks", {"cursor": "garbage"}, "cursor"),
    ("/tasks", {"after": "garbage"}, "after"),
    ("/tasks", {"status": "done"}, "status"),
    ("/tasks", {"label": "team"}, "label"),
    ("/tasks", {"sort": "id"}, "sort"),
    ("/tasks/ID/output", {"from": -1}, "from"),
    ("/tasks/ID/output", {"from": "x"}, "from"),
    ("/tasks/ID/output", {"attempt": 0}, "attempt"),
    ("/tasks/ID/output", {"stream": "stdin"}, "stream"),
    ("/tasks/ID/output", {"follow": 2}, "follow"),
    ("/tasks/ID/output", {"after": "garbage"}, "after"),
    ("/tasks/ID/history", {"after": "garbage"}, "after"),
    ("/events", {"from": "garbage"}, "from"),
    ("/events", {"type": [f"T{number}" for number in range(70)]}, "type"),
]


@pytest.mark.parametrize(("path", "parameters", "field"), PARAMETERS)
def test_a_parameter_that_does_not_fit_is_refused_by_its_name(
    yard: System, ended: str, path: str, parameters: dict[str, Any], field: str
) -> None:
    is_problem(yard.http.get(path.replace("ID", ended), params=parameters), 422, field)


@pytest.mark.parametrize("position", ["garbage", "999999999.0"])
def test_a_last_event_id_that_does_not_fit_is_refused_by_its_name(yard: System, position: str) -> None:
    is_problem(yard.http.get("/events", headers={"Last-Event-ID": position}), 422, "Last-Event-ID")


def test_a_position_that_does_not_come_is_a_timeout(yard: System) -> None:
    with httpx.Client(
        base_url=yard.http.base_url, headers=yard.http.headers, timeout=15, trust_env=False, verify=False
    ) as client:
        answer = client.get("/stats", params={"after": "999999999.0"})
    is_problem(answer, 504)
    assert 9 < answer.elapsed.total_seconds() < 13
