"""`kill -9` of each process in mid-run: the supervisor starts it again, and nothing is lost, doubled or stuck."""

from collections.abc import Iterator

import pytest
from system import System, running
from witnessed_load import Load


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with two workers, whose processes are killed one test after the other."""
    with running(tmp_path_factory.mktemp("killed"), workers=2) as system:
        yield system


@pytest.mark.parametrize("service", ["scheduler", "slot_allocator", "dispatcher", "state_projector", "api"])
def test_a_service_that_is_killed_in_mid_run_costs_nothing(killed: System, service: str) -> None:
    load = Load(killed, service)
    load.submit()
    load.until_halfway()
    killed.restarted(service, killed.kill(service))
    load.finish()


def test_every_service_killed_at_once_costs_nothing(killed: System) -> None:
    load = Load(killed, "services")
    load.submit()
    load.until_halfway()
    pids = {
        service: killed.kill(service)
        for service in ("scheduler", "slot_allocator", "dispatcher", "state_projector", "api")
    }
    for service, pid in pids.items():
        killed.restarted(service, pid)
    load.finish()


def test_what_runs_on_a_worker_that_is_killed_goes_on_and_is_taken_over(killed: System) -> None:
    load = Load(killed, "worker")
    gate = killed.gate("taken-over")
    slow = [load.command_task(gate.wait) for _ in range(2)]
    load.send(slow)
    killed.until(lambda: len(load.lines()) == 2, "both workers run a command")
    load.submit(applies=0)
    killed.restarted("worker-1", killed.kill("worker-1"))
    gate.open()
    load.finish()
    assert [killed.task(task["id"])["attempt"] for task in slow] == [1, 1]


def test_an_apply_that_waits_survives_its_worker(killed: System) -> None:
    id = killed.terraform("plan_and_apply", killed.configuration("survives"), "survives")
    planned = killed.wait(id, "apply_pending")
    killed.restarted(planned["worker"], killed.kill(planned["worker"]))
    killed.until(lambda: killed.act(id, "confirm").status_code == 202, "the plan can be confirmed")
    killed.until(lambda: _confirmed_again(killed, id), "it is applied")
    assert killed.types(id).count("AttemptSucceeded") == 1


def _confirmed_again(system: System, id: str) -> bool:
    """Whether it is applied; a plan that was lost with its worker is made and confirmed again."""
    task = system.task(id)
    if task["status"] == "apply_pending":
        system.act(id, "confirm")
    return task["status"] == "completed"
