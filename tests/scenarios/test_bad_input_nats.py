"""What is wrong, over NATS: a stored command becomes a rejection or nothing, a request is answered, nobody falls."""

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from log_checks import check
from nats.aio.client import Client
from nats_doors import connected
from system import System

from taskyard.client import make_id
from taskyard.contracts.values import Instant, make_uuid7
from taskyard.contracts.verbs import VERBS

POOL = "nobody"
DEEP = 60_000
ANSWER_SECONDS_MAX = 10.0
REQUESTS_AT_ONCE = 50
AGAIN_SECONDS = 0.3
"""What was refused for being too much is sent again after so long."""
WORKER = "worker-1"

BODIES: list[bytes] = [
    b"",
    b"null",
    b"5",
    b"[]",
    b"hello",
    b"\x00\xff\xfe",
    b'{"kind":"noop","input":',
    b'{"kind":"\xff"}',
    b'{"kind":"nonsense","input":{}}',
    b'{"kind":"noop"}',
    b'{"kind":"noop","input":"\\ud800"}',
    b'{"kind":"noop","input":1e999}',
    b'{"kind":"noop","input":{},"pool":"other"}',
    b'{"kind":"noop","input":{},"nonsense":1}',
    b'{"kind":"noop","input":{},"labels":{"a":"\\u0000"}}',
    b'{"kind":"noop","input":{},"queue":"a*"}',
    b'{"kind":"noop","input":{},"priority":1e400}',
    b"[" * DEEP + b"]" * DEEP,
    b'{"a":' * (DEEP // 3) + b"1" + b"}" * (DEEP // 3),
    b'{"kind":"noop","input":' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"tasks":{}}',
    b'{"tasks":[]}',
    b'{"tasks":[null,1,"x",[],{}]}',
    b'{"tasks":[' + b"1," * 600 + b"1]}",
    b'{"kind":"noop","input":"' + b"x" * 200_000 + b'"}',
    b'{"id":5}',
    b'{"id":"\\u0000\\u0000"}',
    b'{"id":"\\ud800"}',
    b'{"id":"' + b"x" * 100_000 + b'"}',
    b'{"task":"\\u0000"}',
    b'{"task":"x","reason":"\\u0000"}',
    b'{"task":5}',
    b'{"queue":"\\u0000","reason":"\\u0000"}',
    b'{"queue":5}',
    b'{"worker":"nobody\\n"}',
    b'{"nonsense":1}',
    json.dumps({"task": make_id() + "\n"}).encode(),
    json.dumps({"task": make_id(), "attempt": -1, "priority": 0}).encode(),
    json.dumps({"id": make_uuid7(Instant(0), 1), "kind": "noop", "input": {}}).encode(),
]
"""Wrong for every verb, except for those below that may be sent without anything."""
NEEDS_NOTHING = ("configure-pool", "pause", "resume")
"""An empty body is right for these: all of the pool is meant."""

UNKNOWN_VERBS = ("nonsense", "SUBMIT", "sub\x00mit", "ünï", "s" * 300, "submit.more", "submit.more.and.more")
WRONG_POOLS = ("UPPER", "a\x00b", "p" * 300, "ünï", "-a")


