"""The door over NATS: as a principal's own credentials see it, and the client that stands on it."""

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import msgspec
import pytest
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from taskyard.api.clock import make_id
from taskyard.client import Client, CommandRefused, NotAnswered, connect
from taskyard.contracts.commands import COMMAND_BYTES_MAX, Answer
from taskyard.eventlog.errors import Unanswered
from taskyard.eventlog.jetstream_api import publish

pytestmark = pytest.mark.anyio

NOOP = {"kind": "noop", "input": {}}


async def ask(nc, subject: str, body: object) -> dict:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return json.loads((await nc.request(subject, data, timeout=10)).data)


async def test_a_request_is_answered_as_http_would_with_the_code(world):
    oscar = await world.nats("oscar")
    answer = await ask(oscar, "taskyard.request.oscar.gpu.submit", NOOP)
    assert answer == {"id": world.stored[0][1]["id"], "position": "7.0", "code": 202}
    assert world.stored[0][0] == "taskyard.command.oscar.gpu.submit"
    batch = await ask(oscar, "taskyard.request.oscar.gpu.submit", {"tasks": [NOOP, {"kind": "teapot", "input": 1}]})
    assert batch["code"] == 202
    assert batch["tasks"][0]["position"] == "7.0"
    assert batch["tasks"][1]["error"]["status"] == 422
    await oscar.close()


async def test_a_batch_of_which_every_task_is_refused_and_a_doubled_key_are_refused_as_over_http(world):
    oscar = await world.nats("oscar")
    batch = await ask(oscar, "taskyard.request.oscar.gpu.submit", {"tasks": [{"kind": "teapot", "input": 1}]})
    assert (batch["code"], batch["errors"][0]["path"], len(batch["tasks"])) == (422, "tasks[0].kind", 1)
    for verb, body, path in (
        ("submit", b'{"kind":"noop","input":{"a":1,"a":2}}', "input.a"),
        ("cancel", b'{"task":"%s","reason":"a","reason":"b"}' % make_id().encode(), "reason"),
    ):
        doubled = await ask(oscar, f"taskyard.request.oscar.gpu.{verb}", body)
        assert (doubled["code"], doubled["errors"][0]["path"]) == (422, path)
        assert f"{path}: appears twice" in doubled["detail"]
    assert world.stored == []
    await oscar.close()


async def test_the_verdict_is_told(world):
    world.decide = lambda _: Answer(code=409, error="status_forbids", message="the task is completed")
    admin = await world.nats("admin")
    answer = await ask(admin, "taskyard.request.admin.default.cancel", {"task": make_id()})
    assert (answer["code"], answer["status"], answer["error"]) == (409, 409, "status_forbids")
    await admin.close()


async def test_without_a_verdict_the_position_is_null(impatient):
    impatient.silent = True
    admin = await impatient.nats("admin")
    answer = await ask(admin, "taskyard.request.admin.default.submit", NOOP)
    assert (answer["code"], answer["position"]) == (202, None)
    await admin.close()


async def test_what_is_bad_is_answered_and_not_stored(world):
    table = [
        ("admin.default.submit", b"", 422),
        ("admin.default.submit", b"\xff\xfe\x00", 422),
        ("admin.default.submit", b"[" * 100_000, 422),
        ("admin.default.submit", b'{"kind":"noop","input":"\xff"}', 422),
        ("admin.default.submit", b'{"kind":"noop","input":1}\x00', 422),
        ("admin.default.submit", b'{"kind":"noop","input":1,"pool":"gpu"}', 422),
        ("admin.default.submit", b'{"tasks":[' + b",".join([b'{"kind":"noop","input":1}'] * 501) + b"]}", 422),
        ("admin.default.submit", b" " * (COMMAND_BYTES_MAX + 1), 413),
        ("admin.default.submit", b"x" * 1_000_000, 413),
        ("admin.default.cancel", b"x" * 1_000_000, 413),
        ("admin.default.cancel", b"nonsense", 422),
        ("admin.default.cancel", b"{}", 422),
        ("admin.default.explode", b"{}", 422),
        ("admin.DEFAULT.submit", json.dumps(NOOP).encode(), 422),
        ("admin.default", json.dumps(NOOP).encode(), 422),
        ("admin.default.submit.now", json.dumps(NOOP).encode(), 422),
    ]
    admin = await world.nats("admin")
    answers = [
        (subject, body[:30], (await ask(admin, f"taskyard.request.{subject}", body))["code"])
        for subject, body, _ in table
    ]
    assert answers == [(subject, body[:30], code) for subject, body, code in table]
    assert world.stored == []
    assert (await ask(admin, "taskyard.request.admin.default.submit", NOOP))["code"] == 202
    await admin.close()


async def test_roles_hold_over_nats_too(world):
    vera = await world.nats("vera")
    assert (await ask(vera, "taskyard.request.vera.default.submit", NOOP))["code"] == 403
    oscar = await world.nats("oscar")
    assert (await ask(oscar, "taskyard.request.oscar.default.pause", {}))["code"] == 403
    stranger = await ask(world.control, "taskyard.request.stranger.default.submit", NOOP)
    assert stranger["code"] == 403
    with pytest.raises((NatsTimeoutError, NoRespondersError)):
        await oscar.request("taskyard.request.admin.default.submit", json.dumps(NOOP).encode(), timeout=0.5)
    assert world.stored == []
    await vera.close()
    await oscar.close()


