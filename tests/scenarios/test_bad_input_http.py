"""What is wrong, over HTTP: refused with a 4xx that names the field, never a 5xx, and nothing half done."""

import json
import socket
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from system import System

from taskyard.client import make_id
from taskyard.contracts.values import Instant, make_uuid7

POOL = "nobody"
"""A pool without a worker: what is accepted by mistake would stay there."""

NOOP = {"kind": "noop", "pool": POOL, "input": {}}
COMMAND = {"kind": "command", "pool": POOL, "input": {"argv": ["true"]}}
PLAN = {"kind": "plan", "pool": POOL, "queue": "q", "input": {"directory": "/srv"}}
DEEP = 100_000

NAMES = (
    "*",
    ">",
    "a.b",
    "a b",
    "ünï",
    "UPPER",
    "",
    "a\n",
    "a\x00",
    "x" * 64,
    "-a",
    "$SYS",
    "a\r\nPUB x 0",
    "\u202e",
    "../..",
)
QUEUES = ("*", ">", "a b", "ünï", "UPPER", "", "a\n", "a\x00", "x" * 129, "/a", "a\tb")
IDS = {
    "empty": "",
    "too short": "1",
    "of letters": "a" * 36,
    "UUIDv4": "00000000-0000-4000-8000-000000000000",
    "in capitals": make_id().upper(),
    "with a line end": make_id() + "\n",
    "of zero bytes": "\x00" * 36,
}
"""What is no UUIDv7 in its canonical form."""

WRONG_FIELDS: list[tuple[str, Any, str]] = [
    *((f"pool {name!r}", {**NOOP, "pool": name}, "pool") for name in NAMES),
    *((f"queue {name!r}", {**NOOP, "queue": name}, "queue") for name in QUEUES),
    *((f"id {name}", {**NOOP, "id": id}, "id") for name, id in IDS.items()),
    ("id of the year 1970", {**NOOP, "id": make_uuid7(Instant(0), 5)}, "id"),
    ("id of the year 10889", {**NOOP, "id": "ffffffff-ffff-7fff-bfff-ffffffffffff"}, "id"),
    ("id a number", {**NOOP, "id": 7}, "id"),
    ("no kind", {"input": {}}, "kind"),
    ("no input", {"kind": "noop"}, "input"),
    ("kind a number", {**NOOP, "kind": 5}, "kind"),
    ("kind null", {**NOOP, "kind": None}, "kind"),
    ("kind unknown", {**NOOP, "kind": "nonsense"}, "kind"),
    ("kind with NUL", {**NOOP, "kind": "noop\x00"}, "kind"),
    ("unknown field", {**NOOP, "shell": "rm"}, "shell"),
    ("a field of the answer", {**NOOP, "status": "completed"}, "status"),
    ("priority 0", {**NOOP, "priority": 0}, "priority"),
    ("priority 11", {**NOOP, "priority": 11}, "priority"),
    ("priority a text", {**NOOP, "priority": "5"}, "priority"),
    ("priority 1.5", {**NOOP, "priority": 1.5}, "priority"),
    ("priority true", {**NOOP, "priority": True}, "priority"),
    ("priority huge", {**NOOP, "priority": 10**400}, "priority"),
    ("timeout negative", {**NOOP, "timeout_seconds": -1}, "timeout_seconds"),
    ("timeout huge", {**NOOP, "timeout_seconds": 1e300}, "timeout_seconds"),
    ("attempts 0", {**NOOP, "max_attempts": 0}, "max_attempts"),
    ("attempts huge", {**NOOP, "max_attempts": 2**63}, "max_attempts"),
    ("start timeout 0", {**NOOP, "schedule_to_start_timeout_seconds": 0}, "schedule_to_start_timeout_seconds"),
    ("not_before without zone", {**NOOP, "not_before": "2030-01-01T00:00:00"}, "not_before"),
    ("not_before nonsense", {**NOOP, "not_before": "tomorrow"}, "not_before"),
    ("not_before month 13", {**NOOP, "not_before": "2030-13-01T00:00:00Z"}, "not_before"),
    ("not_before a number", {**NOOP, "not_before": 5}, "not_before"),
    ("labels a list", {**NOOP, "labels": []}, "labels"),
    ("label value a number", {**NOOP, "labels": {"a": 1}}, "labels"),
    ("label with NUL", {**NOOP, "labels": {"a": "\x00"}}, "labels"),
    ("label key with NUL", {**NOOP, "labels": {"\x00": "a"}}, "labels"),
    ("label key empty", {**NOOP, "labels": {"": "a"}}, "labels"),
    ("label too long", {**NOOP, "labels": {"a": "x" * 256}}, "labels"),
    ("too many labels", {**NOOP, "labels": {str(n): "" for n in range(65)}}, "labels"),
    ("input of a noop too large", {**NOOP, "input": "x" * 1025}, "input"),
    ("plan without queue", {**PLAN, "queue": None}, "queue"),
    ("directory not absolute", {**PLAN, "input": {"directory": "srv"}}, "input.directory"),
    ("directory with NUL", {**PLAN, "input": {"directory": "/\x00"}}, "input.directory"),
    ("directory missing", {**PLAN, "input": {}}, "input.directory"),
    ("variable name", {**PLAN, "input": {"directory": "/srv", "variables": {"a b": 1}}}, "input.variables"),
    ("variables a list", {**PLAN, "input": {"directory": "/srv", "variables": []}}, "input.variables"),
    ("auto_confirm a text", {**PLAN, "input": {"directory": "/srv", "auto_confirm": "yes"}}, "input.auto_confirm"),
    ("input a text", {**COMMAND, "input": "ls"}, "input"),
    ("neither argv nor script", {**COMMAND, "input": {}}, "input"),
    ("both argv and script", {**COMMAND, "input": {"argv": ["a"], "script": "b"}}, "input"),
    ("argv empty", {**COMMAND, "input": {"argv": []}}, "input.argv"),
    ("argv a text", {**COMMAND, "input": {"argv": "ls"}}, "input.argv"),
    ("argv holds a number", {**COMMAND, "input": {"argv": ["a", 1]}}, "input.argv[1]"),
    ("argv with NUL", {**COMMAND, "input": {"argv": ["a\x00"]}}, "input.argv[0]"),
    ("script empty", {**COMMAND, "input": {"script": ""}}, "input.script"),
    ("script with NUL", {**COMMAND, "input": {"script": "a\x00"}}, "input.script"),
    ("env a list", {**COMMAND, "input": {"script": "a", "env": []}}, "input.env"),
    ("env key", {**COMMAND, "input": {"script": "a", "env": {"A=B": "c"}}}, "input.env"),
    ("env value with NUL", {**COMMAND, "input": {"script": "a", "env": {"A": "\x00"}}}, "input.env"),
    ("unknown input field", {**COMMAND, "input": {"script": "a", "user": "root"}}, "input.user"),
    ("tasks an object", {"tasks": {}}, "tasks"),
    ("tasks empty", {"tasks": []}, "tasks"),
    ("tasks null", {"tasks": None}, "tasks"),
    ("tasks beside kind", {"tasks": [NOOP], "kind": "noop"}, "kind"),
]

