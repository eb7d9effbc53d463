"""Inputs of tasks may hold secrets: they are shown to the task's owner and to admins, and come out nowhere else."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from msgspec import Raw
from system import System, running

from taskyard.api.inputs import outline, outlined, shown_to
from taskyard.api.views import HistoryItem
from taskyard.contracts.events import CommandRejected, TaskScheduled, TaskSubmitted, decode_event
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.values import Instant, TaskId, make_uuid7

SECRET = "hunter2"
INPUTS: Mapping[str, Mapping[str, Any]] = {
    "plan": {"directory": "/srv/tf", "variables": {"password": SECRET, "deep": {"of": [SECRET]}}},
    "plan_and_apply": {"directory": "/srv/tf", "variables": {"password": SECRET}, "auto_confirm": True},
    "command": {"argv": [SECRET, SECRET], "env": {"TOKEN": SECRET}},
    "noop": {"directory": SECRET, "env": {SECRET: SECRET}, "any": [SECRET]},
}


def submitted(kind: str, by: str = "ann", **more: Any) -> TaskSubmitted:
    raw = Raw(msgspec.json.encode(INPUTS[kind]))
    task = TaskId("0199f3c2-0000-7000-8000-000000000001")
    return TaskSubmitted(
        task=task, kind=kind, pool="p", queue="q", by=by, input=raw, digest="d1", timeout_seconds=1, asked="d2", **more
    )


def test_each_kind_has_an_input_here() -> None:
    assert set(INPUTS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_outline_tells_the_directory_and_names_and_no_value(kind: str) -> None:
    shown = json.loads(bytes(outline(kind, Raw(msgspec.json.encode(INPUTS[kind])))))
    expected = {
        "plan": {"directory": "/srv/tf", "variables": {"password": None, "deep": None}},
        "plan_and_apply": {"directory": "/srv/tf", "variables": {"password": None}},
        "command": {"env": {"TOKEN": None}},
        "noop": {},
    }
    assert shown == expected[kind]


def test_a_script_and_an_input_that_does_not_fit_have_an_empty_outline() -> None:
    assert bytes(outline("command", Raw(b'{"script":"echo hunter2"}'))) == b'{"env":{}}'
    for kind, odd in [
        ("plan", b'{"variables":["hunter2"]}'),
        ("plan", b'"hunter2"'),
        ("other", b'{"directory":"hunter2"}'),
    ]:
        assert bytes(outline(kind, Raw(odd))) == b"{}"


@pytest.mark.parametrize("reader", [None, "ann"], ids=["admin", "owner"])
def test_owner_and_admins_see_events_whole(reader: str | None) -> None:
    event = submitted("command")
    assert shown_to(event, reader) is event


def test_others_see_neither_inputs_nor_digests_of_them() -> None:
    for kind in KINDS:
        text = msgspec.json.encode(shown_to(submitted(kind), "bob"))
        assert SECRET.encode() not in text
        assert json.loads(text)["digest"] == ""
        assert "asked" not in json.loads(text)
    rejected = CommandRejected(
        command="c", verb="submit", by="ann", pool="p", status=422, code="c", message="m", asked="d2"
    )
    assert b"d2" not in msgspec.json.encode(shown_to(rejected, "bob"))


def test_an_event_of_a_newer_version_is_shown_to_others_by_type_and_task_only() -> None:
    newer = decode_event(Raw(b'{"type":"TaskAmended","task":"t1","by":"ann","input":{"script":"hunter2"}}'))
    assert shown_to(newer, "bob") == {"type": "TaskAmended", "task": "t1"}
    assert shown_to(newer, None) == newer.raw  # pyright: ignore[reportAttributeAccessIssue]


def test_an_event_without_input_is_shown_to_others_as_it_is() -> None:
    event = TaskScheduled(task=TaskId("t"))
    assert shown_to(event, "bob") is event


def test_history_is_outlined_as_the_feed_is() -> None:
    def item(type: str, data: Any) -> HistoryItem:
        raw = msgspec.json.decode(msgspec.json.encode(data), type=dict[str, Raw])
        return HistoryItem(position="1.0", at="2026-11-29T00:00:00Z", type=type, by="ann", void=False, data=raw)

    shown = outlined(item("TaskSubmitted", submitted("plan")))
    assert json.loads(bytes(shown.data["input"])) == {
        "directory": "/srv/tf",
        "variables": {"password": None, "deep": None},
    }
    assert SECRET.encode() not in msgspec.json.encode(shown)
    assert b"d1" not in msgspec.json.encode(shown)
    assert b"d2" not in msgspec.json.encode(shown)
    assert outlined(item("TaskAmended", {"input": SECRET})).data == {}
    plain = item("TaskScheduled", {"attempt": 1})
    assert outlined(plain) == plain


# -- the whole system --------------------------------------------------------------------------------------------------

CONFIGURATION = """
variable "password" { sensitive = true }
resource "terraform_data" "it" { input = var.password }
"""


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(tmp_path_factory.mktemp("yard"), arguments=()) as system:
        yield system


def secret(name: str) -> str:
    return f"hunter2-{name}"


def tasks_with_secrets(system: System, client: httpx.Client, who: str) -> dict[str, str]:
    """Tasks that have a secret in every field of their inputs, by what they are; all have ended."""
    directory = str(system.configuration(f"secrets-{who}", CONFIGURATION))
    planned = {"directory": directory, "variables": {"password": secret("variable")}}
    bodies = {
        "plan": {"kind": "plan", "queue": f"plans-{who}", "input": planned},
        "apply": {"kind": "plan_and_apply", "queue": f"applies-{who}", "input": planned | {"auto_confirm": True}},
        "argv": {"kind": "command", "input": {"argv": ["true", secret("argv")], "env": {"TOKEN": secret("env")}}},
        "missing": {"kind": "command", "input": {"argv": [secret("program")]}},
        "script": {"kind": "command", "input": {"script": f": {secret('script')}; exit 1"}},
        "noop": {"kind": "noop", "input": {"directory": secret("noop"), secret("name"): 1}},
    }
    ids: dict[str, str] = {}
    for name, body in bodies.items():
        answer = client.post("/tasks", json=body)
        assert answer.status_code == 202, answer.text
        ids[name] = answer.json()["id"]
        system.ended(ids[name])
    # The same id with other content, and a batch of which one is refused.
    assert client.post("/tasks", json={"id": ids["noop"], "kind": "noop", "input": secret("again")}).status_code == 409
    refused_id = make_uuid7(Instant(time.time_ns() // 1_000), 1 if who == "admin" else 2)
    odd = {"directory": secret("relative"), "variables": {"a": secret("a")}}
    tasks = [
        {"kind": "noop", "input": secret("batch")},
        {"id": refused_id, "kind": "plan", "queue": f"plans-{who}", "input": odd},
    ]
    answer = client.post("/tasks", json={"tasks": tasks})
    ids |= {"batch": answer.json()["tasks"][0]["id"], "refused": refused_id}
    retried = client.post(f"/tasks/{ids['script']}/retry", json={})
    assert retried.status_code == 202, retried.text
    ids["retried"] = retried.json()["id"]
    for name in ("batch", "retried"):
        system.ended(ids[name])
    return ids


def paths_to_read(system: System) -> set[str]:
    document = system.http.get(f"{system.connection['http_url']}/docs/openapi.json").json()
    return {path for path, verbs in document["paths"].items() if "get" in verbs}


def everything_read_by(system: System, client: httpx.Client, ids: list[str]) -> dict[str, str]:
    """The answers of all routes that read, those of a task for each task, now and at a moment."""
    last = max((item["position"] for id in ids for item in system.history(id)), key=commit_of)
    root, answers = system.connection["http_url"], dict[str, str]()
    for path in sorted(paths_to_read(system)):
        for url in [path.format(task_id=id) for id in ids] if "{task_id}" in path else [path]:
            for parameters in ({}, {"at": last}):
                if path.endswith("/events"):
                    answers[url] = followed(client, f"{root}{url}", last)
                else:
                    answers[f"{url}?{parameters}"] = client.get(f"{root}{url}", params=parameters).text
    return answers


def commit_of(position: str) -> int:
    return int(position.partition(".")[0])


def followed(client: httpx.Client, url: str, last: str) -> str:
    """The events from the first one to `last`."""
    said: list[str] = []
    reached = False
    with client.stream("GET", url, params={"from": "0.0"}) as answer:
        for line in answer.iter_lines():
            said.append(line)
            reached |= line.startswith("id: ") and commit_of(line[4:]) >= commit_of(last)
            if reached and not line:
                return "\n".join(said)
    raise AssertionError("the stream ended early")


@pytest.mark.slow
def test_no_route_tells_a_viewer_or_another_operator_a_value_of_any_input(yard: System) -> None:
    with yard.as_operator() as operator, yard.as_principal("viewer") as viewer:
        of_admin = tasks_with_secrets(yard, yard.http, "admin")
        of_operator = tasks_with_secrets(yard, operator, "operator")
        ids = [*of_admin.values(), *of_operator.values()]
        seen = everything_read_by(yard, viewer, ids)
        assert {url for url, text in seen.items() if "hunter2" in text} == set()
        assert all(id in seen["/api/v1/events"] for name, id in of_operator.items() if name != "refused")
        foreign = everything_read_by(yard, operator, list(of_admin.values()))
        assert "hunter2" not in "".join(text for url, text in foreign.items() if "/tasks/" in url)
        stream = next(text for url, text in foreign.items() if url.endswith("/events"))
        assert not any(id in stream for id in of_admin.values())
        # It is no wall before everybody.
        for name, client in [("apply", operator), ("apply", yard.http), ("script", operator)]:
            history = client.get(f"/tasks/{of_operator[name]}/history").text
            assert "hunter2" in history
        assert "hunter2-variable" in stream
        shown = viewer.get(f"/tasks/{of_admin['plan']}/history").json()["items"][0]
        assert shown["type"] == "TaskSubmitted"
        assert shown["data"]["kind"] == "plan"
        assert shown["data"]["input"]["variables"] == {"password": None}
        assert Path(shown["data"]["input"]["directory"]).name == "secrets-admin"
        assert viewer.get("/log").status_code == operator.get("/log").status_code == 403
