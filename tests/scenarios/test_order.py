"""Order: priority, submission, start times, limits, pauses and locks, where one slot decides.

Commands fit only into slot 0 of the shared worker, so while one holds it the others wait.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from nats_doors import command
from system import System


@contextmanager
def slot_0_taken(system: System, name: str) -> Iterator[None]:
    """Nothing but plans runs within the block."""
    gate = system.gate(name)
    holder = system.command(gate.wait)
    system.wait(holder, "running")
    yield
    gate.open()
    system.wait(holder, "completed")


def queue_position(system: System, id: str) -> int:
    """The place of a waiting task in its queue."""
    return system.task(id)["pending_reason"]["queue_position"]


def test_tasks_run_by_priority_and_then_in_order_of_submission(system: System) -> None:
    witness = system.folder / "by-priority"
    with slot_0_taken(system, "by-priority"):
        ids = [
            system.command(f"echo {name} >> {witness}", priority=priority)
            for name, priority in (("a", 10), ("b", 5), ("c", 5), ("d", 1), ("e", 5))
        ]
        for place, id in enumerate((ids[3], ids[1], ids[2], ids[4], ids[0]), start=1):
            system.until(lambda id=id, place=place: queue_position(system, id) == place, f"{id} is the {place}. to go")
        assert system.waits(ids[0], "queue_order")["pending_reason"]["blocker"] == ids[4]
        system.waits(ids[3], "no_free_slot")
    for id in ids:
        system.wait(id, "completed")
    assert witness.read_text().split() == ["d", "b", "c", "e", "a"]


def test_priority_counts_across_queues(system: System) -> None:
    witness = system.folder / "across"
    with slot_0_taken(system, "across"):
        ids = [
            system.command(f"echo {queue} >> {witness}", queue=queue, priority=priority)
            for queue, priority in (("one", 5), ("two", 2), ("three", 5))
        ]
    for id in ids:
        system.wait(id, "completed")
    assert witness.read_text().split() == ["two", "one", "three"]


def test_a_waiting_task_can_be_given_another_priority(system: System) -> None:
    witness = system.folder / "reprioritised"
    with slot_0_taken(system, "reprioritised"):
        first, second = (system.command(f"echo {name} >> {witness}") for name in ("first", "second"))
        command(system, "reprioritise", task=second, priority=1)
        assert system.event(second, "TaskReprioritised")["by"] == "admin"
    for id in (first, second):
        system.wait(id, "completed")
    assert witness.read_text().split() == ["second", "first"]


def test_a_task_does_not_start_before_its_time(system: System) -> None:
    at = datetime.now(UTC) + timedelta(seconds=1.5)
    later = system.command("true", not_before=at.isoformat())
    system.waits(later, "not_before")
    assert (
        system.wait(system.command("true"), "completed")["started_at"] < system.wait(later, "completed")["started_at"]
    )
    assert datetime.fromisoformat(system.task(later)["started_at"]) >= at.replace(microsecond=0)


def test_a_queue_runs_no_more_than_its_limit(system: System) -> None:
    command(system, "configure-queue", queue="limited", max_running=1, create=True)
    slow, gate = system.slow_plan("limited")
    first = system.terraform("plan", slow, "limited")
    system.wait(first, "running")
    second = system.terraform("plan", slow, "limited")
    system.waits(second, "queue_limit")
    command(system, "configure-queue", queue="limited", max_running=2)
    system.wait(second, "running")
    gate.open()
    for id in (first, second):
        system.wait(id, "completed")


def test_a_paused_queue_starts_nothing_until_it_is_resumed(system: System) -> None:
    command(system, "pause", queue="paused", reason="maintenance", create=True)
    id = system.command("true", queue="paused")
    reason = system.waits(id, "queue_paused")["pending_reason"]
    assert "admin" in reason["message"]
    assert "maintenance" in reason["message"]
    assert system.wait(system.command("true", queue="not-paused"), "completed")
    assert system.task(id)["status"] == "pending"
    command(system, "resume", queue="paused")
    system.wait(id, "completed")


def test_a_paused_pool_lets_what_runs_end_and_starts_nothing(system: System) -> None:
    gate = system.gate("pool-paused")
    running = system.command(gate.wait)
    system.wait(running, "running")
    command(system, "pause", reason="freeze")
    try:
        gate.open()
        system.wait(running, "completed")
        id = system.command("true")
        assert "freeze" in system.waits(id, "pool_paused")["pending_reason"]["message"]
    finally:
        command(system, "resume")
    system.wait(id, "completed")


def test_a_locked_queue_names_who_locked_it(system: System) -> None:
    command(system, "lock", queue="locked", reason="audit", create=True)
    id = system.terraform("plan", system.configuration("locked"), "locked")
    reason = system.waits(id, "queue_locked")["pending_reason"]
    assert reason["blocker"] == "admin"
    assert "audit" in reason["message"]
    (queue,) = [item for item in system.http.get("/queues").json()["items"] if item["queue"] == "locked"]
    assert (queue["locked"], queue["depth"]) == (True, 1)
    command(system, "unlock", queue="locked")
    system.wait(id, "completed")
