"""Workspaces: the scenarios of document 1. Plans take no lock; of plan_and_apply one at a time holds a workspace.

They run on two workers, so that a slot for a second plan_and_apply is always there: it waits for the workspace alone.
"""

import pytest
from nats_doors import command
from system import System


def test_a_plan_does_not_block_a_plan_and_apply(pair: System) -> None:
    """1.T1"""
    slow, gate = pair.slow_plan("unblocked-plan")
    plan = pair.terraform("plan", slow, "unblocked")
    apply = pair.terraform("plan_and_apply", pair.configuration("unblocked"), "unblocked", auto_confirm=True)
    pair.wait(plan, "running")
    pair.wait(apply, "completed")
    assert pair.task(plan)["status"] == "running"
    gate.open()
    pair.wait(plan, "completed")


def test_three_plans_of_a_workspace_run_at_once(pair: System) -> None:
    """1.T2"""
    slow, gate = pair.slow_plan("at-once")
    ids = [pair.terraform("plan", slow, "at-once") for _ in range(3)]
    pair.until(lambda: all(pair.task(id).get("status") == "running" for id in ids), "all three run")
    gate.open()
    for id in ids:
        pair.wait(id, "completed")


def test_a_second_plan_and_apply_waits_until_the_first_has_completed(pair: System) -> None:
    """1.T3"""
    gate = pair.gate("serial")
    directory, witness = pair.witnessed("serial", gate.wait)
    first = pair.terraform("plan_and_apply", directory, "serial")
    second = pair.terraform("plan_and_apply", directory, "serial", auto_confirm=True)
    planned = pair.wait(first, "apply_pending")
    assert pair.waits(second, "workspace_busy")["pending_reason"] == {
        "code": "workspace_busy",
        "message": f"waits for {first} in serial",
        "blocker": first,
        "queue_position": 1,
    }
    assert pair.act(first, "confirm", attempt=planned["attempt"]).status_code == 202
    pair.wait(first, "running")
    assert pair.waits(second, "workspace_busy")["pending_reason"]["blocker"] == first
    gate.open()
    ended = pair.wait(first, "completed")
    follower = pair.wait(second, "completed")
    assert follower["scheduled_at"] >= ended["finished_at"]
    assert pair.types(second).count("TaskScheduled") == 2, "once to plan, once to apply"
    # The second one saw the state that the first one left.
    assert follower["result"]["changes"] == {"add": 0, "change": 0, "destroy": 0}
    assert witness.read_text() == "applied\n"


def test_beside_a_running_plan_and_apply_a_plan_starts_at_once_and_another_one_waits(pair: System) -> None:
    """1.T4"""
    gate = pair.gate("beside-apply")
    directory, _ = pair.witnessed("beside-apply", gate.wait)
    first = pair.terraform("plan_and_apply", directory, "mixed", auto_confirm=True)
    pair.until(lambda: "ApplyConfirmed" in pair.types(first), "the apply is confirmed")
    pair.wait(first, "running")
    plan = pair.terraform("plan", directory, "mixed")
    third = pair.terraform("plan_and_apply", directory, "mixed", auto_confirm=True)
    pair.wait(plan, "completed")
    assert pair.waits(third, "workspace_busy")["pending_reason"]["blocker"] == first
    assert pair.task(first)["status"] == "running"
    gate.open()
    assert pair.wait(third, "completed")["scheduled_at"] >= pair.task(first)["finished_at"]


def test_two_workspaces_do_not_wait_for_each_other(pair: System) -> None:
    ids = [pair.terraform("plan_and_apply", pair.configuration(name), name) for name in ("this", "that")]
    planned = [pair.wait(id, "apply_pending") for id in ids]
    assert {task["worker"] for task in planned} == {"worker-1", "worker-2"}
    for id in ids:
        assert pair.act(id, "discard").status_code == 202


def test_a_finished_task_does_not_block_its_workspace(pair: System) -> None:
    directory = pair.configuration("again")
    for _ in range(4):
        id = pair.terraform("plan_and_apply", directory, "again")
        pair.wait(id, "apply_pending")
        assert pair.act(id, "discard").status_code == 202
        # At once, though the read model may still show the one before.
        following = pair.terraform("plan_and_apply", directory, "again", auto_confirm=True)
        pair.wait(following, "completed")


@pytest.mark.parametrize(
    ("verb", "at"), [("force-stop", "running"), ("cancel", "apply_pending"), ("cancel", "running")]
)
def test_the_workspace_is_free_when_its_holder_is_stopped(pair: System, verb: str, at: str) -> None:
    name = f"freed-{verb}-{at}"
    slow, gate = pair.slow_plan(name)
    if at == "apply_pending":
        gate.open()
    holder = pair.terraform("plan_and_apply", slow, name)
    pair.wait(holder, at)
    follower = pair.terraform("plan_and_apply", pair.configuration(f"{name}-next"), name, auto_confirm=True)
    pair.waits(follower, "workspace_busy")
    assert pair.act(holder, verb, reason="in the way").status_code == 202
    gate.open()  # Terraform waits for what it reads, and only then obeys
    pair.wait(holder, "cancelled")
    pair.wait(follower, "completed")


@pytest.mark.parametrize(
    ("holds", "frees", "code", "where"),
    [("pause", "resume", "paused", {}), ("lock", "unlock", "locked", {"queue": "frozen-lock"})],
)
def test_a_freeze_before_the_confirmation_holds_the_apply_back_until_it_ends(
    pair: System, holds: str, frees: str, code: str, where: dict[str, str]
) -> None:
    name = f"frozen-{holds}"
    directory, witness = pair.witnessed(name, "true")
    id = pair.terraform("plan_and_apply", directory, name)
    slot = pair.wait(id, "apply_pending")["slot"]
    command(pair, holds, **where, reason="freeze")
    try:
        assert pair.act(id, "confirm").status_code == 202
        held = pair.waits(id, code)
        assert (held["status"], held["slot"]) == ("apply_pending", slot)
        assert "freeze" in held["pending_reason"]["message"]
        assert witness.read_text() == ""
    finally:
        command(pair, frees, **where)
    pair.wait(id, "completed")
    assert witness.read_text() == "applied\n"
