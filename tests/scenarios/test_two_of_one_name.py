"""Two agents of one name on two hosts: one counts, and no two applies of a workspace overlap."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from system import System

from taskyard.chaos.agents import Twin
from taskyard.dev.layout import Layout

CONNECT_SECONDS_MAX = 30.0


@contextmanager
def second_host(pair: System, worker: str, folder: Path) -> Iterator[None]:
    """Another agent of the name, with a folder of its own, that is connected."""
    twin = Twin(Layout(pair.data).configuration_file(worker), folder / "second")
    try:
        assert twin.is_connected(CONNECT_SECONDS_MAX)
        yield
    finally:
        twin.stop()


def applying(pair: System, name: str) -> tuple[str, Path]:
    """A task whose apply runs until its gate is opened, and its witness."""
    directory, witness = pair.witnessed(name, pair.gate(name).wait)
    id = pair.terraform("plan_and_apply", directory, name)
    pair.wait(id, "apply_pending")
    assert pair.act(id, "confirm").status_code == 202
    pair.wait(id, "running")
    return id, witness


def is_active(pair: System, worker: str) -> bool:
    workers = pair.http.get("/workers").json()["items"]
    return any(each["id"] == worker and each["status"] == "active" for each in workers)


def test_a_second_agent_of_the_name_waits_while_the_first_applies_and_no_two_applies_overlap(
    pair: System, tmp_path: Path
) -> None:
    id, witness = applying(pair, "twins")
    follower = pair.terraform("plan_and_apply", pair.configuration("twins-next"), "twins")
    with second_host(pair, pair.task(id)["worker"], tmp_path):
        assert pair.waits(follower, "workspace_busy")["pending_reason"]["blocker"] == id
        assert pair.task(id)["status"] == "running"
        pair.gates[-1].open()
        assert pair.wait(id, "completed")["attempt"] == 2  # the plan and the apply
    assert witness.read_text() == "applied\n"
    assert "AttemptFailed" not in pair.types(id)
    pair.wait(follower, "apply_pending")
    assert pair.act(follower, "discard").status_code == 202


def test_a_host_that_wakes_when_another_has_its_name_stops_what_it_ran_and_goes(pair: System, tmp_path: Path) -> None:
    id, witness = applying(pair, "woken")
    worker = pair.task(id)["worker"]
    follower = pair.terraform("plan_and_apply", pair.configuration("woken-next"), "woken")
    with ExitStack() as hosts:
        with pair.frozen(worker):
            old = pair.connection["processes"][worker]
            pair.waits(id, "worker_lost")
            hosts.enter_context(second_host(pair, worker, tmp_path))
            pair.until(lambda: is_active(pair, worker), "another host has the name")
            assert pair.waits(follower, "workspace_busy")["pending_reason"]["blocker"] == id
        assert pair.wait(id, "failed")["error"]["code"] == "worker_replaced"
        pair.restarted(worker, old)
    assert witness.read_text() == ""
    pair.wait(follower, "apply_pending")
    assert pair.act(follower, "discard").status_code == 202
