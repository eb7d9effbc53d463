"""`--wait` and `watch`: to the end, through restarts of the server, without missing it."""

from typing import Any

import pytest
from cli_server import FIRST, SECOND, Answer, BrokenOff, FakeServer, Request, Run, a_problem, a_task

from taskyard.contracts.output_marks import missing_mark


def an_event(type: str, task: str = SECOND, position: str = "9.0", **data: Any) -> dict[str, Any]:
    return {
        "position": position,
        "at": "2026-11-21T10:00:01.000Z",
        "type": type,
        "data": {"type": type, "task": task, **data},
    }


def in_turn(*answers: dict[str, Any]) -> Any:
    """Each answer once, the last one for ever."""
    left = list(answers)
    return lambda _: (200, left.pop(0) if len(left) > 1 else left[0])


def accepting(server: FakeServer, *answers: dict[str, Any]) -> None:
    server.on("POST", "/tasks", {"id": SECOND, "position": "8.0"}, 202)
    server.on("GET", f"/tasks/{SECOND}", in_turn(*answers))


@pytest.mark.parametrize(("status", "ends_with"), [("completed", 0), ("failed", 1), ("timeout", 1), ("cancelled", 1)])
def test_waiting_ends_with_0_only_if_the_task_completed(
    server: FakeServer, run: Run, status: str, ends_with: int
) -> None:
    accepting(server, a_task(), a_task(status="running", worker="w1"), a_task(status=status))
    server.events = [[an_event("TaskStarted"), an_event("AttemptSucceeded", position="10.0")]]
    ran = run("submit", "noop", "--wait")
    assert ran.status == ends_with
    assert ran.out.splitlines()[-1] == f"{SECOND} {status}"


def test_the_first_look_waits_for_the_submission(server: FakeServer, run: Run) -> None:
    accepting(server, a_task(status="completed"))
    run("submit", "noop", "--wait")
    [asked] = server.asked("GET", f"/tasks/{SECOND}")
    assert asked.parameters == {"after": ["8.0"]}


def test_waiting_as_json_writes_the_ended_task_alone(server: FakeServer, run: Run) -> None:
    accepting(server, a_task(), a_task(status="completed"))
    server.events = [[an_event("AttemptSucceeded")]]
    assert run("submit", "noop", "--wait", "--json").objects == [a_task(status="completed")]


def test_a_stream_that_ends_is_opened_again(server: FakeServer, run: Run) -> None:
    accepting(server, a_task(), a_task(status="running"), a_task(status="running"), a_task(status="completed"))
    assert run("submit", "noop", "--wait").status == 0
    assert len(server.asked("GET", "/events")) > 1


def test_a_server_that_is_away_for_a_moment_is_waited_for(server: FakeServer, run: Run) -> None:
    def pending_then_away(_: Request) -> tuple[int, Any]:
        server.on("GET", f"/tasks/{SECOND}", a_task(status="completed"))
        server.drop = 7
        return 200, a_task()

    server.on("POST", "/tasks", {"id": SECOND, "position": "8.0"}, 202)
    server.on("GET", f"/tasks/{SECOND}", pending_then_away)
    assert run("submit", "noop", "--wait").status == 0


