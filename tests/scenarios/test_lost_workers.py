"""Workers that fail, and restarts: slots go back, and an apply keeps what it waits for or asks again."""

import shutil

from host_processes import is_running
from nats_doors import command
from system import System

SERVICES = ("scheduler", "slot_allocator", "dispatcher", "state_projector", "api")


def other_worker(worker: str) -> str:
    """The other one of the pair."""
    return "worker-2" if worker == "worker-1" else "worker-1"


def reserved(system: System, id: str) -> list[tuple[str, int]]:
    """The slots that are reserved for a task."""
    return [place for place, slot in system.slots().items() if (slot["status"], slot["task"]) == ("reserved", id)]


def test_a_task_that_cannot_be_sent_gives_its_slot_back_and_runs_elsewhere(pair: System) -> None:
    """0.T4"""
    # Commands take slot 0 of the worker that has been there for longer.
    first = pair.wait(pair.command("true"), "completed")["worker"]
    with pair.nobody_restarts():
        killed = pair.kill(first)
        # Its connections are closed when it is gone: then nobody listens, and the server says so.
        pair.until(lambda: not is_running(killed), "the worker is gone")
        assert pair.slots()[first, 0]["status"] == "idle"
        id = pair.command("true")
        waiting = pair.waits(id, "backoff")
        assert waiting["status"] == "pending"
        assert first in waiting["pending_reason"]["message"]
        assert pair.slots()[first, 0]["task"] is None
        completed = pair.wait(id, "completed")
    assert (completed["worker"], completed["attempt"]) == (other_worker(first), 2)
    # A command has one try: what was never delivered has spent none.
    assert pair.types(id) == [
        "TaskSubmitted",
        "TaskScheduled",
        "SlotAssigned",
        "NotDelivered",
        "TaskScheduled",
        "SlotAssigned",
        "TaskDispatched",
        "TaskStarted",
        "AttemptSucceeded",
    ]


def test_a_worker_that_is_gone_is_offered_no_slot(pair: System) -> None:
    """A task waits and says why, instead of being assigned and released without end."""
    gate = pair.gate("gone")
    first = pair.wait(pair.command("true"), "completed")["worker"]
    command(pair, "drain", worker=other_worker(first), reason="only one is left")
    with pair.frozen(first):
        pair.until(lambda: pair.workers_active() == 0, "it is suspected")
        id = pair.command(gate.wait)
        pair.waits(id, "no_worker")
        assert "SlotAssigned" not in pair.types(id)
    pair.wait(id, "running")
    assert pair.types(id).count("SlotAssigned") == 1
    gate.open()
    pair.wait(id, "completed")
    pair.restarted(other_worker(first), pair.kill(other_worker(first)))


def test_restarting_every_service_keeps_an_apply_that_waits_and_its_reservation(pair: System) -> None:
    directory, witness = pair.witnessed("restarted")
    id = pair.terraform("plan_and_apply", directory, "restarted")
    planned = pair.wait(id, "apply_pending")
    place = (planned["worker"], planned["slot"])
    pids = {service: pair.kill(service) for service in SERVICES}
    for service, pid in pids.items():
        pair.restarted(service, pid)
    pair.until(lambda: pair.wait(id, "apply_pending")["attempt"] == 1, "it still waits")
    assert reserved(pair, id) == [place]
    assert pair.stop() == 0
    pair.start()
    again = pair.wait(id, "apply_pending")
    assert (again["attempt"], again["worker"], again["slot"]) == (1, *place)
    assert reserved(pair, id) == [place]
    assert witness.read_text() == ""
    assert pair.act(id, "confirm", attempt=1).status_code == 202
    applied = pair.wait(id, "completed")
    assert (applied["worker"], applied["slot"]) == place
    assert witness.read_text() == "applied\n"
    assert pair.types(id).count("TaskPlanned") == pair.types(id).count("ApplyConfirmed") == 1


