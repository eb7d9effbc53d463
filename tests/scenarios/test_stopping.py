"""Stopping: a cancel or a deadline reaches the process, and the end is told once the process is gone."""

import time

from host_processes import is_running
from system import System


def test_a_cancel_reaches_the_process_and_is_acknowledged(system: System) -> None:
    id = system.command("echo $$; sleep 600 & echo $!; wait")
    pids = system.written(id, lines=2)
    assert all(is_running(int(pid)) for pid in pids)
    answer = system.act(id, "cancel", reason="enough")
    assert answer.status_code == 202
    assert answer.json()["position"] is not None
    task = system.wait(id, "cancelled")
    assert not any(is_running(int(pid)) for pid in pids)
    assert task["error"]["code"] == "cancelled"
    assert "admin: enough" in task["error"]["message"]
    assert system.types(id)[-2:] == ["TaskStopRequested", "AttemptFailed"]


def test_a_cancelled_task_gets_its_end_and_the_time_of_it_from_one_event(system: System) -> None:
    gate = system.gate("lingers")
    id = system.command(f"trap '{gate.wait}; exit 7' TERM; echo up; sleep 600 & wait")
    system.written(id)
    assert system.act(id, "cancel").status_code == 202
    stopping = system.wait(id, "cancelling")
    assert stopping["finished_at"] is None
    assert system.slots()["worker-1", 0]["status"] == "running"
    assert system.act(id, "cancel").status_code == 202  # it already holds
    gate.open()
    task = system.wait(id, "cancelled")
    end = system.event(id, "AttemptFailed")
    assert task["finished_at"] == end["at"]
    assert task["position"] == end["position"]


def test_a_cancel_of_what_waits_is_immediate(system: System) -> None:
    gate = system.gate("in-front")
    holder = system.command(gate.wait)
    waiting = system.command("true")
    system.waits(waiting, "no_free_slot")
    position = system.act(waiting, "cancel").json()["position"]
    task = system.http.get(f"/tasks/{waiting}", params={"after": position}).json()
    assert (task["status"], task["attempt"], task["started_at"]) == ("cancelled", 0, None)
    assert system.types(waiting)[-1] == "TaskStopRequested"
    gate.open()
    system.wait(holder, "completed")


def test_what_has_ended_is_not_cancelled(system: System) -> None:
    id = system.command("true")
    before = system.wait(id, "completed")
    refused = system.act(id, "cancel")
    assert refused.status_code == 409
    assert "completed" in refused.text
    assert system.http.get(f"/tasks/{id}").json()["status"] == "completed"
    assert system.task(id)["finished_at"] == before["finished_at"]


def test_a_deadline_ends_a_process_that_ignores_it_and_its_child(system: System) -> None:
    stubborn = "trap '' TERM; echo $$; while :; do sleep 1; done"
    id = system.command(f"({stubborn}) & {stubborn}", timeout_seconds=0.5)
    pids = system.written(id, lines=2)
    stopping = system.wait(id, "cancelling")
    assert stopping["finished_at"] is None
    task = system.wait(id, "timeout")
    assert task["error"] == {"code": "timeout", "message": "execution timeout", "retryable": False}
    assert not any(is_running(int(pid)) for pid in pids)


def test_a_deadline_counts_from_the_start_and_not_from_the_submission(system: System) -> None:
    gate = system.gate("not-counted")
    holder = system.command(gate.wait)
    waiting = system.command("true", timeout_seconds=0.5)
    system.waits(waiting, "no_free_slot")
    asked = time.monotonic()
    system.until(lambda: time.monotonic() - asked > 0.6, "it has waited for longer than it may run")
    gate.open()
    system.wait(waiting, "completed")
    system.wait(holder, "completed")


def test_a_force_stop_ends_the_task_at_once_and_needs_a_reason(system: System) -> None:
    gate = system.gate("forced")
    id = system.command(f"trap '{gate.wait}; exit' TERM; echo $$; sleep 600 & wait")
    (pid,) = system.written(id)
    assert system.act(id, "force-stop").status_code == 422
    answer = system.act(id, "force-stop", reason="does not listen")
    assert answer.status_code == 202
    task = system.http.get(f"/tasks/{id}", params={"after": answer.json()["position"]}).json()
    assert (task["status"], task["error"]["code"]) == ("cancelled", "force_stopped")
    assert "does not listen" in task["error"]["message"]
    assert task["finished_at"] == system.event(id, "ForceStopped")["at"]
    system.all_idle()
    # Its process is stopped all the same, and the slot of the worker with it.
    gate.open()
    system.until(lambda: not is_running(int(pid)), "the process is gone")
    system.wait(system.command("true"), "completed")
