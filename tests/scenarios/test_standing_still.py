"""Everything that serves stands still for longer than a worker may be silent: nobody is lost, and nothing is ended."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from system import System

from taskyard.agent.contact import SELF_FENCE_SECONDS

SERVICES = ("scheduler", "slot_allocator", "dispatcher", "state_projector", "api")
LOST_SECONDS = 6.0
"""Of the pair: see `SOON_LOST`."""
SERVICES_STILL_SECONDS = LOST_SECONDS * 4 / 3
NATS_STILL_SECONDS = SELF_FENCE_SECONDS + 6.0
"""It is stopped that late whatever a worker's silence may last."""


@contextmanager
def services_frozen(pair: System) -> Iterator[None]:
    """All services stand still at once, as where one process has all of them."""
    pids = [pair.connection["processes"][service] for service in SERVICES]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_all_services_stand_still_and_no_worker_is_lost_and_no_running_command_fails(pair: System) -> None:
    gate = pair.gate("services-still")
    ids = [pair.command(gate.wait) for _ in range(2)]
    assert {pair.wait(id, "running")["worker"] for id in ids} == {"worker-1", "worker-2"}
    with services_frozen(pair):
        time.sleep(SERVICES_STILL_SECONDS)
    pair.until(lambda: pair.workers_active() == 2, "both workers are there")
    last = pair.command("true")  # it gets a slot when the allocator has looked who is there
    gate.open()
    for id in (*ids, last):
        assert pair.wait(id, "completed")["attempt"] == 1
        assert "WorkerLost" not in pair.types(id)


def test_nats_server_stands_still_and_what_nobody_else_may_run_goes_on(pair: System) -> None:
    gate = pair.gate("nats-still")
    once, twice = pair.command(gate.wait), pair.command(gate.wait, max_attempts=2)
    for id in (once, twice):
        pair.wait(id, "running")
    with pair.frozen("nats-server"):
        time.sleep(NATS_STILL_SECONDS)
    # Another worker may run this one by now, so it was stopped: that long has it been.
    pair.until(lambda: pair.types(twice).count("SlotAssigned") == 2, "what may be repeated is")
    assert pair.event(twice, "AttemptFailed")["data"]["error"]["code"] == "self_fenced"
    assert pair.task(once)["status"] == "running"
    gate.open()
    assert pair.wait(once, "completed")["attempt"] == 1
    assert pair.wait(twice, "completed")["attempt"] == 2
    assert "WorkerLost" not in pair.types(once) + pair.types(twice)
