"""What `./dev chaos --hostile` measures, and that who floods is held back."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from taskyard.chaos.flooding import FLOODS, OF_AGENT
from taskyard.chaos.hostile import P99_MILLISECONDS_MAX, Phase, judge_phase
from taskyard.chaos.leash import hold, used_seconds
from taskyard.chaos.options import HostileOptions, parse
from taskyard.contracts.values import SECOND, Instant, make_uuid7

BEGIN = Instant(1_800_000_000 * SECOND)
SENT = [make_uuid7(Instant(BEGIN + n * SECOND), n) for n in range(100)]


def started(*, after_seconds: float) -> dict[str, Instant]:
    return {task: Instant(BEGIN + round((n + after_seconds) * SECOND)) for n, task in enumerate(SENT)}


def test_a_task_waits_from_when_it_was_sent_to_when_it_started():
    phase = judge_phase("headers", SENT, started(after_seconds=0.25), Instant(BEGIN + 200 * SECOND))
    assert (phase.tasks, phase.p50_ms, phase.p99_ms, phase.max_ms, phase.late) == (100, 250.0, 250.0, 250.0, 0)
    assert phase.is_well


def test_what_never_started_counts_as_if_it_did_at_the_end():
    all_but_two = started(after_seconds=0.25)
    del all_but_two[SENT[0]], all_but_two[SENT[1]]
    phase = judge_phase("headers", SENT, all_but_two, Instant(BEGIN + 200 * SECOND))
    assert (phase.late, phase.p50_ms, phase.p99_ms, phase.max_ms) == (2, 250.0, 199_000.0, 200_000.0)
    assert not phase.is_well


@pytest.mark.parametrize(
    "phase",
    [
        Phase(flood="x", tasks=100, p99_ms=P99_MILLISECONDS_MAX),
        Phase(flood="x", tasks=100, late=1),
        Phase(flood="x", tasks=100, workers_lost=1),
        Phase(flood="x"),
    ],
)
def test_a_second_a_task_that_does_not_start_and_a_lost_worker_are_not_well(phase: Phase):
    assert not phase.is_well


def test_a_process_on_a_leash_has_no_more_than_its_share():
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        begun = time.monotonic()

        async def held() -> None:
            leash = asyncio.create_task(hold(child.pid, 0.1))
            await asyncio.wait((leash,), timeout=3)
            leash.cancel()

        asyncio.run(held())
        share = used_seconds(child.pid) / (time.monotonic() - begun) / (os.cpu_count() or 1)
        assert 0.01 < share < 0.2
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def test_the_floods_can_be_chosen_and_all_are_sent_for_a_minute_each_at_first():
    asked = parse(["--hostile"])
    assert isinstance(asked, HostileOptions)
    assert (asked.floods, asked.seconds, asked.rate) == (tuple(FLOODS), 60.0, 200.0)
    assert FLOODS.keys() > OF_AGENT and len(FLOODS) == 6
    chosen = parse(["--hostile", "--flood", "headers", "--flood-seconds", "5"])
    assert isinstance(chosen, HostileOptions) and (chosen.floods, chosen.seconds) == (("headers",), 5.0)
    assert not isinstance(parse([]), HostileOptions)


@pytest.mark.slow
def test_a_short_flood_of_headers_is_sent_measured_and_told():
    ran = subprocess.run(
        (sys.executable, "-m", "taskyard.chaos", "--hostile", "--flood", "headers", "--flood-seconds", "4", "--json"),
        capture_output=True,
        text=True,
        check=False,
        timeout=115,
    )
    told = json.loads(ran.stdout.splitlines()[-1])
    alone, flood = told["phases"]
    assert (alone["flood"], flood["flood"]) == ("load alone", "headers")
    assert flood["sent"] > 500 and 0 < flood["processor_share"] < 0.35
    assert flood["tasks"] > 200 and flood["p99_ms"] > 0
    assert ran.returncode == (0 if told["ok"] else 1), ran.stderr
