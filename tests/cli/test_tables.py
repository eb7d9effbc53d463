"""Tables at fixed widths, against the renderings in `golden/` (`UPDATE_GOLDEN=1` writes them anew)."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cli_server import FIRST, SECOND, a_task
from rich.cells import cell_len
from rich.text import Text

from taskyard.cli import texts
from taskyard.cli.log import verification_lines
from taskyard.cli.rebuild import report_lines
from taskyard.cli.system_tables import lag_lines, pool_table, queue_table, stats_tables, worker_table
from taskyard.cli.tables import Column, layout
from taskyard.cli.task_tables import history_table, task_card, task_table
from taskyard.cli.verification import MISSING, Break, Chain, Verification
from taskyard.cli.views import HistoryItem, Pool, Queue, Readiness, Slot, Stats, Task, Times, Worker
from taskyard.state_projector.differences import RowDifference
from taskyard.state_projector.rebuild import RebuildReport

GOLDEN = Path(__file__).parent / "golden"
NOW = texts.seconds_of("2026-11-21T10:05:00Z")
REASON = {"code": "workspace_busy", "message": f"waits for {FIRST} in prod", "blocker": FIRST, "queue_position": 1}
FAILURE = {
    "code": "exit_status",
    "message": 'terraform plan ended with 1: Error: Invalid reference on main.tf line 3,\nin resource "x" "y"',
    "retryable": True,
}


def as_tasks(*tasks: dict) -> list[Task]:
    return [msgspec.convert(task, Task) for task in tasks]


TASKS = as_tasks(
    a_task(SECOND, pending_reason=REASON),
    a_task(FIRST, status="apply_pending", attempt=1, worker="worker-1", slot=0, started_at="2026-11-21T10:00:02Z"),
    a_task(
        "0199f3c3-0000-7000-8000-000000000003", status="failed", kind="command", queue="a/very-long/queue-name",
        attempt=3, worker="worker-with-a-long-name", slot=2, error=FAILURE, submitted_at="2026-11-20T10:00:00Z",
        started_at="2026-11-20T10:00:00Z", finished_at="2026-11-20T11:12:13Z", result={"exit_code": 1}, priority=10,
    ),
    a_task(
        "0199f3c4-0000-7000-8000-000000000004", status="running", kind="noop", attempt=1, worker="w", slot=1,
        progress=40, started_at="2026-11-21T10:04:47.7Z",
    ),
)  # fmt: skip
HISTORY = [
    HistoryItem(
        position="1.0", at="2026-11-21T10:00:00.123Z", type="TaskSubmitted", by="admin", data={"kind": "plan", "n": 2}
    ),
    HistoryItem(
        position="204.17",
        at="2026-11-21T10:00:01.500Z",
        type="AttemptSucceeded",
        by="dispatcher",
        data={"result": {"exit_code": 0}},
    ),
    HistoryItem(
        position="1000000.3",
        at="2026-11-21T10:00:02.000Z",
        type="TaskStopRequested",
        by="bob",
        void=True,
        data={"reason": "two\nlines"},
    ),
]
WORKERS = [
    Worker(
        id="worker-1", pool="default", status="active", labels={"zone": "a"},
        slots=[Slot(id=0, status="reserved", accepts=["any"], task=FIRST), Slot(id=1, status="idle", accepts=["plan"])],
    ),
    Worker(id="worker-2", pool="default", status="lost"),
    Worker(id="worker-3", pool="default", status="suspect", reason="the disk is full"),
]  # fmt: skip
QUEUES = [
    Queue(pool="default", queue="default", depth=12_345, running=3),
    Queue(
        pool="default", queue="prod", depth=1, running=1, max_running=1, paused=True, paused_by="alice",
        paused_reason="release", paused_at="2026-11-21T10:00:01.500Z", locked=True, locked_by="bob",
        locked_reason="audit until Monday", locked_at="2026-11-20T09:00:00.000Z",
    ),
    Queue(
        pool="gpu", queue="prod", paused=True, paused_scope="pool", paused_by="alice", paused_reason="night",
        paused_at="2026-11-21T10:00:01.500Z",
    ),
]  # fmt: skip
POOLS = [
    Pool(
        pool="default",
        depth=2,
        running=1,
        workers=3,
        max_waiting=1000,
        approval_timeout_seconds=86400,
        placement="first-fit",
    )
]
STATS = Stats(
    tasks=17, by_status={"completed": 12, "failed": 4, "pending": 1},
    by_kind={"noop": {"completed": 12}, "plan_and_apply": {"failed": 4, "pending": 1}}, measured=16,
    waiting_seconds=Times(mean=0.0214, p50=0.0049, p95=1.25), execution_seconds=Times(mean=75.1, p50=12.0, p95=7300),
)  # fmt: skip
BEHIND = Readiness(ready=False, projection_lag_commits=12, projection_lag_seconds=7.5)
REPORT = RebuildReport(
    sequence=12, events=99, seconds=1.25, old_digest={"tasks": "2:55", "history": "9:123456789"},
    new_digest={"tasks": "2:56", "history": "9:123456789"}, differing=("tasks",), switched=True,
    differences=(
        RowDifference(table="tasks", key=("0199f3c1-0000-7000-8000-000000000001",), kind="changed", columns=("status",)),
        RowDifference(table="tasks", key=("0199f3c2-0000-7000-8000-000000000002",), kind="missing"),
    ),
)  # fmt: skip


def verified(*breaks: Break) -> Verification:
    found = Verification()
    found.chains["scheduler"] = Chain(writer="scheduler", commits=4, events=9, epoch=2, first=1, last=6, hash="5e" * 16)
    found.breaks, found.found = list(breaks), len(breaks)
    return found


BROKEN = verified(Break(sequence=5, writer="", what="commits 4 to 4 are missing", meaning=MISSING))
TABLES: dict[str, Callable[[int | None], list[Text]]] = {
    "tasks": lambda width: task_table(TASKS, width, NOW),
    "card": lambda width: [*task_card(TASKS[0], width, NOW), Text(), *task_card(TASKS[2], width, NOW)],
    "history": lambda width: history_table(HISTORY, width),
    "workers": lambda width: worker_table(WORKERS, width),
    "queues": lambda width: queue_table(QUEUES, width),
    "pools": lambda width: pool_table(POOLS, width),
    "stats": lambda width: [*stats_tables(STATS, width), *lag_lines(BEHIND)],
    "verify": lambda width: [*verification_lines(verified(), width), Text(), *verification_lines(BROKEN, width)],
    "rebuild": lambda width: report_lines(REPORT, width),
}


def test_a_rebuild_tells_of_events_that_it_could_not_fold() -> None:
    told = "3 events could not be folded or shown whole"
    for report in (REPORT, msgspec.structs.replace(REPORT, compared=False)):
        assert not any(told in line.plain for line in report_lines(report, 120))
        found = report_lines(msgspec.structs.replace(report, unreadable=3), 120)
        assert any(told in line.plain for line in found)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", TABLES)
def test_tables_look_as_they_did(name: str, width: int) -> None:
    shown = "".join(f"{line.plain}\n" for line in TABLES[name](width))
    golden = GOLDEN / f"{name}_{width}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(shown)
    assert shown == golden.read_text()


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("name", TABLES)
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    assert all(line.cell_len <= width for line in TABLES[name](width))


def test_without_a_width_nothing_is_cut() -> None:
    text = "\n".join(line.plain for line in task_table(TASKS, None, NOW))
    assert "…" not in text and "a/very-long/queue-name" in text


def test_wide_characters_count_as_two_cells() -> None:
    lines = layout((Column(title="NAME", narrow=4), Column(title="N")), [("日本語日本語", "1"), ("a", "2")], 10)
    assert [line.plain for line in lines] == ["NAME     N", "日本語…  1", "a        2"]
    assert {cell_len(line.plain) for line in lines} == {10}


def test_statuses_are_coloured() -> None:
    [line] = [line for line in task_table(TASKS, 80, NOW) if "failed" in line.plain]
    assert any("red" in str(span.style) for span in line.spans)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0ms"),
        (0.0042, "4ms"),
        (0.9994, "999ms"),
        (0.9996, "1.0s"),
        (59.94, "59.9s"),
        (59.96, "1m00s"),
        (3599.6, "1h00m"),
        (7500, "2h05m"),
    ],
)
def test_durations_read_well(seconds: float, words: str) -> None:
    assert texts.duration(seconds) == words


@pytest.mark.parametrize(("seconds", "words"), [(-1, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172_800, "2d")])
def test_ages_have_one_unit(seconds: float, words: str) -> None:
    assert texts.short(seconds) == words
