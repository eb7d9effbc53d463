"""What goes wrong is one line on standard error and an exit status of its own; standard output stays clean."""

from pathlib import Path

import pytest
from cli_server import SECOND, FakeServer, Run, a_problem, a_task


def test_a_refusal_names_fields_and_ends_with_3(server: FakeServer, run: Run) -> None:
    faults = [{"path": "input.argv", "message": "is required"}, {"path": "priority", "message": "too high"}]
    server.routes["POST", "/api/v1/tasks"] = a_problem(422, "invalid", "input.argv: is required", faults)
    ran = run("submit", "noop")
    assert (ran.status, ran.out) == (3, "")
    assert ran.err == "taskyard: refused (422 invalid): input.argv: is required; priority: too high\n"


@pytest.mark.parametrize("option", ["kind", "pool", "status"])
def test_a_list_by_something_unknown_is_refused_and_not_empty(server: FakeServer, run: Run, option: str) -> None:
    faults = [{"path": option, "message": f"there is no {option} foo; did you mean food?"}]
    told = f"{option}: {faults[0]['message']}"
    server.routes["GET", "/api/v1/tasks"] = a_problem(422, "invalid", told, faults)
    ran = run("tasks", f"--{option}", "foo")
    assert (ran.status, ran.out) == (3, "")
    assert ran.err == f"taskyard: refused (422 invalid): {told}\n"


@pytest.mark.parametrize(
    ("status", "ends_with"), [(401, 3), (404, 3), (409, 3), (429, 3), (500, 4), (503, 4), (504, 4)]
)
def test_what_the_server_answers_decides_the_exit_status(
    server: FakeServer, run: Run, status: int, ends_with: int
) -> None:
    server.routes["GET", f"/api/v1/tasks/{SECOND}"] = a_problem(status, "code", "because")
    ran = run("show", SECOND, "--json")
    assert (ran.status, ran.out) == (ends_with, "")
    assert ran.err.count("\n") == 1 and "because" in ran.err


def test_a_wrong_token_is_a_refusal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKYARD_TOKEN", "wrong")
    assert run("workers").status == 3


def test_an_answer_that_is_no_problem_document_is_told_too(server: FakeServer, run: Run) -> None:
    server.routes["GET", "/api/v1/workers"] = (502, b"<html>bad gateway")
    ran = run("workers")
    assert ran.status == 4 and "502" in ran.err


def test_a_server_that_answers_nonsense_is_not_ours(server: FakeServer, run: Run) -> None:
    server.routes["GET", "/api/v1/workers"] = (200, b"hello")
    assert run("workers").status == 4


def test_nobody_there_ends_with_4(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKYARD_URL", "http://127.0.0.1:9")
    ran = run("tasks", "--json")
    assert (ran.status, ran.out) == (4, "") and "http://127.0.0.1:9 is not reachable" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit",),
        ("submit", "command"),
        ("submit", "noop", "--label", "team"),
        ("submit", "noop", "--priority", "11"),
        ("submit", "noop", "--file", "x.json"),
        ("submit", "--file", "/does/not/exist"),
        ("show", "17"),
        ("show",),
        ("tasks", "--limit", "0"),
        ("tasks", "--nonsense"),
        ("nonsense",),
        ("force-stop", SECOND),
        ("pool", "configure", "p"),
        ("log", "verify", "--config", "/does/not/exist"),
        ("log", "tail", "--config", "/does/not/exist"),
        ("rebuild", "--config", "/does/not/exist"),
    ],
)
def test_wrong_usage_ends_with_2_and_asks_nothing(server: FakeServer, run: Run, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.out) == (2, "") and ran.err
    assert server.requests == []


def test_a_broken_connection_file_is_wrong_usage(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "connection.json").write_text("{")
    ran = run("workers", "--connection", str(tmp_path / "connection.json"))
    assert ran.status == 2 and "connection.json" in ran.err


def test_the_exit_statuses_stand_in_the_help(run: Run) -> None:
    commands = ((), ("submit",), ("why",), ("queue", "pause"), ("worker", "drain"), ("log", "tail"), ("log", "archive"))
    for command in commands:
        assert "Exit status" in run(*command, "--help").out, command


def test_help_shows_brackets_as_they_are_to_be_typed(run: Run) -> None:
    for command in ("archive", "new-generation"):
        assert "taskyard[s3]" in " ".join(run("log", command, "--help").out.split())


def test_what_others_wrote_cannot_command_the_terminal(server: FakeServer, run: Run) -> None:
    evil = a_task(status="failed", error={"code": "x", "message": "\x1b[2Jgone\nline", "retryable": False})
    server.on("GET", f"/tasks/{SECOND}", evil)
    server.on("GET", "/tasks", {"items": [evil], "next_cursor": None})
    assert "\x1b" not in run("show", SECOND).out
    listed = run("tasks").out
    assert "\x1b" not in listed and len(listed.splitlines()) == 2