def test_garbage_that_is_stored_becomes_a_rejection_and_nothing_else(system: System) -> None:
    with unharmed(system):
        before, counted = len(_rejections(system)), _refused(system)
        sent = [(verb, body) for verb in VERBS for body in BODIES if not _is_right(verb, body)]
        sent += [(verb, b'{"kind":"noop","input":{}}') for verb in UNKNOWN_VERBS]
        subjects = [(f"taskyard.command.admin.{POOL}.{verb}", body) for verb, body in sent]
        right = b'{"kind":"noop","input":{}}'
        subjects += [(f"taskyard.command.admin.{pool}.submit", right) for pool in WRONG_POOLS]
        subjects += [("taskyard.command.admin.x", right)]
        answers = _at_once(system, subjects)
        assert all("seq" in answer for answer in answers), answers[:3]
        # What bears an id that can be read is refused once, however often it comes.
        again = [body for _, body in subjects if body.startswith((b'{"id": "0', b'{"id":"\\u0000'))]
        expected = len(subjects) - len(again) + len(set(again))
        system.until(
            lambda: _refused(system) - counted >= expected,
            lambda: f"each is rejected: {_refused(system) - counted} of {expected}",
        )
        # A rejection tells who asked for what and bears a status of the client's fault.
        assert {(event["by"], event["status"] // 100) for event in _rejections(system)[before:]} <= {("admin", 4)}


@pytest.mark.parametrize(
    ("body", "count"),
    [(json.dumps({"tasks": [1] * 100}).encode(), 300), (b"{}", 421)],
    ids=["300 of 100 faults", "421 of {}"],
)
def test_a_flood_of_refused_messages_restarts_no_scheduler(system: System, body: bytes, count: int) -> None:
    with unharmed(system):
        before = _refused(system)
        answers = _at_once(system, [(f"taskyard.command.admin.{POOL}.submit", body)] * count)
        assert all("seq" in answer for answer in answers), answers[:3]
        system.until(
            lambda: _refused(system) - before >= count,
            lambda: f"each is refused: {_refused(system) - before} of {count}",
        )
        assert "position" in system.http.post("/tasks", json={"kind": "noop", "input": {}}).json()


def test_garbage_that_is_asked_for_is_answered_with_the_clients_fault(system: System) -> None:
    with unharmed(system):
        asked = [(verb, body) for verb in VERBS for body in BODIES if not _is_right(verb, body)]
        asked += [(verb, b'{"kind":"noop","input":{}}') for verb in UNKNOWN_VERBS]
        subjects = [(f"taskyard.request.admin.{POOL}.{verb}", body) for verb, body in asked]
        subjects += [(f"taskyard.request.admin.{pool}.submit", b'{"kind":"noop","input":{}}') for pool in WRONG_POOLS]
        for (subject, body), answer in zip(subjects, _at_once(system, subjects), strict=True):
            if answer["code"] == 202 and "tasks" in answer:
                assert all("error" in entry for entry in answer["tasks"]), (subject, body[:60], answer)
            else:
                assert 400 <= answer["code"] < 500, (subject, body[:60], answer)


def test_headers_of_a_stranger_do_no_harm(system: System) -> None:
    task = b'{"kind":"noop","input":{},"pool":"default"}'

    async def publish(client: Client) -> None:
        for headers in (
            {"traceparent": "x" * 5000},
            {"traceparent": "\x01\x7f"},
            {"Taskyard-Answer": "*"},
            {"Taskyard-Answer": "a b"},
            {"Taskyard-Answer": ">"},
            {"Taskyard-Answer": "x" * 500},
            {"Nats-Rollup": "all"},
            {"Nats-TTL": "1s"},
            {"Nats-Schedule": "@at 2030-01-01T00:00:00Z", "Nats-Schedule-Target": "taskyard.log.0.scheduler"},
            {"Nats-Expected-Stream": "TASKYARD_LOG_0"},
        ):
            await client.request("taskyard.command.admin.default.submit", task, timeout=5, headers=headers)

    with unharmed(system):
        _with_client(system, publish)
        system.until(lambda: not system.live(), "all that was accepted has ended")


def test_what_is_hardly_nats_at_all_does_no_harm(system: System) -> None:
    task = b'{"kind":"noop","input":{}}'
    subjects = [
        b"taskyard.command.admin.default.\xff\xfe",
        b"taskyard.command.admin.\xc3\x28.submit",
        b"taskyard.command.admin.default.\x00\x01\x02",
        b"taskyard.command.admin.default." + b"v" * 3000,
        b"taskyard.command.admin.default.submit\x0c1",
        b"taskyard.command.admin.default.\x0b\x0c\x1c",
        b"taskyard.command.admin.default.a\rb",
        *(b"taskyard.request.admin.default.submit\x0c%d" % sid for sid in range(1, 12)),
        b"taskyard.request.admin.default.\xff\xfe",
        b"taskyard.request.admin.\xff.submit",
    ]
    headers = [
        b"NATS/1.0\r\nno colon\r\n\r\n",
        b"NATS/1.0\r\na: \xff\xfe\r\n\r\n",
        b"NATS/1.0\r\n\xff: a\r\n\r\n",
        b"NATS/1.0\r\n: a\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 99\r\n\r\n",
        b"NATS/1.0\r\n" + b"a: b\r\n" * 2000 + b"\r\n",
        b"NATS/1.0\r\ntraceparent: \x00\r\n\r\n",
        b"NATS/1.0",
        b"NATS/1.0 \xff\xff\xff\r\n\r\n",
        b"NATS/1.0\r\ncontent-type: nonsense/x\r\ncorrelation_id: \x01\r\nreply_to: >\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"\x00\r\n\r\n",
    ]
    messages = [b"PUB %s %d\r\n%s\r\n" % (subject, len(task), task) for subject in subjects]
    for subject in (b"taskyard.command.admin.default.submit", b"taskyard.request.admin.default.submit"):
        messages += [
            b"HPUB %s %d %d\r\n%s%s\r\n" % (subject, len(header), len(header) + len(task), header, task)
            for header in headers
        ]
    with unharmed(system):
        for message in messages:
            _say(system, message)
        system.until(lambda: not system.live(), "all that was accepted has ended")


def test_a_worker_that_talks_nonsense_harms_nobody(system: System) -> None:
    with unharmed(system):
        other, mine = system.command("sleep 0.1", pool=POOL), system.command("sleep 3; echo done", queue="mine")
        system.wait(mine, "running")
        _with_client(system, lambda client: _talk_nonsense(client, mine, other), WORKER)
        assert system.task(other)["status"] == "pending"
        assert system.act(other, "cancel").status_code == 202
        assert system.wait(mine, "completed")["result"]["exit_code"] == 0
        assert "done" in system.http.get(f"/tasks/{mine}/output").text


@pytest.mark.parametrize(
    "result",
    [
        b'"\\u0000"',
        b'{"\\u0000":"\\u0000"}',
        b'"\\ud800"',
        b"1e999",
        b"9" * 500,
        b"[" * 20_000 + b"]" * 20_000,
        b'"' + b"x" * 700_000 + b'"',
        b"{}",
    ],
    ids=["nul", "nul key", "surrogate", "1e999", "digits", "deep", "large", "empty"],
)
def test_a_strange_result_ends_its_task_and_is_shown(system: System, result: bytes, tmp_path: Path) -> None:
    gate, done = tmp_path / "gate", tmp_path / "done"
    with unharmed(system):
        id = system.command(f"while [ ! -e {gate} ]; do sleep 0.02; done; touch {done}", queue="strange")
        system.wait(id, "running")
        now = time.time_ns() // 1000
        report = b'{"type":"Succeeded","task":"%s","attempt":1,"at":%d,"result":%s}' % (id.encode(), now, result)
        batch = b'{"incarnation":1,"number":1,"reports":[%s]}' % report

        async def lie(client: Client) -> None:
            await client.request(f"taskyard.report.{WORKER}", batch, timeout=5)

        _with_client(system, lie, WORKER)
        # What is not taken for a report does nothing, and then the worker's own ends the task.
        gate.touch()
        system.until(done.exists, "the command has ended")
        system.ended(id)
        assert system.history(id)
        assert system.http.get("/tasks", params={"queue": "strange"}).status_code == 200


async def _talk_nonsense(client: Client, mine: str, other: str) -> None:
    now = time.time_ns() // 1000
    report = {"task": mine, "attempt": 1, "at": now}
    foreign = {"task": other, "attempt": 1, "at": now}
    batches: list[Any] = [
        {"incarnation": 1, "number": 1, "reports": reports}
        for reports in (
            [{**foreign, "type": "Succeeded"}],
            [{**foreign, "type": "Started"}],
            [{**foreign, "type": "Failed", "error": {"code": "x", "message": "\x00"}}],
            [{**foreign, "type": "Lost", "message": "\x00"}],
            [{**report, "attempt": 2, "type": "Succeeded"}],
            [{**report, "attempt": 0, "type": "Failed", "error": {"code": "x", "message": "x"}}],
            [{**report, "attempt": -1, "type": "Lost"}],
            [{**report, "attempt": 2**70, "type": "Succeeded"}],
            [{**report, "type": "Nonsense"}],
            [{**report, "type": "Progressed", "progress": 101}],
            [{**report, "type": "Progressed", "progress": 50, "message": "\x00" * 100}],
            [{**report, "type": "Planned", "changes": {"add": 10**400}}],
            [{**report, "at": -(2**63), "type": "Started"}],
            [{**report, "task": "\x00", "type": "Succeeded"}],
            [{**report, "task": make_id(), "type": "Planned", "changes": {}}],
            [{**report, "task": "x" * 100_000, "type": "Succeeded"}],
            [{**foreign, "type": "Started"}] * 5000,
            [None, 1, "x"],
            "x",
        )
    ]
    garbage = [
        b"",
        b"null",
        b"\xff\xfe",
        b"[" * DEEP,
        b'{"incarnation":',
        b"{}",
        b'{"incarnation":1e999,"number":1}',
        b"x" * 900_000,
    ]
    for body in (*garbage, *(json.dumps(batch).encode() for batch in batches)):
        await client.request(f"taskyard.report.{WORKER}", body, timeout=5)
        await client.publish(f"taskyard.heartbeat.{WORKER}", body)
    for headers in (None, {"Taskyard-Attempt": "x"}, {"Taskyard-Attempt": "1", "Taskyard-Offset": "-1", "Taskyard-Stream": "x"},
                    {"Taskyard-Attempt": "9" * 400, "Taskyard-Offset": "9" * 400, "Taskyard-Stream": "stdout"}):  # fmt: skip
        for task in (mine, other, "x", "\x00"):
            await client.request(f"taskyard.output.{WORKER}.{task}", b"\xff\xfenonsense", timeout=5, headers=headers)
    await client.flush()


# -- the means ---------------------------------------------------------------------------------------------------------


@contextmanager
def unharmed(system: System) -> Iterator[None]:
    """Whatever happens in the block, no process falls, a normal task completes, and log and read model agree."""
    pids = system.connection["processes"]
    yield
    system.wait(system.command("true", queue="normal"), "completed")
    system.until(lambda: not system.live(), "every task has ended")
    system.all_idle()
    assert system.connection["processes"] == pids
    check(system.data, system.http)


def _is_right(verb: str, body: bytes) -> bool:
    return verb in NEEDS_NOTHING and body == b""


def _with_client(system: System, use: Callable[[Client], Awaitable[None]], user: str = "admin") -> None:
    """Use a connection of a principal or, with its own credentials, of a worker."""

    async def run() -> None:
        if user == "admin":
            async with connected(system) as client:
                await use(client)
            return
        password = json.loads((system.data / "config" / f"{user}.json").read_text())["password"]
        client = await nats.connect(
            system.connection["nats_url"], user=user, password=password, inbox_prefix=f"_INBOX_{user}"
        )
        try:
            await use(client)
        finally:
            await client.close()

    asyncio.run(run())


def _at_once(system: System, messages: list[tuple[str, bytes]]) -> list[dict[str, Any]]:
    """The answers to many requests, in their order. What was more than a principal may say at once is said again."""
    answers: list[dict[str, Any]] = []

    async def ask(client: Client) -> None:
        limit = asyncio.Semaphore(REQUESTS_AT_ONCE)

        async def one(subject: str, body: bytes) -> dict[str, Any]:
            async with limit:
                while True:
                    answer = json.loads((await client.request(subject, body, timeout=ANSWER_SECONDS_MAX)).data)
                    if not _is_too_much(answer.get("error")):
                        return answer
                    await asyncio.sleep(AGAIN_SECONDS)

        answers.extend(await asyncio.gather(*(one(subject, body) for subject, body in messages)))

    _with_client(system, ask)
    return answers


def _is_too_much(error: object) -> bool:
    """Whether the stream's answer says that the sender has used up its share."""
    return isinstance(error, dict) and error["code"] == 429


def _rejections(system: System) -> list[dict[str, Any]]:
    """All rejections that are written in the log, as an admin reads them."""
    return _events(system, "CommandRejected")


def _refused(system: System) -> int:
    """How many commands were refused: those that are written, and those that are only counted."""
    return len(_rejections(system)) + sum(event["count"] for event in _events(system, "RefusalsCounted"))


def _events(system: System, type: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    following = 1
    while True:
        page = system.http.get("/log", params={"from": following, "limit": 500}).json()
        if not page["items"]:
            return found
        found += [event for item in page["items"] for event in item["events"] if event["type"] == type]
        following = page["next"]


def _say(system: System, message: bytes) -> None:
    """Speak NATS's protocol by hand: what a client library would not send."""
    connection = system.connection
    host, port = connection["nats_url"].removeprefix("nats://").split(":")
    credentials = {
        "user": connection["nats_user"],
        "pass": connection["nats_password"],
        "headers": True,
        "verbose": False,
    }
    with socket.create_connection((host, int(port)), timeout=5) as spoken:
        spoken.recv(4096)
        spoken.sendall(b"CONNECT %s\r\nPING\r\n" % json.dumps(credentials).encode())
        assert b"PONG" in spoken.recv(4096)
        spoken.sendall(message + b"PING\r\n")
        # What the server refuses it says, or hangs up; what it takes it answers.
        try:
            spoken.recv(4096)
        except ConnectionResetError:
            return
