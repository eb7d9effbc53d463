"""Why a task waits, or how it ended, in plain words, and its story as the server tells it."""

from typing import Any

import msgspec
import pytest
from cli_server import FIRST, SECOND, FakeServer, Run, a_task

from taskyard.cli import texts
from taskyard.cli.views import Why
from taskyard.cli.why import explain

NOW = texts.seconds_of("2026-11-21T10:05:00Z")
assert NOW is not None


def told(changes: dict[str, Any], blocker: dict[str, Any] | None = None) -> list[str]:
    why = msgspec.convert({"task": a_task(**changes), "blocker": blocker}, Why)
    return explain(why, NOW)


def waiting(code: str, message: str, **more: Any) -> dict[str, Any]:
    return {"pending_reason": {"code": code, "message": message, **more}}


def test_a_busy_workspace_names_the_blocker_its_state_and_what_to_do() -> None:
    blocker = a_task(FIRST, status="apply_pending", submitted_by="alice")
    reason = waiting("workspace_busy", f"waits for {FIRST} in prod", blocker=FIRST, queue_position=2)
    assert told(reason, blocker=blocker) == [
        f"pending, submitted 4m ago: waits for {FIRST} in prod (workspace_busy)",
        "place: number 2 in queue prod",
        f"blocker: {FIRST} (plan_and_apply by alice, apply_pending, 4m old)",
        f"remedy: answer with `taskyard confirm {FIRST}` or `taskyard discard {FIRST}`",
    ]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("approval", f"taskyard confirm {SECOND}"),
        ("queue_paused", "taskyard queue resume prod --pool default"),
        ("pool_paused", "taskyard pool resume default"),
        ("queue_locked", "taskyard queue unlock prod"),
        ("queue_limit", "--max-running"),
        ("no_worker", "taskyard workers"),
        ("worker_lost", f"taskyard release {SECOND}"),
    ],
)
def test_what_people_can_do_is_told(code: str, remedy: str) -> None:
    assert any(remedy in line for line in told(waiting(code, "because")))


@pytest.mark.parametrize("code", ["not_before", "backoff", "workspace_busy", "queue_order", "no_free_slot", "quota"])
def test_a_reason_that_only_time_ends_or_that_this_version_does_not_know_is_told_as_it_is(code: str) -> None:
    assert told(waiting(code, "waits")) == [f"pending, submitted 4m ago: waits ({code})"]


def test_a_running_task_says_where_and_how_long() -> None:
    running = {"status": "running", "worker": "w1", "slot": 2, "attempt": 1, "started_at": "2026-11-21T10:04:00Z"}
    assert told(running) == ["running on w1, slot 2 for 1m00s, attempt 1"]


def test_a_completed_task_says_after_how_long() -> None:
    done = {
        "status": "completed", "worker": "w1", "slot": 0, "attempt": 1,
        "started_at": "2026-11-21T10:00:01Z", "finished_at": "2026-11-21T10:00:03.5Z",
    }  # fmt: skip
    assert told(done) == ["completed at 2026-11-21 10:00:03.5 after 2.5s on w1, slot 0, attempt 1"]


def test_a_failed_task_tells_the_error_and_how_to_try_again() -> None:
    error = {"code": "exit_status", "message": "ended with 1", "retryable": True}
    failed = {"status": "failed", "attempt": 2, "error": error, "finished_at": "2026-11-21T10:02:00Z"}
    assert told(failed) == [
        "failed at 2026-11-21 10:02:00, attempt 2",
        "because: ended with 1 (exit_status; another try could help)",
        f"remedy: `taskyard retry {SECOND}` makes a new task of it",
    ]


def a_line(message: str, by: str = "scheduler", type: str = "TaskScheduled") -> dict[str, Any]:
    return {"position": "1.0", "at": "2026-11-21T10:01:00.250Z", "by": by, "type": type, "message": message}


def answer(**changes: Any) -> dict[str, Any]:
    return {
        "task": a_task(), "blocker": None, "summary": "", "waits": [], "decisions": [], "complete": True,
    } | changes  # fmt: skip


def test_the_story_has_a_line_for_each_decision_with_time_and_who(server: FakeServer, run: Run) -> None:
    lines = [a_line("submitted a plan", by="bob"), a_line("waited 3 min for workspace prod", type="waited")]
    server.on("GET", f"/tasks/{SECOND}/why", answer(decisions=lines))
    shown = run("why", SECOND).out.splitlines()
    assert shown[-2:] == [
        "2026-11-21 10:01:00.250  bob        submitted a plan",
        "2026-11-21 10:01:00.250  scheduler  waited 3 min for workspace prod",
    ]


def test_a_long_line_is_folded_below_itself_and_the_day_stands_above(
    server: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("GET", f"/tasks/{SECOND}/why", answer(decisions=[a_line("one two three four five six seven eight")]))
    monkeypatch.setenv("COLUMNS", "50")
    shown = run("why", SECOND).out.splitlines()
    assert shown[-3:] == [
        "on 2026-11-21, UTC",
        "10:01:00.250  scheduler  one two three four five",
        "                         six seven eight",
    ]


def test_days_stand_on_each_line_where_there_are_several(
    server: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [a_line("one"), a_line("two") | {"at": "2026-11-22T10:01:00.250Z"}]
    server.on("GET", f"/tasks/{SECOND}/why", answer(decisions=lines))
    monkeypatch.setenv("COLUMNS", "50")
    assert [line[:10] for line in run("why", SECOND).out.splitlines()[-2:]] == ["2026-11-21", "2026-11-22"]


def test_what_to_do_is_folded_behind_its_label(server: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = a_task(status="failed", finished_at="2026-11-21T10:01:00.250Z", attempt=1)
    server.on("GET", f"/tasks/{SECOND}/why", answer(task=failed))
    monkeypatch.setenv("COLUMNS", "80")
    assert run("why", SECOND).out.splitlines()[1:3] == [
        f"remedy: `taskyard retry {SECOND}` makes a new task",
        "        of it",
    ]


def test_what_comes_from_strangers_cannot_move_the_cursor(server: FakeServer, run: Run) -> None:
    server.on("GET", f"/tasks/{SECOND}/why", answer(decisions=[a_line("failed with x: \x1b[2J\nall is well")]))
    assert "\x1b" not in run("why", SECOND).out


def test_a_refused_submission_is_explained_though_there_is_no_task(server: FakeServer, run: Run) -> None:
    refusal = "refused the submit (422 invalid): kind: unknown kind"
    server.on("GET", f"/tasks/{SECOND}/why", answer(task=None, summary=refusal, decisions=[a_line(refusal)]))
    ran = run("why", SECOND)
    assert ran.status == 0 and ran.out.splitlines()[0] == refusal


def test_a_story_that_is_not_whole_says_so(server: FakeServer, run: Run) -> None:
    server.on("GET", f"/tasks/{SECOND}/why", answer(complete=False))
    assert run("why", SECOND).out.splitlines()[-1].startswith("some waits are not explained")


def test_json_is_what_the_server_said(server: FakeServer, run: Run) -> None:
    server.on("GET", f"/tasks/{SECOND}/why", answer(summary="it waited"))
    assert run("why", SECOND, "--json").objects == [answer(summary="it waited")]
