"""What was measured, as one JSON object and as a table for people."""

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from taskyard.bench.evidence import Findings, Percentiles
from taskyard.bench.usage import Machine, Usage


class Latency(Struct, frozen=True, kw_only=True):
    """How latency was measured: so many tasks, sent one by one at this rate."""

    tasks: int
    per_second: float


class Result(Struct, frozen=True, kw_only=True):
    """Everything that is told. The first four fields are relied on by programs outside."""

    tasks_per_second: float
    submit_per_second: float
    start_latency_ms: Percentiles | None
    n: int
    all_completed: bool
    task_bytes: int
    end_to_end_seconds: float
    latency: Latency
    findings: Findings
    log_bytes_per_task: float
    events_per_commit: float
    commits: int
    workers: int
    slots_per_worker: int
    usage: Usage
    machine: Machine
    load_average_before: float
    load_average_after: float


def print_table(result: Result) -> None:
    """Print it for people."""
    console = Console()
    console.print(_summary(result))
    console.print(_programs(result))
    console.print(f"Limit: {result.usage.limit}.")
    if not result.all_completed:
        console.print(
            f"[bold red]Not every task completed exactly once:[/] {msgspec.json.encode(result.findings).decode()}"
        )


def _summary(result: Result) -> Table:
    table = Table(show_header=False, title="taskyard bench")
    table.add_column()
    table.add_column(justify="right")
    table.add_row("tasks a second, first submit to last seen completed", f"{result.tasks_per_second:,.0f}")
    table.add_row("tasks stored a second", f"{result.submit_per_second:,.0f}")
    table.add_row("no-op tasks", f"{result.n:,} of {result.task_bytes} bytes, in {result.end_to_end_seconds:.2f} s")
    if (latency := result.start_latency_ms) is not None:
        label = f"submit to start at {result.latency.per_second:g} a second, p50 p95 p99 max"
        table.add_row(label, f"{latency.p50:.1f} {latency.p95:.1f} {latency.p99:.1f} {latency.max:.1f} ms")
    table.add_row(
        "completed exactly once, by the log", f"{result.findings.completed_once:,} of {result.findings.tasks:,}"
    )
    table.add_row(
        "log", f"{result.log_bytes_per_task:,.0f} bytes a task, {result.events_per_commit:.0f} events a commit"
    )
    table.add_row("workers", f"{result.workers} with {result.slots_per_worker} slots")
    machine = result.machine
    table.add_row("machine", f"{machine.cores} x {machine.processor}, {machine.memory_gib} GiB, {machine.system}")
    busy = f"{result.usage.busy_share:.0%}, of it {result.usage.others_share:.0%} by other programs"
    table.add_row("processors busy meanwhile", busy)
    table.add_row("load average before and after", f"{result.load_average_before} {result.load_average_after}")
    return table


def _programs(result: Result) -> Table:
    table = Table("program", title="while the tasks ran")
    for heading in ("CPU s", "cores", "µs a task", "peak MiB"):
        table.add_column(heading, justify="right")
    by_use = sorted(result.usage.programs.items(), key=lambda item: -item[1].cpu_seconds)
    for name, used in by_use:
        row = (
            f"{used.cpu_seconds:.2f}",
            f"{used.cores:.2f}",
            f"{used.cpu_us_per_task:.0f}",
            f"{used.peak_memory_mib:.0f}",
        )
        table.add_row(name, *row)
    return table
