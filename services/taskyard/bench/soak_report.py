"""What a soak says of memory: pure, as one JSON object and as a table for people."""

from collections.abc import Collection, Sequence

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from taskyard.bench.evidence import Findings, Percentiles
from taskyard.bench.usage import MEBIBYTE, Machine
from taskyard.scheduler.id_window import IDS_MAX

ID_KEEPER = "scheduler"
BYTES_PER_ID = 300
"""What the scheduler may take for an id, which it remembers for 24 h: about 190, and tables that grow by doubling."""
BYTES_PER_LIVE_TASK = 4_096
SLACK_MIB = 8.0
"""What a program may hold more than before though nothing is kept: buffers, and memory that was freed in pieces."""
SHORT_MINUTES = 5.0
"""In a soak that is shorter what only begins after a minute, such as keeping states of the past, may count as growth."""


class MemorySample(Struct, frozen=True, kw_only=True):
    """Memory of each program in MiB (its share of what it shares), `seconds` after the load began."""

    seconds: int
    live_tasks: int
    mib: dict[str, float]


class ProgramMemory(Struct, frozen=True, kw_only=True):
    """Of one program, in MiB. `growth` is that of the second half, and `allowed` its bound; None is not judged."""

    first: float
    middle: float
    last: float
    growth: float
    allowed: float | None
    is_bounded: bool | None


class Soak(Struct, frozen=True, kw_only=True):
    """Everything that is told."""

    minutes: float
    noops_per_second: float
    commands_per_second: float
    tasks: int
    all_completed: bool
    is_bounded: bool
    findings: Findings
    start_latency_ms: Percentiles | None
    programs: dict[str, ProgramMemory]
    samples: list[MemorySample]
    machine: Machine

    @property
    def is_well(self) -> bool:
        """Whether every task completed exactly once, and no program took more memory than it may."""
        return self.all_completed and self.is_bounded


def judge_memory(
    samples: Sequence[MemorySample], *, tasks_per_second: float, unjudged: Collection[str]
) -> dict[str, ProgramMemory]:
    """Compare what each program took more in the second half with what its live tasks and its ids explain."""
    first, middle, last = samples[0], samples[len(samples) // 2], samples[-1]
    ids = tasks_per_second * (last.seconds - middle.seconds)
    live_tasks = max(0, last.live_tasks - middle.live_tasks)
    programs: dict[str, ProgramMemory] = {}
    for name in sorted(last.mib):
        growth = round(last.mib[name] - middle.mib.get(name, 0.0), 1)
        kept = live_tasks * BYTES_PER_LIVE_TASK + (ids * BYTES_PER_ID if name == ID_KEEPER else 0)
        allowed = None if name in unjudged else round(SLACK_MIB + kept / MEBIBYTE, 1)
        programs[name] = ProgramMemory(
            first=first.mib.get(name, 0.0),
            middle=middle.mib.get(name, 0.0),
            last=last.mib[name],
            growth=growth,
            allowed=allowed,
            is_bounded=None if allowed is None else growth <= allowed,
        )
    return programs


def print_soak(soak: Soak) -> None:
    """Print it for people."""
    console = Console()
    first, middle, last = (soak.samples[index].seconds / 60 for index in (0, len(soak.samples) // 2, -1))
    load = f"{soak.noops_per_second:g} no-ops and {soak.commands_per_second:g} commands a second"
    table = Table("program", title=f"memory in MiB: {load}, {soak.tasks:,} tasks in {soak.minutes:g} min")
    for heading in (f"{first:.1f} min", f"{middle:.1f} min", f"{last:.1f} min", "growth", "allowed", ""):
        table.add_column(heading, justify="right")
    for name, program in soak.programs.items():
        figures = [f"{mib:.1f}" for mib in (program.first, program.middle, program.last)]
        allowed = "-" if program.allowed is None else f"{program.allowed:.1f}"
        verdict = {True: "bounded", False: "[bold red]GROWS[/]", None: "not judged"}[program.is_bounded]
        table.add_row(name, *figures, f"{program.growth:+.1f}", allowed, verdict)
    console.print(table)
    if (latency := soak.start_latency_ms) is not None:
        figures = f"{latency.p50:.1f} {latency.p95:.1f} {latency.p99:.1f} {latency.max:.1f} ms"
        console.print(f"Submit to start, p50 p95 p99 max: {figures}.")
    console.print("The growth is that of the second half.")
    console.print(
        f"The {ID_KEEPER} remembers ids for 24 h, {IDS_MAX:,} at most: it may grow by {BYTES_PER_ID} bytes for each, and so by"
        f" {IDS_MAX * BYTES_PER_ID / MEBIBYTE:.0f} MiB until it is full. Others keep nothing of what has ended."
    )
    if soak.minutes < SHORT_MINUTES and not soak.is_bounded:
        console.print(f"In less than {SHORT_MINUTES:g} min what begins late looks like growth: soak for longer.")
    if not soak.all_completed:
        found = msgspec.json.encode(soak.findings).decode()
        console.print(f"[bold red]Not every task completed exactly once:[/] {found}")
