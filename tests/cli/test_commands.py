"""What each command asks the server, and what comes out of it."""

import io
import json
import sys
from pathlib import Path
from time import sleep, time, time_ns
from types import SimpleNamespace
from typing import Any

import pytest
from cli_server import FIRST, SECOND, TOKEN, FakeServer, Request, Run, a_problem, a_task

from taskyard.cli.bodies import TASKS_PER_REQUEST_MAX
from taskyard.contracts.values import SECOND as MICROSECONDS
from taskyard.contracts.values import is_uuid7, uuid7_instant

HISTORY = {
    "items": [
        {"position": "5.0", "at": "2026-11-21T10:00:00.123Z", "type": "TaskSubmitted", "by": "admin", "void": False,
         "data": {"kind": "plan"}},
        {"position": "9.2", "at": "2026-11-21T10:00:01.000Z", "type": "TaskStarted", "by": "dispatcher", "void": True,
         "data": {"attempt": 1}},
    ]
}  # fmt: skip
SLOT = {"id": 0, "status": "idle", "accepts": ["any"], "task": None}
WORKERS = {"items": [{"id": "w1", "status": "active", "labels": {}, "slots": [SLOT]}]}
TIMES = {"mean": 0.1, "p50": 0.1, "p95": None}
STATS = {
    "tasks": 3, "by_status": {"completed": 3}, "by_kind": {"noop": {"completed": 3}}, "measured": 3,
    "waiting_seconds": TIMES, "execution_seconds": TIMES,
}  # fmt: skip


class AheadBy400:
    """A clock of the command line alone."""

    sleep = staticmethod(sleep)

    @staticmethod
    def time() -> float:
        return time() + 400

    @staticmethod
    def time_ns() -> int:
        return time_ns() + 400_000_000_000


def accept(request: Request) -> tuple[int, Any]:
    return 202, {"id": request.body["id"], "position": "1843.0"}


def test_submit_makes_an_id_and_prints_it(server: FakeServer, run: Run) -> None:
    server.on("POST", "/tasks", accept)
    ran = run(
        "submit",
        "command",
        "--queue",
        "q",
        "--priority",
        "2",
        "--timeout",
        "30",
        "--label",
        "team=net",
        "--",
        "uname",
        "-a",
    )
    [asked] = server.asked("POST", "/tasks")
    assert ran.status == 0 and is_uuid7(asked.body["id"]) and ran.out == asked.body["id"] + "\n" and ran.err == ""
    assert asked.body == {
        "id": asked.body["id"], "kind": "command", "queue": "q", "priority": 2, "timeout_seconds": 30,
        "labels": {"team": "net"}, "input": {"argv": ["uname", "-a"]},
    }  # fmt: skip


def test_submit_without_an_answer_is_sent_again_with_the_same_id(server: FakeServer, run: Run) -> None:
    server.on("POST", "/tasks", accept)
    server.drop = 2
    assert run("submit", "noop").status == 0
    asked = server.asked("POST", "/tasks")
    assert len(asked) == 3 and len({request.body["id"] for request in asked}) == 1


def test_submit_says_when_no_verdict_has_come(server: FakeServer, run: Run) -> None:
    server.on("POST", "/tasks", {"id": SECOND, "position": None}, 202)
    ran = run("submit", "noop", "--json")
    assert ran.status == 0 and ran.objects == [{"id": SECOND, "position": None}] and "not answered" in ran.err


def many(request: Request) -> tuple[int, Any]:
    entries = [
        {"id": task["id"], "error": a_problem(422, "invalid", "kind: unknown kind")[1]}
        if task["kind"] == "nope"
        else {"id": task["id"], "position": "1.0"}
        for task in request.body["tasks"]
    ]
    return 202, {"tasks": entries}


def test_submit_of_a_file_shows_each_verdict(server: FakeServer, run: Run, tmp_path: Path) -> None:
    server.on("POST", "/tasks", many)
    file = tmp_path / "tasks.json"
    file.write_text(
        json.dumps([{"id": FIRST, "kind": "noop", "input": 1, "pool": "own"}, {"kind": "nope", "input": 2}])
    )
    ran = run("submit", "--file", str(file), "--pool", "b")
    [asked] = server.asked("POST", "/tasks")
    assert [task["pool"] for task in asked.body["tasks"]] == ["own", "b"]
    assert ran.status == 3 and ran.out == FIRST + "\n"
    assert "refused (422 invalid): kind: unknown kind" in ran.err and "1 of 2 tasks were refused" in ran.err


