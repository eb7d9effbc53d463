"""Why a task waits, or how it ended, in plain words."""

from typing import Any

import msgspec
import pytest
from cli_server import FIRST, SECOND, a_task

from taskyard.cli import texts
from taskyard.cli.views import HistoryItem, Task
from taskyard.cli.why import explain

NOW = texts.seconds_of("2026-11-21T10:05:00Z")
assert NOW is not None


def told(changes: dict[str, Any], *history: HistoryItem, blocker: dict[str, Any] | None = None) -> list[str]:
    task = msgspec.convert(a_task(**changes), Task)
    return explain(task, history, msgspec.convert(blocker, Task) if blocker else None, NOW)


def an_item(type: str, *, by: str = "dispatcher", void: bool = False, **data: Any) -> HistoryItem:
    return HistoryItem(position="1.0", at="2026-11-21T10:01:00Z", type=type, by=by, void=void, data=data)


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
        ("worker_lost", f"taskyard force-stop {SECOND}"),
    ],
)
def test_what_people_can_do_is_told(code: str, remedy: str) -> None:
    assert any(remedy in line for line in told(waiting(code, "because")))


def test_a_reason_that_this_version_does_not_know_is_told_as_it_is() -> None:
    assert told(waiting("quota", "waits for quota")) == ["pending, submitted 4m ago: waits for quota (quota)"]


def test_a_running_task_says_where_and_how_long() -> None:
    running = {"status": "running", "worker": "w1", "slot": 2, "attempt": 1, "started_at": "2026-11-21T10:04:00Z"}
    assert told(running) == ["running on w1, slot 2 for 1m00s, attempt 1"]


def test_a_completed_task_says_after_how_long() -> None:
    done = {
        "status": "completed", "worker": "w1", "slot": 0, "attempt": 1,
        "started_at": "2026-11-21T10:00:01Z", "finished_at": "2026-11-21T10:00:03.5Z",
    }  # fmt: skip
    assert told(done) == ["completed at 2026-11-21 10:00:03.5 after 2.5s on w1, slot 0, attempt 1"]


def test_a_failed_task_tells_the_error_and_all_its_setbacks() -> None:
    error = {"code": "exit_status", "message": "ended with 1", "retryable": True}
    failed = {"status": "failed", "attempt": 2, "error": error, "finished_at": "2026-11-21T10:02:00Z"}
    assert told(
        failed,
        an_item("AttemptFailed", attempt=1, error={"code": "exit_status", "message": "ended with 7"}),
        an_item("AttemptFailed", attempt=1, error={"code": "late", "message": "too late"}, void=True),
        an_item("WorkerLost", by="slot_allocator", worker="w1", reason="silent"),
    ) == [
        "failed at 2026-11-21 10:02:00, attempt 2",
        "because: ended with 1 (exit_status; another try could help)",
        f"remedy: `taskyard retry {SECOND}` makes a new task of it",
        "2026-11-21 10:01:00 attempt 1 failed: exit_status: ended with 7",
        "2026-11-21 10:01:00 worker w1 was lost: silent",
    ]


def test_a_cancelled_task_says_who_asked_and_why() -> None:
    lines = told({"status": "cancelled"}, an_item("TaskStopRequested", by="bob", cause="cancel", reason="wrong queue"))
    assert "asked for by bob at 2026-11-21 10:01:00: wrong queue" in lines


def test_a_task_that_was_not_delivered_and_waits_says_so() -> None:
    lines = told(waiting("backoff", "delivery failed"), an_item("NotDelivered", attempt=1, reason="no responders"))
    assert lines[-1] == "2026-11-21 10:01:00 attempt 1 was not delivered: no responders"
