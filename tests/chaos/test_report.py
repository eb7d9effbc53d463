"""What went wrong is told beside the fault that was done then."""

import io
import json

from msgspec import Raw
from rich.console import Console

from taskyard.chaos.faults import Done
from taskyard.chaos.plan import KILL, Step
from taskyard.chaos.report import WITHOUT_FAULT, Result, as_json, make_rows, print_result
from taskyard.contracts.events import TaskSubmitted
from taskyard.contracts.values import SECOND, Instant, TaskId, make_position, make_uuid7
from taskyard.judge.evidence import Evidence
from taskyard.judge.faults import Fault, Rule
from taskyard.judge.life import Life
from taskyard.judge.verdict import Verdict, judge

BEGIN = Instant(1_800_000_000 * SECOND)


def later(seconds: float) -> Instant:
    return Instant(BEGIN + round(seconds * SECOND))


def life_at(seconds: float, number: int) -> Life:
    policy = TaskSubmitted(
        task=TaskId(make_uuid7(later(seconds), number)),
        kind="noop",
        pool="default",
        queue="default",
        by="bob",
        input=Raw(b"1"),
        digest="d",
        timeout_seconds=60,
    )
    return Life(policy=policy, submitted=make_position(1, 0), submitted_at=later(seconds))


def verdict_of(lives: list[Life], faults: list[Fault], started: dict[str, Instant]) -> Verdict:
    verdict = judge(Evidence(log=[]))
    verdict.lives = {life.id: life for life in lives}
    verdict.faults, verdict.started_at = faults, started
    return verdict


def kill_of(part: str, begun: float, over: float) -> Done:
    return Done(step=Step(what=KILL, part=part), begun=later(begun), over=later(over), kills=1)


def test_tasks_and_faults_are_counted_at_the_fault_that_was_done_last() -> None:
    calm, early, late = life_at(1, 1), life_at(12, 2), life_at(25, 3)
    done = [kill_of("api", 10, 11), kill_of("scheduler", 20, 24), kill_of("api", 30, 33)]
    faults = [
        Fault(rule=Rule.LOST, text="", task=early.id),
        Fault(rule=Rule.RAN_ONCE, text="", task=late.id, at=later(31)),
        Fault(rule=Rule.STUCK, text="", task=calm.id),
    ]
    started = {early.id: later(12.5), late.id: later(29)}
    rows, gap = make_rows(verdict_of([calm, early, late], faults, started), done, {late.id: later(26)})
    by_name = {row.fault: row for row in rows}
    assert by_name[WITHOUT_FAULT].tasks == 1
    assert by_name[WITHOUT_FAULT].stuck == 1
    api, scheduler = by_name["kill -9 api"], by_name["kill -9 scheduler"]
    assert (api.times, api.kills, api.tasks, api.lost, api.doubled, api.seconds) == (2, 2, 1, 1, 1, 2.0)
    assert (scheduler.tasks, scheduler.lost, scheduler.longest_gap_seconds) == (1, 0, 3.0)
    assert gap.seconds == 3.0


def test_the_table_names_what_is_wrong_and_fits_a_narrow_terminal() -> None:
    rows, gap = make_rows(verdict_of([], [], {}), [kill_of("state_projector", 1, 2)], {})
    result = Result(
        kills=1, tasks=0, lost=1, doubled=0, stuck=0, leaked=0, longest_gap_seconds=gap.seconds, healthy_ended=1, ok=False,
        seed=5, seconds=1.0, accepted=0, unsure=0, held_back=0, witnessed=0, tasks_per_second=0.0, ended={}, events=0,
        takeovers=0, faults=rows, faults_of_rules={"lost": 1}, broken=["a promise"], skipped=["the full disk: no root"],
        first_faults=["a task was lost"],
    )  # fmt: skip
    console = Console(width=80, record=True, file=io.StringIO())
    print_result(result, console)
    text = console.export_text()
    for part in (
        "kill -9 state_projector",
        "the full disk: no root",
        "a promise",
        "a task was lost",
        "not well",
        "seed 5",
    ):
        assert part in text
    assert {
        "kills",
        "tasks",
        "lost",
        "doubled",
        "stuck",
        "leaked",
        "longest_gap_seconds",
        "healthy_ended",
    } <= json.loads(as_json(result)).keys()