async def test_a_reply_never_goes_to_a_subject_of_the_system(world):
    heard = await world.control.subscribe("taskyard.heartbeat.x")
    await world.control.publish(
        "taskyard.request.admin.default.submit", json.dumps(NOOP).encode(), reply="taskyard.heartbeat.x"
    )
    answer = await ask(world.control, "taskyard.request.admin.default.submit", NOOP)
    assert answer["code"] == 202
    while sum(len(body.get("tasks", [body])) for _, body in world.stored) < 2:
        await world.control.flush()
    with pytest.raises(NatsTimeoutError):
        await heard.next_msg(timeout=0.2)


async def test_the_client_commands_and_is_told_refusals(world):
    nc = await world.nats("admin")
    client = Client(nc, "admin")
    task = await client.submit("noop", {}, queue="q", labels={"a": "b"})
    assert task.id == world.stored[0][1]["id"]
    assert task.position == "7.0"
    await client.cancel(task.id, reason="r")
    await client.confirm(task.id, attempt=2, comment="c")
    await client.discard(task.id)
    await client.force_stop(task.id, reason="r")
    await client.retry(task.id)
    await client.request("pause", {"queue": "q"}, pool="gpu")
    assert [subject.rpartition(".")[2] for subject, _ in world.stored] == [
        "submit", "cancel", "confirm", "discard", "force-stop", "retry", "pause",
    ]  # fmt: skip
    with pytest.raises(CommandRefused) as refused:
        await client.submit("teapot", {})
    assert refused.value.code == 422
    assert refused.value.errors[0].path == "kind"
    await nc.close()


def connection_file(folder: Path, **fields: object) -> Path:
    """A `connection.json` with these fields, and what else stands in one."""
    file = folder / "connection.json"
    others = {"nats_user": "admin", "nats_inbox_prefix": "_INBOX_admin", "http_url": "http://…", "processes": {}}
    file.write_text(json.dumps(others | fields))
    return file


async def test_the_client_gives_up_where_nobody_listens_or_lets_it_in(world, tmp_path, monkeypatch):
    monkeypatch.setattr("taskyard.client.CONNECT_SECONDS_MAX", 0.5)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(NotAnswered, match="Connect call failed"):
            async with connect(connection_file(tmp_path, nats_url=url, nats_password="")):
                pass
    with pytest.raises(NotAnswered, match="Authorization Violation"):
        async with connect(connection_file(tmp_path, nats_url=world.server.url, nats_password="wrong")):
            pass


async def test_an_error_without_words_is_told_by_its_name():
    class Silent:
        async def request(self, *_: object, **__: object) -> None:
            raise TimeoutError

    with pytest.raises(NotAnswered, match="TimeoutError"):
        await Client(Silent(), "admin").submit("noop", {})
    with pytest.raises(Unanswered, match="TimeoutError"):
        await publish(Silent(), "subject", b"")


async def test_where_the_clock_of_a_client_is_wrong_the_door_makes_the_id():
    class Door:
        bodies: ClassVar[list[dict]] = []

        async def request(self, _subject: str, data: bytes, **_: object) -> SimpleNamespace:
            self.bodies.append(json.loads(data))
            fault = {"path": "id", "message": "your clock is ahead by 400 s"}
            refusal = {"code": 422, "error": "invalid", "detail": "", "errors": [fault]}
            answer = refusal if "id" in self.bodies[-1] else {"code": 202, "position": "7.0"}
            return SimpleNamespace(data=json.dumps(answer).encode())

    assert (await Client(Door(), "admin").cancel(make_id())).position == "7.0"
    assert ["id" in body for body in Door.bodies] == [True, False]
    with pytest.raises(CommandRefused, match="422"):
        await Client(Door(), "admin").submit("noop", {}, id=make_id())


async def test_the_client_stores_many_in_few_commands(world, tmp_path):
    heard: list[dict] = []

    async def hear(message) -> None:
        heard.append(msgspec.json.decode(message.data))

    await world.control.subscribe("taskyard.command.admin.default.submit", cb=hear)
    await world.control.flush()
    file = connection_file(tmp_path, nats_url=world.server.url, nats_password=world.server.password("admin"))
    counts: list[int] = []
    async with connect(file) as client:
        ids = await client.submit_many(({**NOOP} for _ in range(2_345)), on_stored=counts.append)
        big = await client.submit_many({"kind": "command", "input": {"script": "x" * 40_000}} for _ in range(7))
    assert len(set(ids)) == 2_345
    assert sum(counts) == 2_345
    assert len(big) == 7
    while sum(len(body["tasks"]) for body in heard) < 2_352:
        await world.control.flush()
    assert sorted(task["id"] for body in heard for task in body["tasks"]) == sorted(ids + big)
    assert max(len(body["tasks"]) for body in heard) == 500
