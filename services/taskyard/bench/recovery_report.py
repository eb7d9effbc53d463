"""What was measured of starting, as one JSON object and as a table for people."""

from collections.abc import Callable

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from taskyard.bench.usage import Machine

FOLD_SECONDS_GOAL = 3.0
"""Folding should take no longer when a service starts, however long the log is."""


class ServiceRecovery(Struct, frozen=True, kw_only=True):
    """How one service started.

    `first_*` is the fold from the first commit to the snapshot, which a start with a snapshot saves. `snapshot_stop_ms` is
    how long a leader stands still to save it, `snapshot_store_seconds` how long storing then takes beside its work.
    `fold_seconds` is what a start takes to fold: `restore_seconds` for the snapshot and `tail_seconds` for what came after
    it; `fold_cpu_seconds` is the processor time of that. `ready_seconds` is from the start of the program, imports
    included, until it says that it is ready.
    """

    service: str
    first_events: int
    first_seconds: float
    snapshot_mib: float
    snapshot_stop_ms: float
    snapshot_store_seconds: float
    restore_seconds: float
    tail_events: int
    tail_seconds: float
    fold_seconds: float
    fold_cpu_seconds: float
    ready_seconds: float


class Recovery(Struct, frozen=True, kw_only=True):
    """Everything that is told. `snapshot_events` is after how many events a leader saves a snapshot."""

    tasks: int
    events: int
    snapshot_events: int
    write_seconds: float
    services: list[ServiceRecovery]
    machine: Machine

    @property
    def is_fast(self) -> bool:
        """Whether every service folded within the goal."""
        return all(service.fold_seconds < FOLD_SECONDS_GOAL for service in self.services)


def print_recovery(recovery: Recovery) -> None:
    """Print it for people."""
    console = Console()
    title = f"start after {recovery.tasks:,} finished tasks: {recovery.events:,} events"
    table = Table("", title=title)
    for service in recovery.services:
        table.add_column(service.service, justify="right")
    rows: dict[str, Callable[[ServiceRecovery], str]] = {
        "fold, snapshot and tail": lambda s: f"{s.fold_seconds:.2f} s",
        "  of it processor time": lambda s: f"{s.fold_cpu_seconds:.2f} s",
        "  snapshot restored": lambda s: f"{s.restore_seconds:.2f} s",
        "  tail folded": lambda s: f"{s.tail_seconds:.2f} s",
        "  events of the tail": lambda s: f"{s.tail_events:,}",
        "program started until ready": lambda s: f"{s.ready_seconds:.2f} s",
        "fold without a snapshot": lambda s: f"{s.first_seconds:.1f} s",
        "  events": lambda s: f"{s.first_events:,}",
        "snapshot": lambda s: f"{s.snapshot_mib:.1f} MiB",
        "  a leader stands still": lambda s: f"{s.snapshot_stop_ms:.0f} ms",
        "  stored meanwhile in": lambda s: f"{s.snapshot_store_seconds:.2f} s",
    }
    for label, tell in rows.items():
        table.add_row(label, *(tell(service) for service in recovery.services))
    console.print(table)
    machine = recovery.machine
    console.print(f"Machine: {machine.cores} x {machine.processor}, {machine.memory_gib} GiB, {machine.system}.")
    console.print(f"The log was written in {recovery.write_seconds:.0f} s.")
    if recovery.is_fast:
        console.print(f"Every service folds in less than {FOLD_SECONDS_GOAL:g} s.")
    else:
        console.print(f"[bold red]A service takes {FOLD_SECONDS_GOAL:g} s or longer to fold.[/]")
