"""The doors over NATS, with the credentials of `connection.json`, and what these do not allow."""

import asyncio
import json
import socket
from urllib.parse import urlsplit

import pytest
from nats_doors import ask, ask_with, connected, store
from system import System

from taskyard.client import make_id

DENIED_SECONDS_MAX = 5.0


def test_a_stored_command_is_acknowledged_and_its_outcome_shows(system: System) -> None:
    id = make_id()
    body = {"id": id, "kind": "command", "input": {"argv": ["echo", "by nats"]}}
    first = store(system, "submit", body)
    assert store(system, "submit", body) > first  # it is stored each time, and decided once
    assert system.wait(id, "completed")["submitted_by"] == "admin"
    assert system.output(id) == "by nats\n"
    assert system.types(id).count("TaskStarted") == 1


def test_a_request_is_answered_as_http_would(system: System) -> None:
    answer = ask(system, "submit", kind="noop", input={})
    assert answer["code"] == 202
    seen = system.http.get(f"/tasks/{answer['id']}", params={"after": answer["position"]})
    assert seen.json()["id"] == answer["id"]
    system.wait(answer["id"], "completed")
    assert ask(system, "cancel", task=answer["id"])["code"] == 409
    assert ask(system, "cancel", task=make_id())["code"] == 404
    wrong = ask(system, "submit", kind="command", input={"argv": []})
    assert wrong["code"] == 422
    assert [error["path"] for error in wrong["errors"]] == ["input.argv"]


def test_a_batch_by_request_answers_for_each_task(system: System) -> None:
    answer = ask(system, "submit", tasks=[{"kind": "noop", "input": {}}, {"kind": "nothing", "input": {}}])
    assert answer["code"] == 202
    accepted, refused = answer["tasks"]
    assert "error" in refused
    system.wait(accepted["id"], "completed")


def test_a_body_may_not_name_another_pool_than_its_subject(system: System) -> None:
    answer = ask_with(system, "default.submit", {"kind": "noop", "input": {}, "pool": "other"})
    assert answer["code"] == 422
    assert [error["path"] for error in answer["errors"]] == ["pool"]


def test_a_command_with_an_id_is_decided_once(system: System) -> None:
    gate = system.gate("decided-once")
    task = system.command(gate.wait)
    system.wait(task, "running")
    id = make_id()
    answers = [ask(system, "cancel", id=id, task=task, reason="twice") for _ in range(2)]
    assert answers[0]["code"] == answers[1]["code"] == 202
    assert answers[0]["position"] == answers[1]["position"]
    system.wait(task, "cancelled")
    assert [item["type"] for item in system.history(task)].count("TaskStopRequested") == 1


@pytest.mark.parametrize(
    "subject",
    [
        "taskyard.command.operator.default.submit",
        "taskyard.request.operator.default.submit",
        "taskyard.log.0.scheduler",
        "taskyard.agent.worker-1.assign",
        "$JS.API.STREAM.LIST",
    ],
)
def test_a_client_publishes_only_under_its_own_name(system: System, subject: str) -> None:
    async def attempt() -> str:
        denied: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        async def on_error(error: Exception) -> None:
            if not denied.done():
                denied.set_result(error)

        async with connected(system, error_cb=on_error) as client:
            await client.publish(subject, json.dumps({"kind": "noop", "input": {}}).encode())
            await client.flush()
            return str(await asyncio.wait_for(denied, DENIED_SECONDS_MAX))

    assert "permissions violation" in asyncio.run(attempt()).lower()


def test_a_client_listens_only_below_its_inbox_prefix(system: System) -> None:
    async def attempt() -> str:
        denied: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        async def on_error(error: Exception) -> None:
            if not denied.done():
                denied.set_result(error)

        async with connected(system, error_cb=on_error) as client:
            await client.subscribe("taskyard.>")
            await client.flush()
            return str(await asyncio.wait_for(denied, DENIED_SECONDS_MAX))

    assert "permissions violation" in asyncio.run(attempt()).lower()


def test_nobody_connects_without_credentials(system: System) -> None:
    address = urlsplit(system.connection["nats_url"])
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        connection.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        with connection.makefile("rb") as answers:
            assert answers.readline().startswith(b"INFO ")
            assert b"authorization violation" in answers.readline().lower()
