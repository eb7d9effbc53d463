"""The generated files are those that the contracts give, and they describe what really is sent."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from msgspec import Raw

from taskyard.contracts import agent_protocol, commands, subjects
from taskyard.contracts.events import (
    OWNERS,
    AnyEvent,
    AttemptFailed,
    Changes,
    FieldError,
    TaskError,
    TaskPlanned,
    TaskSubmitted,
    decode_event,
)
from taskyard.contracts.generate import FOLDER, compare, main, render
from taskyard.contracts.generate_asyncapi import asyncapi, channels
from taskyard.contracts.generate_schema import GROUPS, schema
from taskyard.contracts.kinds.command import CommandInput
from taskyard.contracts.kinds.terraform import TerraformInput
from taskyard.contracts.values import Instant, Position, TaskId
from taskyard.contracts.verbs import VERBS
from taskyard.eventlog.commit import Commit, CommitCodec

TASK = TaskId("0199f3c2-0000-7000-8000-000000000001")
FAILED = AttemptFailed(task=TASK, attempt=1, error=TaskError(code="exit_status", message="ended with 1"))
SAMPLES: list[tuple[str, Any]] = [
    ("commands", commands.TaskSpec(kind="command", input=Raw(b'{"argv":["uptime"]}'), labels={"team": "net"})),
    ("commands", commands.TaskBatch(id=TASK, tasks=[Raw(b'{"kind":"noop","input":null}')])),
    ("commands", commands.TaskCommand(task=TASK, reason="not needed")),
    ("commands", commands.ApprovalCommand(task=TASK, attempt=2)),
    ("commands", commands.ConfigureQueueCommand(queue="prod", max_running=3)),
    ("commands", commands.LockCommand(queue="prod", reason="audit")),
    ("answers", commands.Answer(code=422, error="invalid", errors=(FieldError(path="input", message="missing"),))),
    ("events", FAILED),
    ("events", TaskPlanned(task=TASK, attempt=1, changes=Changes(add=1))),
    (
        "events",
        TaskSubmitted(
            task=TASK,
            kind="noop",
            pool="default",
            queue="default",
            by="admin",
            input=Raw(b"{}"),
            digest="",
            timeout_seconds=60,
        ),
    ),
    (
        "agent_protocol",
        agent_protocol.ReportBatch(
            incarnation=1,
            number=1,
            reports=(agent_protocol.Succeeded(task=TASK, attempt=1, at=Instant(5), result=Raw(b'{"exit_code":0}')),),
        ),
    ),
    (
        "agent_protocol",
        agent_protocol.AssignRequest(
            incarnation=1,
            assignments=(
                agent_protocol.Assignment(
                    position=Position(1024),
                    task=TASK,
                    attempt=1,
                    slot=0,
                    incarnation=1,
                    kind="noop",
                    input=Raw(b"{}"),
                    timeout_seconds=60,
                ),
            ),
        ),
    ),
    ("kinds", TerraformInput(directory="/srv/tf", variables={"n": 2})),
    ("kinds", CommandInput(argv=["uptime"])),
]


def test_the_files_are_those_that_the_contracts_give() -> None:
    assert "".join(compare(FOLDER, render())) == ""


def test_rendering_twice_gives_the_same_text() -> None:
    assert render() == render()


@pytest.mark.parametrize(
    ("group", "sample"), SAMPLES, ids=lambda value: value if isinstance(value, str) else type(value).__name__
)
def test_what_is_sent_fits_its_schema(group: str, sample: Any) -> None:
    definitions = schema(group)
    narrowed = {**definitions, "anyOf": [{"$ref": f"#/$defs/{type(sample).__name__}"}]}
    jsonschema.Draft202012Validator(narrowed).validate(msgspec.json.decode(msgspec.json.encode(sample)))


@pytest.mark.parametrize("group", GROUPS)
def test_schemas_are_valid_and_marked(group: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(group))
    assert "Do not edit" in schema(group)["$comment"]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("TaskSpec", {"kind": "noop"}),
        ("TaskSpec", {"kind": "noop", "input": None, "priority": 11}),
        ("TaskSpec", {"kind": "noop", "input": None, "prioritty": 1}),
        ("TaskCommand", {"task": "1"}),
        ("LockCommand", {"queue": "Not A Queue"}),
    ],
)
def test_what_the_decoders_refuse_does_not_fit_either(name: str, body: dict[str, Any]) -> None:
    narrowed = {**schema("commands"), "anyOf": [{"$ref": f"#/$defs/{name}"}]}
    assert list(jsonschema.Draft202012Validator(narrowed).iter_errors(body))
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(body), type=getattr(commands, name))


def test_every_reference_of_the_asyncapi_document_resolves() -> None:
    document = asyncapi()
    references = list(_references(document))
    assert references
    for reference in references:
        _resolve(document, reference)


def test_the_asyncapi_document_has_the_required_structure() -> None:
    document = asyncapi()
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= document["info"].keys()
    for channel in document["channels"].values():
        assert set(re.findall(r"{(\w+)}", channel["address"])) == set(channel.get("parameters", ()))
        assert channel["messages"]
    for operation in document["operations"].values():
        assert operation["action"] in ("send", "receive")
        own = _resolve(document, operation["channel"]["$ref"])["messages"]
        assert all(_resolve(document, message["$ref"]) in own.values() for message in operation["messages"])


def test_messages_of_the_asyncapi_document_fit_what_is_sent() -> None:
    document = asyncapi()
    for _, sample in SAMPLES:
        if type(sample).__name__ in document["components"]["messages"]:
            _validate(document, type(sample).__name__, msgspec.json.encode(sample))


def test_a_stored_commit_fits_the_message_of_its_writer() -> None:
    codec = CommitCodec(AnyEvent, decode_event)
    commit = Commit[Any](writer="dispatcher", instance="a", epoch=1, at=Instant(5), cursors={"S": 3}, events=(FAILED,))
    _validate(asyncapi(), "DispatcherCommit", codec.encode(commit))
    envelope = {field.encode_name for field in msgspec.structs.fields(Commit)}
    assert set(asyncapi()["components"]["schemas"]["DispatcherCommit"]["properties"]) == envelope


def test_channels_lie_on_the_subjects_of_the_table_and_leave_none_out() -> None:
    rows = [*subjects.streams("{partition}"), *subjects.CORE_SUBJECTS]
    for channel in channels():
        patterns = (
            channel.source.subjects
            if isinstance(channel.source, subjects.StreamSpec)
            else (re.sub(r"<[^>]*>", "*", channel.source.subject),)
        )
        assert any(_lies_on(channel.address, pattern) for pattern in patterns), channel.address
    assert all(any(channel.source == row for channel in channels()) for row in rows)


def test_the_page_names_every_event_verb_and_stream() -> None:
    page = render()["subjects.md"]
    names = [event.__name__ for owned in OWNERS.values() for event in owned]
    for name in (*names, *VERBS, *(stream.name for stream in subjects.streams("<partition>"))):
        assert f"`{name}`" in page


def test_check_shows_a_difference_and_writing_mends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--folder", str(tmp_path)]) == 0
    assert main(["--folder", str(tmp_path), "--check"]) == 0
    (tmp_path / "subjects.md").write_text("edited by hand\n")
    (tmp_path / "left_over.json").write_text("{}")
    capsys.readouterr()
    assert main(["--folder", str(tmp_path), "--check"]) == 1
    shown = capsys.readouterr().out
    assert "-edited by hand" in shown and "found/left_over.json" in shown
    assert main(["--folder", str(tmp_path)]) == 0
    assert main(["--folder", str(tmp_path), "--check"]) == 0


def _validate(document: dict[str, Any], message: str, data: bytes) -> None:
    narrowed = {"$ref": f"#/components/schemas/{message}", "components": document["components"]}
    jsonschema.Draft202012Validator(narrowed).validate(json.loads(data))


def _references(node: Any) -> Any:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _resolve(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def _lies_on(address: str, pattern: str) -> bool:
    parts = address.split(".")
    for index, token in enumerate(pattern.split(".")):
        if token == ">":
            return len(parts) > index
        choices = token.strip("{}").split(",") if token.startswith("{") and "," in token else [token]
        if index >= len(parts) or (token != "*" and parts[index] not in choices):
            return False
    return len(parts) == len(pattern.split("."))
