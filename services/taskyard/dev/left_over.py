"""What an earlier run, which was killed, has left on a folder."""

import signal
from collections.abc import Callable
from pathlib import Path

from taskyard.dev.layout import Layout
from taskyard.embedded import processes
from taskyard.embedded.processes import ProcessIdentity

STOP_SECONDS = 4.0
SERVERS = frozenset(("nats-server", "postgres"))


def stop_left_over(layout: Layout, report: Callable[[str], None]) -> None:
    """Stop what still runs: workers first and servers last, as in an orderly end. Blocks until it is gone."""
    left = layout.processes()
    unrecorded = _services_and_workers(layout) - {program.identity for program in left.values()}
    for identity in processes.stop_all(dict.fromkeys(unrecorded, signal.SIGTERM), STOP_SECONDS):
        report(f"stopped process {identity.pid} of an earlier run, which had not recorded it yet")
    servers = left.keys() & SERVERS
    workers = {name for name in left if name.startswith("worker-")}
    for names in (workers, left.keys() - servers - workers, servers):
        signals = {left[name].identity: left[name].stop_signal for name in names}
        for identity in processes.stop_all(signals, STOP_SECONDS):
            report(f"stopped process {identity.pid} of an earlier run")
    layout.forget_processes()


def _services_and_workers(layout: Layout) -> set[ProcessIdentity]:
    """Those that have their settings from this folder: a run that was killed right after it started one left no record."""
    return {identity for identity in processes.all_running() if _is_of(layout, processes.command_line(identity))}


def _is_of(layout: Layout, command_line: list[str]) -> bool:
    match command_line:
        case [_, "-m", module, "--config", file]:
            return module.startswith("taskyard.") and Path(file).parent == layout.configuration
        case _:
            return False