RAW_BODIES: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("null", b"null"),
    ("a list", b"[]"),
    ("a number", b"5"),
    ("a text", b'"noop"'),
    ("no JSON", b"kind=noop"),
    ("truncated", b'{"kind":"noop","input":{'),
    ("trailing", b'{"kind":"noop","input":{}}}'),
    ("two documents", b'{"kind":"noop","input":{}}{"kind":"noop","input":{}}'),
    ("single quotes", b"{'kind':'noop'}"),
    ("byte order mark", b'\xef\xbb\xbf{"kind":"noop","input":{}}'),
    ("utf-16", '{"kind":"noop","input":{}}'.encode("utf-16")),
    ("invalid utf-8", b'{"kind":"noop","input":"\xff\xfe"}'),
    ("overlong utf-8", b'{"kind":"noop","input":"\xc0\x80"}'),
    ("utf-8 in a label", b'{"kind":"noop","input":{},"labels":{"a":"\xc3\x28"}}'),
    ("lone surrogate", b'{"kind":"noop","input":"\\ud800"}'),
    ("lone surrogate in a key", b'{"kind":"noop","input":{"\\udfff":1}}'),
    ("lone surrogate in a label", b'{"kind":"noop","input":{},"labels":{"a":"\\ud800"}}'),
    ("lone surrogate in a script", b'{"kind":"command","input":{"script":"\\ud800"}}'),
    ("NaN", b'{"kind":"noop","input":NaN}'),
    ("Infinity", b'{"kind":"noop","input":-Infinity}'),
    ("1e999", b'{"kind":"noop","input":1e999}'),
    ("a timeout of 1e999", b'{"kind":"noop","input":{},"timeout_seconds":1e999}'),
    ("control character", b'{"kind":"noop","input":"\x00"}'),
    ("deep lists", b'{"kind":"noop","input":' + b"[" * DEEP + b"]" * DEEP + b"}"),
    ("deep objects", b'{"kind":"noop","input":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}"),
    ("deep, and never closed", b"[" * DEEP),
    ("deep tasks", b'{"tasks":' + b"[" * DEEP + b"]" * DEEP + b"}"),
    ("deep unknown field", b'{"kind":"noop","input":{},"a":' + b"[" * DEEP + b"]" * DEEP + b"}"),
]