def test_submit_of_a_file_of_which_all_is_refused_shows_each_verdict(
    server: FakeServer, run: Run, tmp_path: Path
) -> None:
    def refuse(request: Request) -> tuple[int, Any]:
        tasks = many(request)[1]["tasks"]
        status, problem = a_problem(422, "invalid", "every task was refused: tasks[0].kind: unknown kind")
        return status, {**problem, "tasks": tasks}

    server.on("POST", "/tasks", refuse)
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps([{"kind": "nope", "input": 1}] * (TASKS_PER_REQUEST_MAX + 1)))
    ran = run("submit", "--file", str(file))
    assert len(server.asked("POST", "/tasks")) == 2
    assert (ran.status, ran.out) == (3, "")
    told = ran.err.splitlines()
    assert len(told) == TASKS_PER_REQUEST_MAX + 2
    assert "refused (422 invalid): kind: unknown kind" in told[0]
    assert f"{TASKS_PER_REQUEST_MAX + 1} of {TASKS_PER_REQUEST_MAX + 1} tasks were refused" in told[-1]


def test_submit_of_a_kind_that_there_is_not_says_so_first(server: FakeServer, run: Run) -> None:
    ran = run("submit", "nope")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith('taskyard: there is no kind "nope"; did you mean noop?')
    assert server.asked("POST", "/tasks") == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('[{"kind":"noop","input":{"a":1,"a":2}}]', "[0].input.a"),
        ('{"kind":"noop","input":1}\n{"kind":"noop","kind":"noop"}\n', "line 2: kind"),
    ],
)
def test_a_file_in_which_a_key_stands_twice_is_not_sent(
    server: FakeServer, run: Run, tmp_path: Path, text: str, path: str
) -> None:
    file = tmp_path / "tasks.json"
    file.write_text(text)
    ran = run("submit", "--file", str(file))
    assert ran.status == 2 and f"{path} appears twice" in ran.err
    assert server.asked("POST", "/tasks") == []


def test_submit_reads_tasks_from_standard_input(server: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on("POST", "/tasks", many)
    lines = b'{"kind":"noop","input":1}\n{"kind":"nope","input":1}\n'
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(lines)))
    ran = run("submit", "--file", "-", "--json")
    assert ran.status == 3 and [("error" in entry) for entry in ran.objects] == [False, True]


def test_tasks_filters_and_pages(server: FakeServer, run: Run) -> None:
    def page(request: Request) -> tuple[int, Any]:
        if "cursor" in request.parameters:
            return 200, {"items": [a_task(SECOND)], "next_cursor": None}
        return 200, {"items": [a_task(FIRST)], "next_cursor": "next"}

    server.on("GET", "/tasks", page)
    ran = run(
        "tasks", "--all", "--status", "pending", "--status", "running", "--by", "admin", "--label", "team=net", "--json"
    )
    assert [task["id"] for task in ran.objects] == [FIRST, SECOND]
    first, second = server.asked("GET", "/tasks")
    assert first.parameters == {
        "status": ["pending", "running"], "submitted_by": ["admin"], "label": ["team:net"], "limit": ["500"],
    }  # fmt: skip
    assert second.parameters["cursor"] == ["next"]


def test_tasks_asks_for_no_more_than_the_limit(server: FakeServer, run: Run) -> None:
    server.on("GET", "/tasks", {"items": [a_task(FIRST), a_task(SECOND)], "next_cursor": "next"})
    assert len(run("tasks", "--limit", "2", "--json").objects) == 2
    [asked] = server.asked("GET", "/tasks")
    assert asked.parameters == {"limit": ["2"]}


def test_fields_of_a_newer_server_are_kept_in_json_and_ignored_in_tables(server: FakeServer, run: Run) -> None:
    server.on("GET", f"/tasks/{SECOND}", a_task(colour="red"))
    assert run("show", SECOND, "--json").objects == [a_task(colour="red")]
    assert run("show", SECOND).status == 0


