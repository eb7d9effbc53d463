"""Parts that are away for a while, and processes that stand still: what was accepted waits, and then goes on."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from log_checks import Takeover, read_log
from nats_doors import store
from system import System, running
from witnessed_load import Load

LEASE_SECONDS = 3.0
STANDSTILL_SECONDS = 6.0
"""Twice as long as nats-server keeps a silent connection, and too short for a worker to be suspected."""
ANSWER_SECONDS_MAX = 12.0
MICROSECONDS = 1_000_000


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with two workers, parts of which are away one test after the other."""
    with running(tmp_path_factory.mktemp("troubled"), workers=2) as system:
        yield system


# -- NATS --------------------------------------------------------------------------------------------------------------


def test_a_killed_nats_server_costs_nothing(troubled: System) -> None:
    load = Load(troubled, "nats")
    load.submit()
    load.until_halfway()
    troubled.restarted("nats-server", troubled.kill("nats-server"))
    load.submit(plans=0, applies=0)
    load.finish()


def test_what_ends_while_nats_is_away_is_reported_later(troubled: System) -> None:
    load = Load(troubled, "unreported")
    gate = troubled.folder / "gate"
    task = load.command_task(f"while [ ! -e {gate} ]; do sleep 0.05; done; echo done > {gate}.done")
    load.send([task])
    troubled.wait(task["id"], "running")
    with troubled.frozen("nats-server"):
        gate.touch()
        troubled.until(gate.with_suffix(".done").exists, "the command has ended")
        # Longer than a publish of the agent waits for its acknowledgement.
        time.sleep(STANDSTILL_SECONDS)
    run = load.finish()
    assert run.lives[task["id"]].attempt == 1
    assert run.types[task["id"]].count("TaskStarted") == 1


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


def test_a_killed_postgres_costs_nothing(troubled: System) -> None:
    load = Load(troubled, "postgres")
    load.submit()
    load.until_halfway()
    troubled.restarted("postgres", troubled.kill("postgres"))
    load.finish()


def test_without_postgres_commands_are_accepted_and_run_and_reads_say_that_it_is_away(troubled: System) -> None:
    known = troubled.command("true")
    troubled.wait(known, "completed")
    load = Load(troubled, "blind")
    with troubled.frozen("postgres"):
        over_http, over_nats = load.command_task(), load.command_task()
        answer = troubled.http.post("/tasks", json=over_http)
        assert answer.status_code == 202, answer.text
        assert answer.json()["position"] is not None
        store(troubled, "submit", over_nats)
        load.ids += [over_http["id"], over_nats["id"]]
        troubled.until(lambda: set(load.lines()) == set(load.ids), "both commands have run")
        for path in ("/tasks", f"/tasks/{known}/history", "/workers"):
            begun = time.monotonic()
            assert troubled.http.get(path).status_code in {200, 503}, path
            assert time.monotonic() - begun < ANSWER_SECONDS_MAX, path
        # A task that the read model has never seen can be commanded: the scheduler knows it from the log.
        cancelled = troubled.act(over_http["id"], "cancel")
        assert cancelled.status_code == 409, cancelled.text
    load.finish()


# -- processes that stand still ----------------------------------------------------------------------------------------


def test_a_worker_that_stands_still_for_a_while_goes_on_with_what_it_has(troubled: System) -> None:
    load = Load(troubled, "still")
    load.submit()
    load.until_halfway()
    with troubled.frozen("worker-1"):
        time.sleep(STANDSTILL_SECONDS)
    run = load.finish()
    assert {run.lives[id].attempt for id in load.commands} == {1}


def test_a_scheduler_that_stands_still_and_has_no_other_goes_on(troubled: System) -> None:
    load = Load(troubled, "alone")
    load.submit()
    load.until_halfway()
    with troubled.frozen("scheduler"):
        late = load.command_task()
        load.ids.append(late["id"])
        answer = troubled.http.post("/tasks", json=late)
        assert (answer.status_code, answer.json()["position"]) == (202, None)
        time.sleep(LEASE_SECONDS)
    load.finish()


def test_a_second_scheduler_takes_over_and_the_stale_one_writes_nothing(troubled: System) -> None:
    first = troubled.connection["processes"]["scheduler"]
    load = Load(troubled, "takeover")
    with second_scheduler(troubled) as second:
        load.submit(plans=1)
        load.until_halfway()
        assert _leader(troubled).instance.split("-")[-2] == str(first)
        with troubled.frozen("scheduler"):
            frozen_at = time.time()
            load.send([load.command_task()])
            troubled.until(lambda: _leads(troubled, second.pid), "the second scheduler leads")
            assert _leader(troubled).at / MICROSECONDS - frozen_at < 2 * LEASE_SECONDS + 1
        # The stale leader is back, and a leader still leads in the epoch of the second one.
        load.submit(plans=0, applies=0)
        load.finish()
        assert _leads(troubled, second.pid)

        killed_at = time.time()
        second.kill()
        load.submit(plans=0, applies=0)
        troubled.until(lambda: _leads(troubled, first), "the first scheduler leads again")
        assert _leader(troubled).at / MICROSECONDS - killed_at < 2 * LEASE_SECONDS + 1
    load.finish()


def _leader(system: System) -> Takeover:
    return [takeover for takeover in read_log(system.data).takeovers if takeover.writer == "scheduler"][-1]


def _leads(system: System, pid: int) -> bool:
    return _leader(system).instance.split("-")[-2] == str(pid)


@contextmanager
def second_scheduler(system: System) -> Iterator["subprocess.Popen[bytes]"]:
    """A scheduler on the same settings that the supervisor does not know."""
    settings = system.data / "config" / "services.json"
    with (system.folder / "second.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "taskyard.scheduler", "--config", settings], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
