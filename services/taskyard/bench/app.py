"""`taskyard bench`: start a system, put load on it, and say how fast it was, what it used, and whether all is well."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import nats.errors
import uvloop

from taskyard import client
from taskyard.bench.command_line import count, ended_in_order, leaves, positive
from taskyard.bench.errors import BenchError
from taskyard.bench.recovery import measure_recovery
from taskyard.bench.recovery_report import print_recovery
from taskyard.bench.report import print_table
from taskyard.bench.soak import measure_soak
from taskyard.bench.soak_report import print_soak
from taskyard.bench.system import running
from taskyard.bench.throughput import measure
from taskyard.embedded.errors import EmbeddedError
from taskyard.eventlog.errors import EventLogError
from taskyard.telemetry.logs import set_up_logs

TASKS_DEFAULT = 20_000
RECOVERY_TASKS_DEFAULT = 1_000_000
RATE_DEFAULT = 50.0
SECONDS_DEFAULT = 10.0

Told = TypeVar("Told")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure. `rate` is in tasks a second, for `seconds`; without `keep` the folder is removed."""

    tasks: int | None
    rate: float
    seconds: float
    recovery: bool
    soak_minutes: float | None
    keep: Path | None
    as_json: bool


def main(argv: list[str]) -> int:
    """Measure, print, and return 0 if all is as it must be, 1 if not, 2 for wrong usage, 130 when interrupted."""
    options = _parse(argv)
    set_up_logs("warning")
    try:
        with ended_in_order():
            return _measured(options)
    except KeyboardInterrupt:
        _say("interrupted")
        return 128 + signal.SIGINT


def _measured(options: Options) -> int:
    try:
        with _folder(options.keep) as folder:
            return _run(options, folder)
    except* (BenchError, EmbeddedError, EventLogError, client.NotAnswered, nats.errors.Error, OSError) as group:
        for error in leaves(group):
            _say(str(error) or type(error).__name__)
    return 1


def _run(options: Options, folder: Path) -> int:
    if options.recovery:
        recovery = uvloop.run(measure_recovery(folder, options.tasks or RECOVERY_TASKS_DEFAULT, _say))
        return _tell(options, recovery, print_recovery, is_well=recovery.is_fast)
    with running(folder) as system:
        if options.soak_minutes is not None:
            soak = uvloop.run(measure_soak(system, options.soak_minutes, _say))
            return _tell(options, soak, print_soak, is_well=soak.is_well)
        tasks = options.tasks or TASKS_DEFAULT
        result = uvloop.run(measure(system, tasks=tasks, rate=options.rate, seconds=options.seconds, say=_say))
        return _tell(options, result, print_table, is_well=result.all_completed)


def _tell(options: Options, result: Told, show: Callable[[Told], None], *, is_well: bool) -> int:
    if options.as_json:
        print(msgspec.json.encode(result).decode(), flush=True)
    else:
        show(result)
    return 0 if is_well else 1


def _say(progress: str) -> None:
    """Tell how far it is, where it does not meet the result."""
    print(f"taskyard bench: {progress}", file=sys.stderr, flush=True)


def _parse(argv: list[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="taskyard bench",
        description="Measures the whole system on this machine: tasks a second from the first submit until the read model"
        " shows all as completed, and the time from submit to start at a calm rate."
        " Ends with 0 only if every task completed exactly once.",
    )
    parser.add_argument(
        "--tasks",
        type=count,
        help=f"no-op tasks of 200 bytes ({TASKS_DEFAULT:,}; finished ones with --recovery: {RECOVERY_TASKS_DEFAULT:,})",
    )
    parser.add_argument("--rate", type=positive, default=RATE_DEFAULT, help="tasks a second for latency (%(default)s)")
    parser.add_argument("--seconds", type=positive, default=SECONDS_DEFAULT, help="how long at that rate (%(default)s)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--recovery",
        action="store_true",
        help="instead, how long services take to start after many finished tasks; 0 only if each folds within the goal",
    )
    instead.add_argument(
        "--soak-minutes",
        type=positive,
        metavar="M",
        help="instead, a steady load for so long; 0 only if memory stays bounded and every task completed exactly once",
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="run in this folder, and leave data and logs there")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    found = parser.parse_args(argv)
    return Options(
        tasks=found.tasks,
        rate=found.rate,
        seconds=found.seconds,
        recovery=found.recovery,
        soak_minutes=found.soak_minutes,
        keep=found.keep,
        as_json=found.json,
    )


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="taskyard-bench-") as folder:
        yield Path(folder)
