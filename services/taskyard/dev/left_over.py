"""What an earlier run, which was killed, has left on a folder."""

import asyncio
import signal
from collections.abc import Callable, Collection
from pathlib import Path

from taskyard.agent.process import end_marked, marked
from taskyard.agent.supervised import FOLDER
from taskyard.agent.supervisor.app import FOLDER_GONE_GRACE_SECONDS
from taskyard.dev.layout import Layout
from taskyard.embedded import processes
from taskyard.embedded.processes import ProcessIdentity

STOP_SECONDS = 4.0
SUPERVISOR_STOP_SECONDS = FOLDER_GONE_GRACE_SECONDS + 5.0
"""It ends what it runs in order before it goes."""
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


async def end_absent_workers(layout: Layout, present: Collection[str], report: Callable[[str], None]) -> None:
    """End what workers have left running that this run does not have: nobody would take it over."""
    for folder in layout.worker_directories():
        if folder.name in present:
            continue
        supervisors = [one for one in processes.all_running() if _supervises(processes.command_line(one), folder)]
        if supervisors or marked(folder):
            report(f"ends what {folder.name} of an earlier run has left running")
            stops = dict.fromkeys(supervisors, signal.SIGTERM)
            await asyncio.to_thread(processes.stop_all, stops, SUPERVISOR_STOP_SECONDS)
            await end_marked(folder)


def _supervises(command_line: list[str], folder: Path) -> bool:
    return command_line[1:] == ["-m", "taskyard.agent.supervisor", str(folder / FOLDER)]


def _services_and_workers(layout: Layout) -> set[ProcessIdentity]:
    """Those that have their settings from this folder: a run that was killed right after it started one left no record."""
    return {identity for identity in processes.all_running() if _is_of(layout, processes.command_line(identity))}


def _is_of(layout: Layout, command_line: list[str]) -> bool:
    match command_line:
        case [_, "-m", module, "--config", file]:
            return module.startswith("taskyard.") and Path(file).parent == layout.configuration
        case _:
            return False
