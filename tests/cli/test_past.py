"""`--at`: what is asked of the server, and that what is shown says which moment it shows."""

import pytest
from cli_server import SECOND, Answer, FakeServer, Request, Run, a_problem, a_task

AS_OF = {"position": "1842.3", "at": "2026-11-21T10:10:00.000Z"}
SHOWN = "as of 2026-11-21 10:10:00.000 UTC (position 1842.3)"
ITEMS = {
    "workers": {"id": "w1", "status": "active", "labels": {}, "slots": []},
    "queues": {"pool": "default", "queue": "prod", "depth": 3},
    "pools": {"pool": "default", "depth": 3},
}


@pytest.mark.parametrize("command", ITEMS)
def test_a_list_of_the_past_says_which_moment_it_shows(command: str, server: FakeServer, run: Run) -> None:
    server.on("GET", f"/{command}", {"items": [ITEMS[command]], "as_of": AS_OF})
    assert run(command, "--at", "2026-11-21T10:10:00Z").out.splitlines()[0] == SHOWN
    assert server.asked("GET", f"/{command}")[0].parameters == {"at": ["2026-11-21T10:10:00Z"]}
    assert run(command, "--at", "1842.3", "--json").objects == [ITEMS[command] | {"as_of": AS_OF}]


@pytest.mark.parametrize("command", ITEMS)
def test_a_list_of_now_asks_for_no_moment_and_shows_none(command: str, server: FakeServer, run: Run) -> None:
    server.on("GET", f"/{command}", {"items": [ITEMS[command]]})
    assert "as of" not in run(command).out
    assert server.asked("GET", f"/{command}")[0].parameters == {}
    assert run(command, "--json").objects == [ITEMS[command]]


def test_a_task_of_the_past_counts_ages_to_that_moment(server: FakeServer, run: Run) -> None:
    server.on("GET", f"/tasks/{SECOND}", a_task(as_of=AS_OF))
    shown = run("show", SECOND, "--at", "1842.3").out.splitlines()
    assert shown[0] == SHOWN
    assert any(line.startswith("submitted") and "9m ago" in line for line in shown), shown


def test_a_list_of_tasks_of_the_past_asks_for_its_moment_with_each_page_and_counts_ages_to_it(
    server: FakeServer, run: Run
) -> None:
    def page(request: Request) -> Answer:
        last = "cursor" in request.parameters
        return 200, {"items": [a_task()], "next_cursor": None if last else "next", "as_of": AS_OF}

    server.on("GET", "/tasks", page)
    shown = run("tasks", "--at", "2026-11-21T10:10:00Z", "--status", "pending", "--all").out.splitlines()
    assert shown[0] == SHOWN and len(shown) == 4, shown
    assert all(" 9m" in line for line in shown[2:]), shown
    asked = [request.parameters for request in server.asked("GET", "/tasks")]
    assert [each["at"] for each in asked] == [["2026-11-21T10:10:00Z"]] * 2
    assert asked[1]["cursor"] == ["next"] and asked[1]["status"] == ["pending"]
    assert [each["as_of"] for each in run("tasks", "--at", "1842.3", "--all", "--json").objects] == [AS_OF] * 2


def test_a_list_of_tasks_of_now_asks_for_no_moment(server: FakeServer, run: Run) -> None:
    server.on("GET", "/tasks", {"items": [a_task()], "next_cursor": None})
    assert "as of" not in run("tasks").out
    assert "at" not in server.asked("GET", "/tasks")[0].parameters
    assert run("tasks", "--json").objects == [a_task()]


def test_what_is_no_moment_of_the_log_is_told_with_its_field(server: FakeServer, run: Run) -> None:
    problem = a_problem(422, "invalid", "at: is in the future", [{"path": "at", "message": "is in the future"}])
    server.on("GET", "/pools", lambda _: problem)
    ran = run("pools", "--at", "2999-01-01T00:00:00Z")
    assert (ran.status, ran.err) == (3, "taskyard: refused (422 invalid): at: is in the future\n")