QUERIES = [
    ("/tasks", {"limit": limit}) for limit in ("0", "-1", "501", "a", "1e3", "", "9" * 400, "5.5")
] + [
    ("/tasks", {"sort": sort}) for sort in ("nonsense", "", "-", "--priority", "id; DROP TABLE tasks", "\x00", "é")
] + [
    ("/tasks", {"cursor": cursor}) for cursor in ("a", "", "\x00", "é", "W10", "bnVsbA", "x" * 4000)
] + [
    ("/tasks", {"status": status}) for status in ("nonsense", "COMPLETED", "\x00", "pending,nonsense")
] + [
    ("/tasks", {"label": label}) for label in ("a", ":", ":a", "\x00:a", "a:\x00")
] + [
    (path, {"after": after})
    for path in ("/tasks", "/workers", "/queues", "/pools", "/stats")
    for after in ("a", "-1", "1.5.5", "1.1000", "9" * 30, "\x00", "٣", "1.", ".1", "0x1", "")
] + [
    ("/events", {"from": "nonsense"}),
    ("/events", {"from": "\x00"}),
    ("/events", {"task": "\x00"}),
    *(("/tasks", {name: "\x00"}) for name in ("kind", "queue", "pool", "submitted_by", "worker")),
    ("/tasks", {"kind": ",".join("a" * 100)}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "path"), [wrong[1:] for wrong in WRONG_FIELDS], ids=[wrong[0] for wrong in WRONG_FIELDS]
)
def test_a_wrong_field_is_refused_by_its_name(system: System, body: Any, path: str) -> None:
    answer = system.http.post("/tasks", json=body)
    _is_problem(answer, 422)
    assert any(error["path"].startswith(path) for error in answer.json()["errors"]), answer.text
    if "tasks" not in body:
        # In a batch it costs the others nothing: they would be accepted, so each is wrong here.
        batch = system.http.post("/tasks", json={"tasks": [body, None]})
        _is_problem(batch, 422)
        assert all(entry["error"]["status"] == 422 for entry in batch.json()["tasks"]), batch.text


@pytest.mark.parametrize("body", [raw[1] for raw in RAW_BODIES], ids=[raw[0] for raw in RAW_BODIES])
def test_a_body_that_is_none_is_refused(system: System, body: bytes) -> None:
    _is_problem(_post(system, "/tasks", body), 422)
    # A command holds 128 KiB at most; an empty body is an empty object.
    wrong = 413 if len(body) > 128 * 1024 else 422
    _is_problem(_post(system, f"/tasks/{make_id()}/cancel", body), wrong if body else 404)
    _is_problem(_post(system, f"/queues/{POOL}/pause", body), wrong)


@pytest.mark.parametrize(("path", "parameters"), QUERIES)
def test_a_wrong_parameter_is_refused(system: System, path: str, parameters: dict[str, str]) -> None:
    answer = system.http.get(path, params=parameters)
    if next(iter(parameters.values())) == "" and answer.status_code == 200:
        return  # an empty parameter is as good as none
    _is_problem(answer, 422)
    [name] = parameters
    assert answer.json()["errors"][0]["path"] == name


def test_numbers_that_json_allows_are_taken_or_refused(system: System) -> None:
    for number in (
        b"9" * 400,
        b"-" + b"9" * 900,
        b"18446744073709551616",
        b"1e308",
        b"-0",
        b"1e-400",
        b"0." + b"3" * 900,
    ):
        answer = _post(system, "/tasks", b'{"kind":"noop","pool":"default","input":%s}' % number)
        assert answer.status_code in {202, 422}, answer.text
        if answer.status_code == 202:
            system.wait(answer.json()["id"], "completed")


def test_the_last_of_two_equal_keys_counts_or_both_are_refused(system: System) -> None:
    answer = _post(
        system, "/tasks", b'{"kind":"plan","kind":"noop","pool":"nobody","pool":"default","input":1,"input":{}}'
    )
    assert answer.status_code in {202, 422}
    if answer.status_code == 202:
        assert system.wait(answer.json()["id"], "completed")["kind"] == "noop"


