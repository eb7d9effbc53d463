"""What came of a run: one row for each kind of fault, the verdict, and both as a table and as one JSON object."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from taskyard.chaos.faults import Done
from taskyard.contracts.values import SECOND, Instant, uuid7_instant
from taskyard.judge.evidence import Trouble
from taskyard.judge.faults import DOUBLING, Fault, Rule
from taskyard.judge.gaps import NO_GAP, Gap, find_gaps, longest
from taskyard.judge.verdict import Verdict

FAULTS_SHOWN_MAX = 20
WITHOUT_FAULT = "without a fault"
WAITS_FOR_NOBODY = frozenset(("noop", "command"))
"""Kinds that wait for a slot only: others may have to wait for a workspace or an answer."""


class Row(Struct, kw_only=True):
    """One kind of fault. `tasks` were submitted from its begin until the next one began; what went wrong is counted there.

    `kills` are processes; `seconds` is the mean time from its begin until tasks started again.
    """

    fault: str
    times: int = 0
    kills: int = 0
    seconds: float = 0.0
    tasks: int = 0
    lost: int = 0
    doubled: int = 0
    stuck: int = 0
    leaked: int = 0
    healthy_ended: int = 0
    longest_gap_seconds: float = 0.0


class Result(Struct, kw_only=True):
    """Everything that is told. The first seven fields are relied on by programs outside.

    `lost` were accepted and have no end; `doubled` was accepted, decided or run more often than it may be; `stuck` had not
    ended when everything had been given the time to; `leaked` are slots and workspaces held by then; `healthy_ended` are
    attempts that were ended though nothing had happened to them or their worker that may end them. `faults_of_rules` counts
    every breach of a rule, also those; `broken` are promises that were not kept meanwhile, in words; `unsure` tasks were
    sent and never acknowledged, so they may have run or not; `seconds` is how long there was load.
    """

    kills: int
    tasks: int
    lost: int
    doubled: int
    stuck: int
    leaked: int
    longest_gap_seconds: float
    healthy_ended: int
    ok: bool
    seed: int
    seconds: float
    accepted: int
    unsure: int
    held_back: int
    witnessed: int
    tasks_per_second: float
    ended: dict[str, int]
    events: int
    takeovers: int
    faults: list[Row]
    faults_of_rules: dict[str, int]
    broken: list[str]
    skipped: list[str]
    first_faults: list[str]


def make_rows(verdict: Verdict, done: Sequence[Done], accepted: Mapping[str, Instant]) -> tuple[list[Row], Gap]:
    """The rows, and the longest gap of all."""
    gaps = find_gaps(
        (accepted.get(id, verdict.lives[id].submitted_at), at)
        for id, at in verdict.started_at.items()
        if verdict.lives[id].kind in WAITS_FOR_NOBODY
    )
    rows = {WITHOUT_FAULT: Row(fault=WITHOUT_FAULT, times=1)}
    for one in done:
        row = rows.setdefault(one.step.name, Row(fault=one.step.name))
        row.times += 1
        row.kills += one.kills
        row.seconds += max(0, one.over - one.begun) / SECOND
    for id in verdict.lives:
        _row_at(rows, done, uuid7_instant(id)).tasks += 1
    for fault in verdict.faults:
        _count(_row_at(rows, done, _when(fault, verdict)), fault)
    for gap in gaps:
        row = _row_at(rows, done, gap.over)
        row.longest_gap_seconds = max(row.longest_gap_seconds, round(gap.seconds, 3))
    for row in rows.values():
        row.seconds = round(row.seconds / row.times, 2)
    return list(rows.values()), longest(gaps) if gaps else NO_GAP


def find_troubles(done: Sequence[Done]) -> list[Trouble]:
    """When something was done to workers that may end what they run."""
    return [
        Trouble(worker=worker, began=one.begun / SECOND, ended=(one.over or one.begun) / SECOND)
        for one in done
        if one.step.may_end_attempts
        for worker in one.hit
    ]


def as_json(result: Result) -> str:
    """One object on one line."""
    return msgspec.json.encode(result).decode()


def print_result(result: Result, console: Console) -> None:
    """Print it for people."""
    console.print(_table(result))
    console.print("[dim]back in: until tasks started again; gap: the longest time without a start while work waited[/]")
    speed = f"{result.tasks:,} tasks, {result.tasks_per_second:.0f} a second for {result.seconds:.0f} s"
    ends = ", ".join(f"{count:,} {status}" for status, count in sorted(result.ended.items()))
    console.print(f"{speed}: {ends}; {result.unsure:,} never acknowledged, {result.held_back:,} held back by clients")
    console.print(
        f"{result.witnessed:,} runs were witnessed outside, {result.events:,} events and {result.takeovers:,} takeovers read"
    )
    for text in result.skipped:
        console.print(f"[yellow]left out:[/yellow] {escape(text)}")
    for text in (*result.broken, *result.first_faults):
        console.print(f"[red]wrong:[/red] {escape(text)}", highlight=False)
    if result.ok:
        console.print(f"[bold green]all is well[/]: {result.kills} kills, nothing lost, doubled, stuck, leaked or hurt")
        return
    rules = ", ".join(f"{count} of {rule}" for rule, count in sorted(result.faults_of_rules.items()))
    console.print(f"[bold red]not well[/]: {rules or 'promises were broken'} (seed {result.seed})")


def _table(result: Result) -> Table:
    table = Table(title="taskyard chaos", box=SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("fault", no_wrap=True)
    for heading in ("times", "back in", "tasks", "lost", "twice", "stuck", "leaked", "hurt", "gap"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in result.faults:
        is_fault = row.fault != WITHOUT_FAULT
        table.add_row(
            row.fault,
            str(row.times) if is_fault else "",
            f"{row.seconds:.1f} s" if is_fault else "",
            f"{row.tasks:,}",
            *(_bad(number) for number in (row.lost, row.doubled, row.stuck, row.leaked, row.healthy_ended)),
            f"{row.longest_gap_seconds:.1f} s",
        )
    table.add_section()
    total = sum(row.times for row in result.faults) - 1
    numbers = (result.lost, result.doubled, result.stuck, result.leaked, result.healthy_ended)
    counts = (_bad(number) for number in numbers)
    gap = f"{result.longest_gap_seconds:.1f} s"
    table.add_row("all", str(total), "", f"{result.tasks:,}", *counts, gap, style="bold")
    return table


def _bad(number: int) -> str:
    return f"[bold red]{number}[/]" if number else "0"


def _row_at(rows: Mapping[str, Row], done: Sequence[Done], at: Instant | None) -> Row:
    """The row of the last fault that had begun by then."""
    name = WITHOUT_FAULT
    for one in done:
        if at is None or one.begun > at:
            break
        name = one.step.name
    return rows[name]


def _when(fault: Fault, verdict: Verdict) -> Instant | None:
    """When what is wrong went wrong: a task that did not end was last given a slot then, or submitted."""
    life = verdict.lives.get(fault.task) if fault.task is not None else None
    if fault.at is not None or life is None:
        return fault.at
    return life.assigned_at or life.submitted_at


def _count(row: Row, fault: Fault) -> None:
    row.lost += fault.rule is Rule.LOST
    row.doubled += fault.rule in DOUBLING
    row.stuck += fault.rule is Rule.STUCK
    row.leaked += fault.rule is Rule.LEAKED
    row.healthy_ended += fault.rule is Rule.HEALTHY
