"""Retries: further attempts of one task after a failure, and a new task for one that has ended."""

from datetime import datetime

from system import System


def at(item: dict[str, str]) -> float:
    """The log's time of an event."""
    return datetime.fromisoformat(item["at"]).timestamp()


def test_a_failing_command_is_tried_again_with_backoff_as_often_as_it_may(system: System) -> None:
    # One that passes at the third attempt, one that never does: they wait at the same time.
    recovers = system.command('echo "attempt $TASKYARD_ATTEMPT"; test "$TASKYARD_ATTEMPT" = 3', max_attempts=3)
    hopeless = system.command("echo no >&2; exit 4", max_attempts=2)
    waiting = system.waits(recovers, "backoff")
    assert waiting["status"] == "pending"
    assert "exit_status" in waiting["pending_reason"]["message"]
    failed = system.wait(hopeless, "failed")
    assert (failed["attempt"], failed["error"]["code"], failed["result"]["exit_code"]) == (2, "exit_status", 4)
    completed = system.wait(recovers, "completed")
    assert (completed["attempt"], completed["error"]) == (3, None)
    assert system.output(recovers) == "attempt 3\n"
    assert system.output(recovers, attempt=1) == "attempt 1\n"
    history = system.history(recovers)
    assigned = [item for item in history if item["type"] == "SlotAssigned"]
    assert [item["data"]["attempt"] for item in assigned] == [1, 2, 3]
    assert [item["type"] for item in history].count("TaskStarted") == 3
    failures = [item for item in history if item["type"] == "AttemptFailed"]
    assert at(assigned[1]) - at(failures[0]) >= 2
    assert at(assigned[2]) - at(failures[1]) >= 4


def test_a_command_that_may_not_be_repeated_fails_at_once(system: System) -> None:
    id = system.command("exit 3")
    task = system.wait(id, "failed")
    assert (task["attempt"], task["result"]["exit_code"]) == (1, 3)


def test_a_retry_is_a_new_task_and_leaves_the_old_one_as_it_ended(system: System) -> None:
    marker = system.folder / "retried"
    id = system.command(f"test -e {marker}", labels={"team": "net"}, queue="retried", priority=3)
    before = system.wait(id, "failed")
    marker.touch()
    answer = system.act(id, "retry")
    assert answer.status_code == 202
    new = answer.json()["id"]
    task = system.wait(new, "completed")
    assert new != id
    assert task["retry_of"] == id
    assert [task[name] for name in ("kind", "queue", "priority", "labels")] == [
        "command",
        "retried",
        3,
        {"team": "net"},
    ]
    assert system.task(id) == before
    assert system.act(new, "retry").status_code == 409


def test_a_cancelled_and_a_discarded_task_can_be_retried_too(system: System) -> None:
    directory = system.configuration("retried")
    id = system.terraform("plan_and_apply", directory, "retried")
    system.wait(id, "apply_pending")
    assert system.act(id, "retry").status_code == 409
    assert system.act(id, "discard").status_code == 202
    system.wait(id, "cancelled")
    again = system.act(id, "retry").json()["id"]
    # It asks again: the answer to the old task is no answer to the new one.
    system.wait(again, "apply_pending")
    assert system.act(again, "confirm").status_code == 202
    system.wait(again, "completed")
