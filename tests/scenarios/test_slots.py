"""Slots: document 0 of the mission, on the real system."""

from system import FAILS, System


def test_three_plans_take_the_slots_0_1_and_2(system: System) -> None:
    directory = system.configuration("three", "")
    holds = [system.command("sleep 0.1", queue="warm")]
    system.ended(holds[0])
    ids = [system.terraform("plan", directory, "three") for _ in range(3)]
    tasks = [system.wait(id, "completed") for id in ids]
    assert sorted(task["slot"] for task in tasks) == [0, 1, 2]
    assert [task["slot"] for task in sorted(tasks, key=lambda task: task["submitted_at"])] == [0, 1, 2]


def test_a_slot_is_usable_again_when_its_task_is_done(system: System) -> None:
    first = system.command("true")
    system.wait(first, "completed")
    second = system.command("true")
    assert system.wait(second, "completed")["slot"] == system.task(first)["slot"] == 0


def test_an_apply_waits_with_its_slot_reserved_and_runs_on_the_same_worker(system: System) -> None:
    id = system.terraform("plan_and_apply", system.configuration("reserved"), "reserved")
    planned = system.wait(id, "apply_pending")
    slot = system.slots()[planned["worker"], planned["slot"]]
    assert (slot["status"], slot["task"]) == ("reserved", id)
    beside = system.terraform("plan", system.configuration("beside"), "beside")
    assert system.wait(beside, "completed")["slot"] != planned["slot"]
    assert system.act(id, "confirm", comment="go").status_code == 202
    applied = system.wait(id, "completed")
    assert (applied["worker"], applied["slot"]) == (planned["worker"], planned["slot"])
    assert applied["result"]["changes"] == {"add": 1, "change": 0, "destroy": 0}


def test_a_failing_configuration_fails_and_frees_its_slot(system: System) -> None:
    id = system.terraform("plan", system.configuration("failing", FAILS), "failing")
    error = system.wait(id, "failed")["error"]
    assert error["code"] == "exit_status"
    assert "one is not two" in error["message"]
    assert error["retryable"] is False
