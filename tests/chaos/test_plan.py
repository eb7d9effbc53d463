"""Which faults come: drawn from a seed, each kind at least once."""

from collections import Counter
from random import Random

from taskyard.chaos.plan import (
    DISK_FULL,
    FREEZE_ALL,
    JOURNAL_BACK,
    KILL,
    UNDER_APPLY,
    Step,
    choose_process,
    make_plan,
)
from taskyard.dev.options import SERVICES

PIDS = {"scheduler": 11, "scheduler-2": 12, "api": 21, "api-2": 22, "nats-server": 31, "worker-1": 41, "worker-2": 42}
LEADERS = {"scheduler": "a-host-with-dashes-12-0f3c2a"}


def plan(seed: int = 1, rounds: int = 10, *, has_own_disk: bool = True) -> list[Step]:
    return make_plan(Random(seed), rounds=rounds, outage_seconds=60.0, freeze_seconds=40.0, has_own_disk=has_own_disk)


def test_each_service_is_killed_as_often_as_asked_and_servers_and_workers_too() -> None:
    kills = Counter(step.part for step in plan() if step.what == KILL)
    assert {service: kills[service] for service in SERVICES} == dict.fromkeys(SERVICES, 10)
    assert all(kills[part] == 3 for part in ("worker", "nats-server", "postgres"))


def test_one_round_has_every_fault() -> None:
    assert {step.name for step in plan(rounds=1)} == {step.name for step in plan()}


def test_without_disks_of_their_own_none_is_not_made_full() -> None:
    without = [step.what for step in plan(has_own_disk=False)]
    assert DISK_FULL not in without
    assert len(without) == len(plan()) - 2


def test_without_terraform_nothing_is_done_to_an_apply() -> None:
    steps = make_plan(
        Random(1), rounds=1, outage_seconds=1.0, freeze_seconds=1.0, has_own_disk=True, has_terraform=False
    )
    assert not {JOURNAL_BACK, UNDER_APPLY} & {step.what for step in steps}


def test_all_services_stand_still_for_longer_than_a_worker_may_be_silent() -> None:
    (seconds,) = {step.seconds for step in plan() if step.what == FREEZE_ALL}
    assert seconds == 40.0


def test_attempts_may_be_ended_by_what_happens_to_their_worker_only() -> None:
    excuses = {step.name for step in plan() if step.may_end_attempts}
    assert excuses == {
        "SIGSTOP worker",
        "SIGTERM everything",
        "kill -9 everything",
        "a journal put back",
    }


def test_a_seed_gives_the_same_plan_and_another_another() -> None:
    assert plan(7) == plan(7)
    assert plan(7) != plan(8)


def test_the_leader_is_told_by_the_pid_in_its_name() -> None:
    random = Random(1)
    leader, other = (Step(what=KILL, part="scheduler", is_leader=leads) for leads in (True, False))
    assert {choose_process(leader, random, PIDS, LEADERS) for _ in range(20)} == {"scheduler-2"}
    assert {choose_process(other, random, PIDS, LEADERS) for _ in range(20)} == {"scheduler"}


def test_where_nobody_is_known_to_lead_and_where_all_are_alike_any_is_chosen() -> None:
    random = Random(1)
    assert {choose_process(Step(what=KILL, part="scheduler"), random, PIDS, {}) for _ in range(40)} == {
        "scheduler",
        "scheduler-2",
    }
    assert {choose_process(Step(what=KILL, part="api"), random, PIDS, LEADERS) for _ in range(40)} == {"api", "api-2"}
    assert {choose_process(Step(what=KILL, part="worker"), random, PIDS, LEADERS) for _ in range(40)} == {
        "worker-1",
        "worker-2",
    }
    assert choose_process(Step(what=KILL, part="nats-server"), random, PIDS, LEADERS) == "nats-server"