def test_answers_that_lack_fields_are_shown_as_far_as_they_go(server: FakeServer, run: Run) -> None:
    server.on("GET", f"/tasks/{SECOND}", {"id": SECOND, "status": "running"})
    assert "running" in run("show", SECOND).out


@pytest.mark.parametrize(
    ("arguments", "path", "answer", "lines"),
    [
        (("history", SECOND), f"/tasks/{SECOND}/history", HISTORY, HISTORY["items"]),
        (("workers",), "/workers", WORKERS, WORKERS["items"]),
        (("queues",), "/queues", {"items": [{"pool": "default", "queue": "q"}]}, [{"pool": "default", "queue": "q"}]),
        (("pools",), "/pools", {"items": [{"pool": "default"}]}, [{"pool": "default"}]),
        (("stats",), "/stats", STATS, [STATS]),
    ],
)
def test_what_is_read_comes_as_json_or_as_a_table(
    server: FakeServer, run: Run, *, arguments: tuple[str, ...], path: str, answer: Any, lines: Any
) -> None:
    server.on("GET", path, answer)
    assert run(*arguments, "--json").objects == lines
    shown = run(*arguments)
    assert shown.status == 0 and shown.err == "" and len(shown.out.splitlines()) > 1


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (("cancel", SECOND, "--reason", "no"), f"/tasks/{SECOND}/cancel", {"reason": "no"}),
        (
            ("confirm", SECOND, "--attempt", "2", "--comment", "ok"),
            f"/tasks/{SECOND}/confirm",
            {"attempt": 2, "comment": "ok"},
        ),
        (("discard", SECOND), f"/tasks/{SECOND}/discard", {}),
        (("force-stop", SECOND, "--reason", "hung"), f"/tasks/{SECOND}/force-stop", {"reason": "hung"}),
        (("release", SECOND, "--reason", "gone"), f"/tasks/{SECOND}/release", {"reason": "gone"}),
        (("retry", SECOND), f"/tasks/{SECOND}/retry", {}),
        (("reprioritise", SECOND, "1"), f"/tasks/{SECOND}/reprioritise", {"priority": 1}),
        (("queue", "pause", "a/b", "--pool", "p"), "/queues/p/pause", {"queue": "a/b"}),
        (("queue", "pause", "a/b", "--create"), "/queues/default/pause", {"queue": "a/b", "create": True}),
        (("queue", "resume", "a/b"), "/queues/default/resume", {"queue": "a/b"}),
        (("queue", "lock", "prod", "--reason", "audit"), "/queues/default/lock", {"queue": "prod", "reason": "audit"}),
        (("queue", "unlock", "prod"), "/queues/default/unlock", {"queue": "prod"}),
        (
            ("queue", "configure", "prod", "--max-running", "0"),
            "/queues/default/configure",
            {"queue": "prod", "max_running": 0},
        ),
        (("pool", "pause", "p"), "/pools/p/pause", {}),
        (("pool", "resume", "p", "--reason", "done"), "/pools/p/resume", {"reason": "done"}),
        (
            ("pool", "configure", "p", "--max-waiting", "9", "--approval-timeout", "60"),
            "/pools/p/configure",
            {"max_waiting": 9, "approval_timeout_seconds": 60},
        ),
        (("worker", "drain", "w1"), "/workers/w1/drain", {}),
    ],
)
def test_commands_are_sent_with_an_id_of_their_own(
    server: FakeServer, run: Run, arguments: tuple[str, ...], path: str, body: dict[str, Any]
) -> None:
    server.on("POST", path, {"position": "7.0"}, 202)
    server.drop = 1
    assert run(*arguments, "--json").objects == [{"position": "7.0"}]
    asked = server.asked("POST", path)
    assert len(asked) == 2 and asked[0].body == asked[1].body
    assert is_uuid7(asked[0].body.pop("id")) and asked[0].body == body
    assert "position 7.0" in run(*arguments).out


