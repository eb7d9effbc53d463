"""The fuzzer makes what it says, finds what is wrong, and finds nothing in the system as it is."""

import asyncio
import json
import socketserver
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from taskyard.fuzz.app import _send_all, parse, what_is_wrong
from taskyard.fuzz.making import Maker, Request
from taskyard.fuzz.sending import HANG, NOTHING, Answer, Wire

DOCUMENT = {
    "paths": {
        "/api/v1/tasks": {
            "post": {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/T"}}}}},
            "get": {"parameters": [{"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 500}}]},
        },
        "/api/v1/tasks/{task_id}": {"get": {}},
    },
    "components": {
        "schemas": {
            "T": {
                "type": "object",
                "required": ["kind", "input"],
                "properties": {"kind": {"type": "string"}, "input": {}, "priority": {"type": "integer"}},
            }
        }
    },
}
TASKS = ("0199f3c2-0000-7000-8000-000000000000",)


def maker(seed: int = 1) -> Maker:
    return Maker(DOCUMENT, seed=seed, tokens=("a", "b"), tasks=TASKS)


def test_the_same_seed_makes_the_same_requests_and_another_makes_others():
    first, again, other = ([maker(seed).make(number).encode() for number in range(500)] for seed in (1, 1, 2))
    assert first == again
    assert sum(one == two for one, two in zip(first, other, strict=True)) < 100


def test_every_route_of_the_document_is_asked_equally_often():
    counts = Counter(maker().make(number).route for number in range(300))
    assert counts == {
        "GET /api/v1/tasks": 100,
        "POST /api/v1/tasks": 100,
        "GET /api/v1/tasks/{task_id}": 100,
    }


def test_requests_hold_what_is_meant_and_what_breaks_programs():
    requests = [maker().make(number) for number in range(6_000)]
    bodies = [request.body for request in requests if request.route == "POST /api/v1/tasks"]
    for part in (b"[" * 10_000, b"9" * 5_000, b"\\ud800", b"\xff", b"x" * 70_000, b"1e400", b"NaN", b'"kind"'):
        assert any(part in body for body in bodies), part
    read = [body for body in bodies if _is_json(body)]
    assert len(read) > len(bodies) / 3
    assert any(TASKS[0].encode() in request.target for request in requests)
    assert {request.method for request in requests} >= {b"GET", b"POST", b"PUT", b"HEAD", b"STEAL"}
    assert any(not any(name == b"Authorization" for name, _ in request.headers) for request in requests)


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def request(*excused: int) -> Request:
    return Request(number=1, route="GET /", method=b"GET", target=b"/", headers=(), body=b"", excused=excused)


@pytest.mark.parametrize("answer", [HANG, NOTHING, *(Answer(status=status) for status in (500, 502, 503, 504))])
def test_no_answer_and_every_error_of_the_api_s_own_are_wrong(answer: Answer):
    assert what_is_wrong(request(), answer)


@pytest.mark.parametrize("status", [200, 202, 400, 401, 404, 408, 413, 422, 431])
def test_what_tells_a_client_of_its_fault_is_right(status: int):
    assert what_is_wrong(request(), Answer(status=status)) is None


def test_only_who_waits_for_a_position_may_be_told_that_it_has_not_come():
    routes = {f"/{name}": {"get": {"parameters": [{"name": name, "in": "query"}]}} for name in ("after", "at")}
    with_moments = Maker({"paths": routes}, seed=1, tokens=("a",), tasks=TASKS)
    for asked, excused in ((b"after=", (504,)), (b"at=", (503, 504))):
        made = [one for number in range(900) if asked in (one := with_moments.make(number)).target]
        assert made and {one.excused for one in made} == {excused}
    assert what_is_wrong(request(504), Answer(status=504)) is None
    assert what_is_wrong(request(504), Answer(status=503))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\noops", "500: b'oops'"),
        (b"", "the connection ended without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "the connection ended without an answer"),
    ],
)
def test_a_server_that_fails_is_found(answer: bytes, told: str):
    with answering(answer) as url:
        _, faults = asyncio.run(_send_all(maker(), url, 9))
    assert len(faults) == 9
    assert all(told in fault for fault in faults)


def test_an_answer_that_does_not_come_is_a_hang(monkeypatch):
    monkeypatch.setattr("taskyard.fuzz.sending.ANSWER_SECONDS_MAX", 0.2)
    with answering(None) as url:
        assert asyncio.run(Wire(url).send(request())) == HANG


@contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """A server that answers every request with this and ends the connection; with None it says nothing."""
    is_over = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline() not in {b"\r\n", b""}:
                pass
            if answer is None:
                is_over.wait(10)
            else:
                self.wfile.write(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            is_over.set()
            server.shutdown()
            serving.join()


def test_the_command_line_names_its_options_and_refuses_what_they_are_not(capsys):
    assert parse(["--seed", "7", "--json"]) == parse(["--json", "--seed", "7", "--requests", "100000"])
    for arguments, status in ((["--requests", "0"], 2), (["--what"], 2), (["--help"], 0)):
        with pytest.raises(SystemExit) as ended:
            parse(arguments)
        assert ended.value.code == status
    assert {"--requests", "--seed", "--json"} <= set(capsys.readouterr().out.replace(",", " ").split())


@pytest.mark.slow
def test_ten_thousand_requests_that_nobody_means_lead_to_no_error_no_hang_and_no_traceback():
    ran = subprocess.run(
        (sys.executable, "-m", "taskyard.fuzz", "--requests", "10000", "--seed", "8", "--json"),
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    assert (told["ok"], told["requests"], told["faults"], told["tracebacks"]) == (True, 10_000, [], 0)
    assert told["routes"] >= 31
    assert {"200", "202", "401", "403", "404", "405", "422"} <= told["statuses"].keys()
