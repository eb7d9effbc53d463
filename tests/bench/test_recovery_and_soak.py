"""`taskyard bench --recovery` and `--soak-minutes`: a tiny run of each, and what they conclude from what they saw."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskyard.bench.history import EVENTS_PER_TASK, write_finished_tasks
from taskyard.bench.recovery_report import FOLD_SECONDS_GOAL, Recovery
from taskyard.bench.soak_report import BYTES_PER_ID, ID_KEEPER, SLACK_MIB, MemorySample, judge_memory
from taskyard.bench.usage import MEBIBYTE, memory_now
from taskyard.contracts.events import AnyEvent, decode_event
from taskyard.contracts.values import Instant
from taskyard.eventlog.commit import CommitCodec
from taskyard.eventlog.memory import MemoryLog, MemoryStream
from taskyard.judge.evidence import Evidence, Logged
from taskyard.judge.verdict import judge

RUN_SECONDS_MAX = 100
START = Instant(1_790_000_000_000_000)


def bench(*arguments: str) -> tuple[int, dict[str, Any]]:
    argv = [sys.executable, "-m", "taskyard.bench", "--json", *arguments]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False)
    assert run.returncode in (0, 1) and run.stdout, run.stderr
    return run.returncode, json.loads(run.stdout.splitlines()[-1])


# -- recovery ----------------------------------------------------------------------------------------------------------


def test_every_service_starts_from_a_snapshot_and_folds_the_tail(tmp_path: Path) -> None:
    status, found = bench("--recovery", "--tasks", "2000", "--keep", str(tmp_path))

    assert [service["service"] for service in found["services"]] == ["scheduler", "slot_allocator", "dispatcher"]
    for service in found["services"]:
        assert service["first_events"] + service["tail_events"] == 2000 * EVENTS_PER_TASK + 1  # a worker joined
        assert 0 < service["tail_events"] < 2000 * EVENTS_PER_TASK
        assert service["ready_seconds"] > 0
    is_fast = all(service["fold_seconds"] < FOLD_SECONDS_GOAL for service in found["services"])
    assert status == (0 if is_fast else 1)
    assert msgspec.convert(found, Recovery).is_fast is is_fast


def test_the_log_that_is_written_is_one_that_the_writers_could_have_written() -> None:
    now = START
    stream = MemoryStream("LOG", lambda: now)
    log = MemoryLog(stream, "log", CommitCodec[Any](AnyEvent, decode_event))
    told: list[int] = []

    asyncio.run(write_finished_tasks(log, 600, told.append))

    stored = [Logged.stored(message.sequence, message.at, message.subject, message.data) for message in stream.after(0)]
    verdict = judge(Evidence(log=stored))
    assert (verdict.faults, len(verdict.lives), told) == ([], 600, [250, 500, 600])
    assert {life.status for life in verdict.lives.values()} == {"completed"}


# -- soak --------------------------------------------------------------------------------------------------------------


def test_a_short_soak_samples_every_program_and_completes_every_task(tmp_path: Path) -> None:
    _, found = bench("--soak-minutes", "0.05", "--keep", str(tmp_path))

    assert found["all_completed"] is True
    assert found["tasks"] == 303  # a hundred no-ops and one command a second, for three seconds
    assert len(found["samples"]) >= 4
    assert {"scheduler", "dispatcher", "worker-1", "postgres"} <= set(found["programs"])
    assert all(mib > 0 for sample in found["samples"] for mib in sample["mib"].values())
    assert found["programs"]["postgres"]["is_bounded"] is None


def samples(*mib: float, live: tuple[int, ...] = (), name: str = "dispatcher") -> list[MemorySample]:
    lives = live or (0,) * len(mib)
    return [
        MemorySample(seconds=60 * minute, live_tasks=lives[minute], mib={name: each}) for minute, each in enumerate(mib)
    ]


def test_memory_that_came_to_be_in_the_first_half_only_is_bounded() -> None:
    (program,) = judge_memory(samples(50, 90, 120, 121, 122), tasks_per_second=100, unjudged=()).values()

    assert (program.first, program.middle, program.last, program.growth) == (50, 120, 122, 2)
    assert (program.allowed, program.is_bounded) == (SLACK_MIB, True)


def test_memory_that_goes_on_to_grow_is_not() -> None:
    (program,) = judge_memory(samples(50, 60, 70, 80, 90), tasks_per_second=100, unjudged=()).values()

    assert program.is_bounded is False


def test_the_scheduler_may_grow_by_its_ids_and_no_more() -> None:
    ids_mib = 100 * 120 * BYTES_PER_ID / MEBIBYTE
    for grown, is_bounded in ((SLACK_MIB + ids_mib - 0.2, True), (SLACK_MIB + ids_mib + 0.2, False)):
        seen = samples(50, 50, 50, 50, round(50 + grown, 1), name=ID_KEEPER)
        (program,) = judge_memory(seen, tasks_per_second=100, unjudged=()).values()
        assert program.is_bounded is is_bounded


def test_what_waits_may_take_memory() -> None:
    seen = samples(50, 50, 50, 60, 60, live=(0, 0, 0, 5_000, 5_000))
    (program,) = judge_memory(seen, tasks_per_second=100, unjudged=()).values()

    assert program.is_bounded is True


def test_what_is_not_judged_is_shown_all_the_same() -> None:
    (program,) = judge_memory(samples(50, 60, 900), tasks_per_second=1, unjudged=("dispatcher",)).values()

    assert (program.last, program.allowed, program.is_bounded) == (900, None, None)


def test_memory_is_that_of_a_program_with_its_children() -> None:
    grows = "import sys; held = bytearray(b'x' * (40 << 20)); print(len(held), flush=True); sys.stdin.read()"
    argv = ["sh", "-c", f'"{sys.executable}" -c "{grows}"; true']
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline()
        found = memory_now({"child": child.pid, "gone": 2**22 + 1})
        child.communicate("", timeout=30)

    assert found["child"] > 40
    assert found["gone"] == pytest.approx(0)