def test_a_server_that_stays_away_ends_the_waiting(
    server: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.cli.following.UNREACHABLE_SECONDS_MAX", 0.05)

    def pending_then_away(_: Request) -> tuple[int, Any]:
        server.drop = 1_000_000
        return 200, a_task()

    server.on("POST", "/tasks", {"id": SECOND, "position": "8.0"}, 202)
    server.on("GET", f"/tasks/{SECOND}", pending_then_away)
    assert run("submit", "noop", "--wait").status == 4


def test_a_task_that_the_read_model_lacks_yet_is_waited_for(server: FakeServer, run: Run) -> None:
    server.on("POST", "/tasks", {"id": SECOND, "position": None}, 202)
    left = [a_problem(404, "not_found", "there is no such task"), (200, a_task(status="completed"))]
    server.on("GET", f"/tasks/{SECOND}", lambda _: left.pop(0) if len(left) > 1 else left[0])
    assert run("submit", "noop", "--wait").status == 0


def test_a_task_that_is_refused_later_ends_with_3(server: FakeServer, run: Run) -> None:
    server.on("POST", "/tasks", {"id": SECOND, "position": None}, 202)
    told = {"verb": "submit", "command": SECOND, "status": 409, "code": "id_taken"}
    server.events = [[an_event("CommandRejected", message="the id is another task's", **told)]]
    ran = run("submit", "noop", "--wait")
    assert ran.status == 3 and "the id is another task's" in ran.err


def test_a_command_about_a_task_that_is_refused_does_not_end_the_waiting(server: FakeServer, run: Run) -> None:
    accepting(server, a_task(status="running"), a_task(status="completed"))
    server.events = [[an_event("CommandRejected", verb="confirm", command=FIRST, status=409, code="status")]]
    assert run("submit", "noop", "--wait").status == 0


def test_following_output_goes_on_behind_what_is_not_kept_any_more(server: FakeServer, run: Run) -> None:
    server.on("GET", f"/tasks/{SECOND}", a_task(attempt=1))
    first = missing_mark(1_000) + b"one" + missing_mark(50) + b"two"

    def broken_first(request: Request) -> Answer:
        if len(server.asked("GET", f"/tasks/{SECOND}/output")) == 1:
            return 200, BrokenOff(first)
        return 200, b"rest"

    server.on("GET", f"/tasks/{SECOND}/output", broken_first)
    assert run("logs", "-f", SECOND).out == (first + b"rest").decode()
    assert [asked.parameters["from"] for asked in server.asked("GET", f"/tasks/{SECOND}/output")] == [["0"], ["1056"]]


def test_a_lost_worker_lets_all_tasks_be_looked_at(server: FakeServer, run: Run) -> None:
    accepting(server, a_task(status="running"), a_task(status="failed"))
    lost = {"position": "9.0", "at": "2026-11-21T10:00:01.000Z", "type": "WorkerLost", "data": {"worker": "w1"}}
    server.events = [[lost]]
    assert run("submit", "noop", "--wait").status == 1
    assert len(server.asked("GET", "/events")) == 1


def test_many_tasks_are_all_waited_for(server: FakeServer, run: Run, tmp_path: Any) -> None:
    file = tmp_path / "tasks.json"
    file.write_text(f'[{{"id":"{FIRST}","kind":"noop","input":1}},{{"id":"{SECOND}","kind":"noop","input":1}}]')
    server.on("POST", "/tasks", {"tasks": [{"id": FIRST, "position": "8.0"}, {"id": SECOND, "position": "8.1"}]}, 202)
    server.on("GET", f"/tasks/{FIRST}", in_turn(a_task(FIRST), a_task(FIRST, status="completed")))
    server.on("GET", f"/tasks/{SECOND}", in_turn(a_task(), a_task(status="failed")))
    server.events = [[an_event("AttemptSucceeded", FIRST)], [an_event("AttemptFailed")]]
    ran = run("submit", "--file", str(file), "--wait", "--json")
    assert ran.status == 1 and {(task["id"], task["status"]) for task in ran.objects} == {
        (FIRST, "completed"),
        (SECOND, "failed"),
    }


def test_watching_one_task_goes_on_to_its_end(server: FakeServer, run: Run) -> None:
    server.on("GET", f"/tasks/{SECOND}", in_turn(a_task(), a_task(), a_task(status="completed")))
    server.events = [[an_event("AttemptSucceeded")]]
    ran = run("watch", SECOND, "--json")
    assert ran.status == 0 and [task["status"] for task in ran.objects] == ["pending", "completed"]


def test_watching_a_task_that_is_not_there_is_refused(run: Run) -> None:
    assert run("watch", SECOND).status == 3


def test_watching_all_writes_what_has_changed(server: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskyard.cli.watch.REFRESH_SECONDS", 0.0)
    lists = [[a_task(FIRST), a_task()], [a_task(FIRST, status="running"), a_task()]]

    def listed(_: Request) -> tuple[int, Any]:
        # Refused at the end, since watching all goes on for ever.
        return (200, {"items": lists.pop(0), "next_cursor": None}) if lists else a_problem(403, "forbidden", "enough")

    server.on("GET", "/tasks", listed)
    ran = run("watch", "--json")
    assert ran.status == 3
    assert [(task["id"], task["status"]) for task in ran.objects] == [
        (SECOND, "pending"), (FIRST, "pending"), (FIRST, "running"),
    ]  # fmt: skip


def test_following_output_goes_on_where_it_broke(server: FakeServer, run: Run) -> None:
    server.on("GET", f"/tasks/{SECOND}", a_task(attempt=1))

    def broken_first(request: Request) -> tuple[int, Any]:
        if len(server.asked("GET", f"/tasks/{SECOND}/output")) == 1:
            server.drop = 1
            return 503, {"status": 503, "detail": "away"}
        return 200, b"rest"

    server.on("GET", f"/tasks/{SECOND}/output", broken_first)
    assert run("logs", "-f", SECOND).out == "rest"


def test_following_output_ends_when_the_server_stays_away(
    server: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.cli.following.UNREACHABLE_SECONDS_MAX", 0.05)
    server.on("GET", f"/tasks/{SECOND}", a_task(attempt=1))
    server.on("GET", f"/tasks/{SECOND}/output", {"status": 503, "detail": "NATS is away"}, 503)
    ran = run("logs", "-f", SECOND)
    assert ran.status == 4 and "NATS is away" in ran.err
