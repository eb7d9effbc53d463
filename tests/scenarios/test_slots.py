"""Slots: the scenarios of document 0, on the real system."""

from nats_doors import command
from system import FAILS, System


def test_three_plans_at_once_take_the_slots_0_1_and_2(system: System) -> None:
    """0.T1"""
    directory, gate = system.slow_plan("three")
    ids = [system.terraform("plan", directory, "three") for _ in range(3)]
    running = [system.wait(id, "running") for id in ids]
    assert [task["slot"] for task in running] == [0, 1, 2]
    assert {task["worker"] for task in running} == {"worker-1"}
    assert {slot["status"] for slot in system.slots().values()} == {"running"}
    gate.open()
    for id in ids:
        system.wait(id, "completed")


def test_a_slot_is_idle_and_usable_again_when_its_task_is_done(system: System) -> None:
    """0.T2"""
    gate = system.gate("usable")
    first = system.command(gate.wait)
    system.wait(first, "running")
    assert (system.slots()["worker-1", 0]["status"], system.slots()["worker-1", 0]["task"]) == ("running", first)
    gate.open()
    system.wait(first, "completed")
    system.all_idle()
    assert system.slots()["worker-1", 0]["task"] is None
    second = system.command("true")
    assert system.wait(second, "completed")["slot"] == system.task(first)["slot"] == 0


def test_an_apply_waits_with_its_slot_reserved_and_runs_on_it_while_plans_go_on_beside(system: System) -> None:
    """0.T3"""
    applying = system.gate("applying")
    directory, witness = system.witnessed("reserved", applying.wait)
    id = system.terraform("plan_and_apply", directory, "reserved")
    planned = system.wait(id, "apply_pending")
    assert planned["slot"] == 0
    slot = system.slots()[planned["worker"], 0]
    assert (slot["status"], slot["task"]) == ("reserved", id)
    plain = system.configuration("beside")
    assert system.wait(system.terraform("plan", plain, "beside"), "completed")["slot"] == 1
    assert witness.read_text() == ""
    assert system.act(id, "confirm", comment="go").status_code == 202
    system.wait(id, "running")
    assert system.slots()[planned["worker"], 0]["status"] == "running"
    # In the same workspace too: a plan takes no lock, and does not wait for Terraform's own.
    assert system.wait(system.terraform("plan", directory, "reserved"), "completed")["slot"] == 1
    applying.open()
    applied = system.wait(id, "completed")
    assert (applied["worker"], applied["slot"]) == (planned["worker"], planned["slot"])
    assert applied["result"]["changes"] == {"add": 1, "change": 0, "destroy": 0}
    assert witness.read_text() == "applied\n"


def test_slots_1_and_2_take_plans_only(system: System) -> None:
    gate = system.gate("plans-only")
    holder = system.command(gate.wait)
    system.wait(holder, "running")
    waiting = system.command("true")
    system.waits(waiting, "no_free_slot")
    assert [slot["accepts"] for slot in system.slots().values()] == [["any"], ["plan"], ["plan"]]
    gate.open()
    assert system.wait(waiting, "completed")["slot"] == 0


def test_a_failing_configuration_fails_and_frees_its_slot(system: System) -> None:
    id = system.terraform("plan", system.configuration("failing", FAILS), "failing")
    error = system.wait(id, "failed")["error"]
    assert error["code"] == "exit_status"
    assert "one is not two" in error["message"]
    assert error["retryable"] is False


def test_the_assignment_precedes_the_dispatch_and_that_the_start(system: System) -> None:
    id = system.command("true")
    system.wait(id, "completed")
    assert system.types(id) == [
        "TaskSubmitted",
        "TaskScheduled",
        "SlotAssigned",
        "TaskDispatched",
        "TaskStarted",
        "AttemptSucceeded",
    ]
    times = [item["at"] for item in system.history(id)]
    assert times == sorted(times)


def test_a_task_of_a_pool_without_workers_says_so(system: System) -> None:
    id = system.command("true", pool="nobody-here")
    reason = system.waits(id, "no_worker")["pending_reason"]
    assert "nobody-here" in reason["message"]
    assert system.act(id, "cancel").status_code == 202
    assert system.wait(id, "cancelled")["attempt"] == 0


def test_a_drained_worker_finishes_what_it_has_and_gets_nothing_new(pair: System) -> None:
    gate = pair.gate("drained")
    first = pair.command(gate.wait)
    drained = pair.wait(first, "running")["worker"]
    command(pair, "drain", worker=drained, reason="to be replaced")
    pair.until(lambda: pair.workers_active() == 1, "the worker is drained")
    for _ in range(2):
        assert pair.ended(pair.command("true"))["worker"] != drained
    gate.open()
    pair.wait(first, "completed")
    assert pair.ended(pair.command("true"))["worker"] != drained
    pair.restarted(drained, pair.kill(drained))  # its next incarnation takes tasks again