def test_an_apply_whose_worker_is_lost_plans_again_and_asks_again(pair: System) -> None:
    directory, witness = pair.witnessed("asks-again")
    id = pair.terraform("plan_and_apply", directory, "asks-again")
    planned = pair.wait(id, "apply_pending")
    with pair.frozen(planned["worker"]):
        pair.until(lambda: "WorkerLost" in pair.types(id), "the worker is lost")
        pair.until(lambda: pair.types(id).count("TaskPlanned") == 2, "it is planned again")
        replanned = pair.wait(id, "apply_pending")
        assert (replanned["attempt"], replanned["worker"]) == (2, other_worker(planned["worker"]))
        assert reserved(pair, id) == [(replanned["worker"], replanned["slot"])]
        # Who saw the first plan has not confirmed the second one.
        assert pair.act(id, "confirm", attempt=1).status_code == 409
        assert witness.read_text() == ""
        assert pair.act(id, "confirm", attempt=2).status_code == 202
        pair.wait(id, "completed")
    assert witness.read_text() == "applied\n"
    assert pair.types(id).count("ApplyConfirmed") == 1


def test_an_apply_whose_worker_comes_back_without_its_plan_plans_again_and_asks_again(pair: System) -> None:
    directory, witness = pair.witnessed("plan-gone")
    id = pair.terraform("plan_and_apply", directory, "plan-gone")
    planned = pair.wait(id, "apply_pending")
    with pair.nobody_restarts():
        old = pair.kill(planned["worker"])
        pair.until(lambda: not is_running(old), "the worker is gone")
        # As if its host had been made anew.
        shutil.rmtree(pair.data / "workers" / planned["worker"])
    pair.restarted(planned["worker"], old)
    pair.until(lambda: pair.act(id, "confirm", attempt=1).status_code == 202, "the plan that was seen is confirmed")
    pair.until(lambda: pair.types(id).count("TaskPlanned") == 2, "it is planned again")
    replanned = pair.wait(id, "apply_pending")
    assert witness.read_text() == ""
    assert pair.act(id, "confirm", attempt=1).status_code == 409
    assert pair.act(id, "confirm", attempt=replanned["attempt"]).status_code == 202
    pair.wait(id, "completed")
    assert witness.read_text() == "applied\n"


def test_an_apply_that_runs_on_a_lost_worker_is_held_and_never_repeated(pair: System) -> None:
    gate = pair.gate("held")
    directory, witness = pair.witnessed("held", gate.wait)
    id = pair.terraform("plan_and_apply", directory, "held")
    planned = pair.wait(id, "apply_pending")
    assert pair.act(id, "confirm").status_code == 202
    running = pair.wait(id, "running")
    follower = pair.terraform("plan_and_apply", pair.configuration("held-next"), "held")
    with pair.frozen(planned["worker"]):
        held = pair.waits(id, "worker_lost")
        assert (held["status"], held["attempt"]) == ("running", running["attempt"])
        # It keeps slot and workspace: nobody knows what its process does.
        assert pair.waits(follower, "workspace_busy")["pending_reason"]["blocker"] == id
    pair.until(lambda: pair.task(id)["pending_reason"] is None, "its worker is back")
    gate.open()
    assert pair.wait(id, "completed")["attempt"] == running["attempt"]
    assert witness.read_text() == "applied\n"
    assert pair.types(id).count("SlotAssigned") == 2  # the plan and the apply
    pair.wait(follower, "apply_pending")
    assert pair.act(follower, "discard").status_code == 202


def test_a_confirmed_apply_waits_for_its_own_slot_while_its_worker_is_away(pair: System) -> None:
    directory, witness = pair.witnessed("own-slot")
    id = pair.terraform("plan_and_apply", directory, "own-slot")
    planned = pair.wait(id, "apply_pending")
    with pair.nobody_restarts():
        old = pair.kill(planned["worker"])
        assert pair.act(id, "confirm").status_code == 202
        pair.until(lambda: "ApplyConfirmed" in pair.types(id), "the confirmation is recorded")
        assert witness.read_text() == ""
    pair.restarted(planned["worker"], old)
    applied = pair.wait(id, "completed")
    assert (applied["worker"], applied["slot"]) == (planned["worker"], planned["slot"])
    assert witness.read_text() == "applied\n"
    assert pair.types(id).count("TaskPlanned") == pair.types(id).count("ApplyConfirmed") == 1