def test_a_nul_in_the_input_of_a_noop_does_no_harm(system: System) -> None:
    id = system.submit("noop", input={"a\x00": "\x00", "b": "\U0001f600\u2028"})
    system.wait(id, "completed")
    assert system.types(id)[-1] == "AttemptSucceeded"


def test_giant_bodies_are_refused_before_they_are_read(system: System) -> None:
    giant = b'{"kind":"noop","input":"' + b"x" * (1 << 20) + b'"}'
    for path in ("/tasks", f"/tasks/{make_id()}/cancel", f"/queues/{POOL}/lock"):
        _is_problem(_post(system, path, giant), 413)
    _is_problem(_post(system, f"/tasks/{make_id()}/cancel", b'{"reason":"' + b"x" * 140_000 + b'"}'), 413)
    many = {"tasks": [{"kind": "noop", "pool": POOL, "queue": "a*", "input": {}}] * 9_000}
    answer = system.http.post("/tasks", json=many)
    _is_problem(answer, 422)
    assert answer.json()["errors"][0]["path"] == "tasks"


def test_wrong_content_types_are_refused(system: System) -> None:
    for content_type in (
        "text/plain",
        "application/xml",
        "multipart/form-data; boundary=x",
        "nonsense",
        "application/msgpack",
    ):
        answer = _post(system, "/tasks", json.dumps(NOOP).encode(), content_type)
        assert answer.status_code == 415, (content_type, answer.text)


def test_ids_that_are_none_are_not_found(system: System) -> None:
    for id in (*IDS.values(), *NAMES, make_id(), "x" * 3000, "%00", "..", "%2e%2e"):
        path = f"/tasks/{quote(id, safe='')}"
        for answer in (system.http.get(f"{path}/history"), system.http.get(f"{path}/output"), system.http.get(path)):
            assert answer.status_code in ({404} if id else {200, 404}), (id, answer.text)
        for verb in ("cancel", "force-stop", "confirm", "discard", "retry", "reprioritise"):
            answer = system.http.post(f"{path}/{verb}", json={"reason": "x"} if verb == "force-stop" else {})
            # The body is looked at first, so a reprioritise without a priority is wrong before it is not found.
            assert answer.status_code in {404, 422} or (not id and answer.status_code == 405), (id, verb, answer.text)


def test_names_in_addresses_that_are_none_are_not_found(system: System) -> None:
    for name in NAMES[:-1]:
        token = quote(name, safe="")
        for path in (f"/pools/{token}/pause", f"/queues/{token}/lock", f"/workers/{token}/drain"):
            answer = system.http.post(path, json={"queue": "a"} if "queues" in path else {})
            assert answer.status_code in {404, 405}, (path, answer.text)
    assert system.http.post("/workers/nobody/drain", json={}).status_code == 404


WRONG_COMMANDS: list[tuple[str, dict[str, Any], str]] = [
    (f"/pools/{POOL}/configure", {"max_waiting": -1}, "max_waiting"),
    (f"/pools/{POOL}/configure", {"max_waiting": 10**400}, "max_waiting"),
    (f"/pools/{POOL}/configure", {"max_waiting": "many"}, "max_waiting"),
    (f"/pools/{POOL}/configure", {"approval_timeout_seconds": 0}, "approval_timeout_seconds"),
    (f"/pools/{POOL}/configure", {"approval_timeout_seconds": 1e308}, "approval_timeout_seconds"),
    (f"/pools/{POOL}/configure", {"approval_timeout_seconds": "1h"}, "approval_timeout_seconds"),
    (f"/pools/{POOL}/configure", {"placement": "anywhere"}, "placement"),
    (f"/pools/{POOL}/configure", {"placement": "first-fit\n"}, "placement"),
    (f"/pools/{POOL}/configure", {"pool": "other"}, "pool"),
    (f"/pools/{POOL}/configure", {"nonsense": 1}, "nonsense"),
    (f"/pools/{POOL}/pause", {"reason": "\x00"}, "reason"),
    (f"/pools/{POOL}/pause", {"reason": "x" * 1025}, "reason"),
    (f"/pools/{POOL}/pause", {"queue": "a"}, "queue"),
    (f"/pools/{POOL}/pause", {"id": "x"}, "id"),
    (f"/pools/{POOL}/pause", {"id": make_uuid7(Instant(0), 6)}, "id"),
    (f"/queues/{POOL}/configure", {"queue": "a", "max_running": -1}, "max_running"),
    (f"/queues/{POOL}/configure", {"max_running": 1}, "queue"),
    (f"/queues/{POOL}/lock", {"queue": None}, "queue"),
    *((f"/queues/{POOL}/lock", {"queue": name}, "queue") for name in QUEUES),
]