@pytest.mark.parametrize("arguments", [("cancel", SECOND), ("submit", "noop")])
def test_a_clock_that_is_far_ahead_is_no_fault_of_an_id_that_nobody_gave(
    server: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    def answer(request: Request) -> tuple[int, Any]:
        if uuid7_instant(request.body["id"]) > (time() + 300) * MICROSECONDS:
            return a_problem(422, "invalid", "id: ahead", [{"path": "id", "message": "your clock is ahead by 400 s"}])
        return 202, {"id": request.body["id"], "position": "7.0"}

    path = "/tasks" if arguments[0] == "submit" else f"/tasks/{SECOND}/cancel"
    server.on("POST", path, answer)
    monkeypatch.setattr("taskyard.cli.client.time", AheadBy400)

    assert run(*arguments).status == 0
    assert len(server.asked("POST", path)) == 2


def test_an_id_that_somebody_gave_is_refused_with_what_is_wrong_with_their_clock(server: FakeServer, run: Run) -> None:
    fault = {"path": "id", "message": "its time is more than 300 s ahead: your clock is ahead by 400 s"}
    server.on("POST", "/tasks", a_problem(422, "invalid", "id", [fault])[1], 422)

    ran = run("submit", "noop", "--id", SECOND)

    assert ran.status != 0 and "your clock is ahead by 400 s" in ran.err
    assert len(server.asked("POST", "/tasks")) == 1


def test_retry_shows_the_new_task(server: FakeServer, run: Run) -> None:
    server.on("POST", f"/tasks/{FIRST}/retry", {"id": SECOND, "position": "7.0"}, 202)
    assert run("retry", FIRST).out.splitlines()[-1] == SECOND


@pytest.mark.parametrize("name", ["queues", "workers", "pools"])
def test_a_list_is_shown_with_all_of_its_pages(server: FakeServer, run: Run, name: str) -> None:
    def pages(request: Request) -> tuple[int, Any]:
        first = "cursor" not in request.parameters
        item = {"id": "a" if first else "b", "pool": "a" if first else "b", "queue": "q"}
        return 200, {"items": [item], "next_cursor": "more" if first else None}

    server.on("GET", f"/{name}", pages)
    assert [item["pool"] for item in run(name, "--json").objects] == ["a", "b"]
    assert len(run(name).out.splitlines()) == 3
    assert [asked.parameters.get("cursor") for asked in server.asked("GET", f"/{name}")] == [None, ["more"]] * 2


def test_logs_writes_the_output_as_it_is(server: FakeServer, run: Run) -> None:
    server.on("GET", f"/tasks/{SECOND}/output", "eins\nzw\u00f6lf\x00".encode())
    assert run("logs", SECOND, "--attempt", "2", "--stream", "stderr").out == "eins\nzw\u00f6lf\x00"
    [asked] = server.asked("GET", f"/tasks/{SECOND}/output")
    assert asked.parameters == {"attempt": ["2"], "stream": ["stderr"], "from": ["0"], "follow": ["0"]}


def test_logs_on_a_terminal_shows_colours_and_obeys_nothing_else(
    server: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    server.on("GET", f"/tasks/{SECOND}/output", b"\x1b[32mgreen\x1b[0m \x1b]0;owned\x07\n")
    assert run("logs", SECOND).out == "\x1b[32mgreen\x1b[0m \u241b]0;owned\u2407\n\x1b[0m"


def test_logs_as_json_has_an_object_for_each_line(server: FakeServer, run: Run) -> None:
    server.on("GET", f"/tasks/{SECOND}/output", b"one\n\ntwo\xff")
    assert run("logs", SECOND, "--json").objects == [{"line": "one"}, {"line": ""}, {"line": "two\ufffd"}]


def test_the_connection_file_is_used_where_the_environment_says_nothing(
    server: FakeServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("GET", "/workers", WORKERS)
    file = tmp_path / ".taskyard" / "connection.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"http_url": server.url, "admin_token": TOKEN, "nats_url": "nats://127.0.0.1:1"}))
    monkeypatch.delenv("TASKYARD_URL")
    monkeypatch.chdir(tmp_path)
    assert run("workers").status == 0
    monkeypatch.chdir("/")
    assert run("workers").status == 2
    assert run("workers", "--connection", str(file)).status == 0
    monkeypatch.setenv("TASKYARD_CONNECTION", str(file))
    assert run("workers").status == 0
