"""`taskyard bench`: a tiny run of everything, and what it concludes from what it saw."""

import json
import subprocess
import sys
from collections.abc import Sequence
from hashlib import blake2b

import msgspec
import pytest

from taskyard.bench.evidence import Findings, find, percentiles, start_milliseconds
from taskyard.bench.load import TASK_BYTES, make_task
from taskyard.bench.usage import Sample, compare, sample
from taskyard.contracts.events import (
    OWNERS,
    AnyEvent,
    AttemptLost,
    AttemptSucceeded,
    SlotAssigned,
    TaskScheduled,
    TaskStarted,
    TaskSubmitted,
    WorkerJoined,
)
from taskyard.contracts.values import SECOND, Instant, TaskId
from taskyard.judge.evidence import Evidence, Logged
from taskyard.judge.verdict import Verdict, judge

RUN_SECONDS_MAX = 100
LOST = AttemptLost(task=TaskId("a"), attempt=1)


def submitted(task: str) -> TaskSubmitted:
    return TaskSubmitted(
        task=TaskId(task),
        kind="noop",
        pool="default",
        queue="default",
        by="admin",
        input=msgspec.Raw(b'""'),
        digest="",
        timeout_seconds=60,
        max_attempts=2,
        retry_delays_seconds=(),
    )


def assigned(task: str, attempt: int = 1) -> list[AnyEvent]:
    id = TaskId(task)
    return [TaskScheduled(task=id), SlotAssigned(task=id, attempt=attempt, worker="w", incarnation=1, slot=0)]


def ran(task: str, attempt: int = 1) -> list[AnyEvent]:
    id = TaskId(task)
    ended = [TaskStarted(task=id, attempt=attempt), AttemptSucceeded(task=id, attempt=attempt)]
    return [*assigned(task, attempt), *ended]


def verdict_of(*events: AnyEvent, seconds: float = 0.01) -> Verdict:
    """What the judge says of a log of these events, each a commit of its owner, so long one after the other."""
    joined = WorkerJoined(worker="w", incarnation=1, pool="default", slots=(("any",),), kinds=("noop",))
    log: list[Logged] = []
    hashes: dict[str, str] = {}
    for number, event in enumerate((None, None, None, joined, *events)):
        writer = list(OWNERS)[number] if event is None else next(w for w in OWNERS if isinstance(event, OWNERS[w]))
        body = {"writer": writer, "instance": "i", "epoch": 1, "at": 0, "previous": hashes.get(writer, "")}
        data = msgspec.json.encode({**body, "events": [] if event is None else [event]})
        hashes[writer] = blake2b(data, digest_size=16).hexdigest()
        at = Instant(round(number * seconds * SECOND))
        log.append(Logged.stored(number + 1, at, f"taskyard.log.0.{writer}", data))
    return judge(Evidence(log=log))


def findings_of(*events: AnyEvent, tasks: Sequence[str] = ("a",)) -> Findings:
    return find(verdict_of(*events), tasks)


def test_a_small_run_completes_every_task_and_prints_one_json_object_as_its_last_line() -> None:
    argv = [sys.executable, "-m", "taskyard.bench", "--json", "--tasks", "200", "--rate", "20", "--seconds", "1"]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["n"] == 200
    assert found["all_completed"] is True
    assert found["tasks_per_second"] > 0 and found["submit_per_second"] > 0
    latency = found["start_latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
    assert found["findings"]["completed_once"] == 220
    assert {"scheduler", "api", "worker-2", "postgres", "nats-server", "client"} <= set(found["usage"]["programs"])


def test_a_task_that_ran_once_is_without_fault() -> None:
    assert findings_of(submitted("a"), *ran("a")).is_clean


def test_a_report_that_came_twice_is_no_second_run() -> None:
    again = TaskStarted(task=TaskId("a"), attempt=1)
    assert findings_of(submitted("a"), *assigned("a"), again, again, *ran("a")[2:]).is_clean


@pytest.mark.parametrize(
    ("fault", "events"),
    [
        ("not_accepted", []),
        ("accepted_twice", [submitted("a"), submitted("a"), *ran("a")]),
        ("not_completed", [submitted("a"), *ran("a")[:3]]),
        ("run_twice", [submitted("a"), *ran("a")[:3], LOST, *ran("a", 2)]),
    ],
)
def test_each_fault_is_found(fault: str, events: list[AnyEvent]) -> None:
    findings = findings_of(*events)
    assert not findings.is_clean
    assert getattr(findings, fault) == 1


def test_a_fault_of_one_task_does_not_hide_behind_another() -> None:
    events = [submitted("a"), submitted("a"), *ran("a"), submitted("b"), *ran("b")]
    findings = findings_of(*events, tasks=["a", "b", "c"])
    assert (findings.tasks, findings.completed_once, findings.not_accepted) == (3, 1, 1)


def test_a_broken_rule_is_a_fault_though_every_task_completed() -> None:
    findings = findings_of(submitted("a"), submitted("b"), *ran("a")[:2], *ran("b"), *ran("a")[2:], tasks=["a", "b"])
    assert findings.completed_once == 2
    assert findings.faults
    assert not findings.is_clean


def test_latency_is_counted_to_the_first_start_in_the_log() -> None:
    verdict = verdict_of(submitted("a"), *ran("a")[:3], LOST, *ran("a", 2), seconds=0.0025)
    assert start_milliseconds(verdict, {"a": Instant(15_000), "b": Instant(0)}) == [2.5]


def test_percentiles_are_values_that_were_measured() -> None:
    found = percentiles([float(value) for value in range(100, 0, -1)])
    assert found is not None
    assert (found.p50, found.p95, found.p99, found.max) == (50, 95, 99, 100)


def test_percentiles_of_few_values_are_the_largest() -> None:
    found = percentiles([3.0, 1.0])
    assert found is not None
    assert (found.p50, found.p95, found.p99, found.max) == (1, 3, 3, 3)
    assert percentiles([]) is None


def test_a_task_has_the_length_that_is_told() -> None:
    assert len(msgspec.json.encode(make_task())) == TASK_BYTES


@pytest.mark.parametrize(
    ("used", "busy", "limit"),
    [
        ({"a": 1.9, "b": 0.2}, 4.0, "the processors"),
        ({"a": 1.9, "b": 0.2}, 2.2, "a, which"),
        ({"a": 0.5, "b": 0.2}, 1.0, "waiting"),
    ],
)
def test_the_limit_is_what_was_used_up(used: dict[str, float], busy: float, limit: str) -> None:
    before = Sample(programs=dict.fromkeys(used, 0.0), machine_busy=0.0, machine_total=0.0)
    after = Sample(programs=used, machine_busy=busy, machine_total=4.0)
    usage = compare(before, after, memory={}, wall_seconds=2.0, tasks=1_000, cores=2)
    assert usage.limit.startswith(limit)
    assert usage.programs["a"].cpu_us_per_task == used["a"] * 1_000


def test_the_time_of_children_counts_and_our_own_does_not_hold_theirs() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "sum(range(10**7)); input()"], stdin=subprocess.PIPE, text=True
    ) as child:
        found = sample({"child": child.pid, "gone": 2**22 + 1}, "client")
        child.communicate("\n", timeout=30)
    assert found.programs["gone"] == 0
    assert set(found.programs) == {"child", "gone", "client"}
    assert 0 < found.machine_busy < found.machine_total