@pytest.mark.parametrize(("path", "body", "field"), WRONG_COMMANDS)
def test_a_wrong_command_is_refused_by_its_field(system: System, path: str, body: dict[str, Any], field: str) -> None:
    answer = system.http.post(path, json=body)
    _is_problem(answer, 422)
    assert answer.json()["errors"][0]["path"] == field


def test_wrong_commands_of_a_task_leave_it_as_it_is(system: System) -> None:
    id = system.submit("noop", pool=POOL, input={})
    system.wait(id, "pending")
    for verb, body, statuses in (
        ("confirm", {}, {409}),
        ("discard", {"attempt": 2**62}, {409}),
        ("confirm", {"attempt": 2**64}, {409, 422}),
        ("confirm", {"attempt": 0}, {422}),
        ("confirm", {"attempt": "1"}, {422}),
        ("retry", {}, {409}),
        ("force-stop", {}, {422}),
        ("force-stop", {"reason": ""}, {422}),
        ("cancel", {"reason": 5}, {422}),
        ("cancel", {"task": make_id()}, {422}),
        ("cancel", {"pool": "other"}, {422}),
        ("cancel", {"comment": "a", "reason": "b"}, {422}),
        ("reprioritise", {"priority": 0}, {422}),
        ("reprioritise", {}, {422}),
    ):
        answer = system.act(id, verb, **body)
        assert answer.status_code in statuses, (verb, body, answer.text)
    task = system.task(id)
    assert (task["status"], task["priority"], task["attempt"]) == ("pending", 5, 0)
    assert system.act(id, "cancel").status_code == 202
    system.wait(id, "cancelled")


def test_who_is_not_known_is_told_nothing(system: System) -> None:
    token = system.connection["admin_token"]
    wrong = (None, "", "Bearer", "Bearer x", f"Basic {token}", f"Bearer {token}x", f"Bearer {token[:-1]}", token)
    wrong += ("Bearer " + "x" * 8000, "Bearer \xff", "Bearer ünï")
    with httpx.Client(base_url=str(system.http.base_url), trust_env=False, verify=False) as anybody:
        for authorization in wrong:
            headers = {} if authorization is None else {"Authorization": authorization.encode("utf-8")}
            for method, path in (
                ("GET", "/tasks"),
                ("POST", "/tasks"),
                ("GET", f"/tasks/{make_id()}"),
                ("GET", "/events"),
            ):
                answer = anybody.request(method, path, headers=headers)
                assert answer.status_code == 401, (authorization, path, answer.text)
                assert answer.headers["content-type"].startswith("application/problem+json")


def test_unknown_routes_and_methods_are_refused(system: System) -> None:
    for path in ("/nonsense", "/tasks/a/b/c", "/../../etc/passwd", "/%00", "/" + "x" * 6000):
        assert system.http.get(path).status_code == 404, path
    for method, path in (
        ("DELETE", "/tasks"),
        ("PUT", "/tasks"),
        ("PATCH", f"/tasks/{make_id()}"),
        ("POST", "/workers"),
    ):
        answer = system.http.request(method, path, content=b"{}")
        assert answer.status_code == 405, answer.text
    assert system.http.request("NONSENSE", "/tasks").status_code in {400, 405}
    assert system.http.request("GET", "/tasks", content=b"\xff" * 100_000).status_code == 200


def test_what_is_no_http_is_not_answered_with_a_failure(system: System) -> None:
    host, port = system.connection["http_url"].removeprefix("http://").split(":")
    for text in (
        b"\x00" * 1000,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api/v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /api/v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /api/v1/tasks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /api/v1/tasks HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 10_000 + b"\r\n",
    ):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            try:
                answer = connection.recv(100)
            except ConnectionResetError:
                continue
            assert b" 5" not in answer[:13], answer


def _post(system: System, path: str, body: bytes, content_type: str = "application/json") -> httpx.Response:
    return system.http.post(path, content=body, headers={"Content-Type": content_type.encode("latin-1")})


def _is_problem(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, (answer.status_code, answer.text[:500])
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert "Taskyard-Position" in answer.headers
    assert answer.json()["status"] == status
