"""`taskyard.simulation`: run one seed, many, or as many as fit a time, or a slice of a recorded log; say what failed and
how to see it again.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from taskyard.eventlog.errors import SliceUnreadable
from taskyard.replay.errors import ReplayError
from taskyard.simulation.acts import parse_numbers
from taskyard.simulation.defects import DEFECTS, defect
from taskyard.simulation.history import FAILURES_SHOWN_MAX, replay_options, shortened_history
from taskyard.simulation.run import Outcome, run_seed
from taskyard.simulation.shrink import shrink
from taskyard.simulation.slices import run_slice

SEEDS_DEFAULT = 300
PROGRESS_SECONDS = 5.0
HISTORIES_MAX = 3
_DESCRIPTION = """Runs the control plane under faults, from seeds.
Exit code 1 if any seed failed, 2 for a slice that cannot be run."""

UNREADABLE = 2
"""The exit status where a slice cannot be read or run."""


class Totals:
    """What all seeds together came to."""

    def __init__(self) -> None:
        self.seeds = self.events = self.tasks = self.applies = self.faults = 0
        self.simulated_seconds = 0.0
        self.failed: list[int] = []
        self.kinds: Counter[str] = Counter()
        self._began = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """One more seed."""
        self.seeds += 1
        self.events += outcome.events
        self.tasks += outcome.tasks
        self.applies += sum(run.apply for run in outcome.runs)
        self.faults += len(outcome.faults)
        self.simulated_seconds += outcome.seconds
        if outcome.failures:
            self.failed.append(outcome.seed)

    @property
    def seconds(self) -> float:
        """How long it has taken, in real seconds."""
        return time.monotonic() - self._began

    def table(self) -> str:
        """The sums, for people."""
        rows = (
            ("seeds", f"{self.seeds}"),
            ("failed", f"{len(self.failed)}"),
            ("events", f"{self.events}"),
            ("tasks", f"{self.tasks}"),
            ("applies", f"{self.applies}"),
            ("faults", f"{self.faults}"),
            ("simulated", f"{self.simulated_seconds / 3600:.1f} h"),
            ("seeds/s", f"{self.seeds / max(self.seconds, 1e-9):.1f}"),
        )
        return "\n".join(f"  {name:<10} {value:>12}" for name, value in rows)

    def json(self) -> str:
        """The sums, for programs."""
        values = {"seeds": self.seeds, "failed": len(self.failed), "events": self.events}
        return msgspec.json.encode(values).decode()


def main(argv: list[str]) -> int:
    """Simulate and print; 1 if any seed failed."""
    options = _parse(argv)
    if options.slice is not None:
        return _run_slice(options)
    totals, shown_at = Totals(), 0.0
    with defect(options.defect):
        for seed in _seeds(options):
            outcome = run_seed(seed, options.without)
            totals.add(outcome)
            if outcome.failures:
                _print_failure(outcome, options.defect, is_short=len(totals.failed) > HISTORIES_MAX)
            if totals.seconds - shown_at > PROGRESS_SECONDS:
                shown_at = totals.seconds
                print(f"{totals.seeds} seeds, {len(totals.failed)} failed, {totals.events} events", flush=True)
    print(totals.table())
    if options.json:
        print(totals.json(), flush=True)
    return 1 if totals.failed else 0


def _run_slice(options: argparse.Namespace) -> int:
    try:
        with defect(options.defect):
            outcome = run_slice(options.slice)
    except (SliceUnreadable, ReplayError, OSError) as error:
        told = error.strerror if isinstance(error, OSError) else error
        print(f"{options.slice}: {told}", file=sys.stderr)
        return UNREADABLE
    for failure in outcome.failures[:FAILURES_SHOWN_MAX]:
        print(failure)
    left = "all have ended" if outcome.is_over else "not all have ended"
    print(f"{outcome.tasks} tasks, {outcome.events} events, {len(outcome.failures)} failures; {left}")
    if options.json:
        values = {"seeds": 0, "failed": int(bool(outcome.failures)), "events": outcome.events, "tasks": outcome.tasks}
        print(msgspec.json.encode(values).decode(), flush=True)
    return 1 if outcome.failures else 0


def _print_failure(outcome: Outcome, name: str | None, *, is_short: bool) -> None:
    if is_short:
        print(f"seed {outcome.seed}: {outcome.failures[0]}")
    else:
        print(f"seed {outcome.seed} failed: looking for less that fails in the same way", flush=True)
        outcome = shrink(outcome)
        print(shortened_history(outcome))
    broken = f" --defect {name}" if name else ""
    print(f"see it again: ./dev simulate {replay_options(outcome)}{broken}\n", flush=True)


def _seeds(options: argparse.Namespace) -> Iterator[int]:
    if options.seed is not None:
        yield options.seed
        return
    if options.minutes is None:
        yield from range(options.first, options.first + (options.seeds or SEEDS_DEFAULT))
        return
    until, seed = time.monotonic() + options.minutes * 60, options.first
    while time.monotonic() < until:
        yield seed
        seed += 1


def _numbers(text: str) -> frozenset[int]:
    try:
        return parse_numbers(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 0-4,7") from error


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev simulate",
        description=_DESCRIPTION,
        epilog=_told_defects(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed", type=int, metavar="N", help="run this one")
    which.add_argument("--seeds", type=int, metavar="COUNT", help=f"run so many (default {SEEDS_DEFAULT})")
    which.add_argument(
        "--slice", type=Path, metavar="FILE", help="run what a slice of `taskyard log export` recorded, without faults"
    )
    which.add_argument("--minutes", type=float, metavar="M", help="run as many as fit this time")
    nothing: frozenset[int] = frozenset()
    parser.add_argument(
        "--without", type=_numbers, default=nothing, metavar="ACTS", help="leave acts out, as a failure shows them"
    )
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first seed (default 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument(
        "--defect", choices=sorted(DEFECTS), metavar="NAME", help="break a rule on purpose: the checks must find it"
    )
    return parser.parse_args(argv)


def _told_defects() -> str:
    """What can be broken, one a line."""
    width = max(map(len, DEFECTS))
    lines = (f"  {name:<{width}}  {(DEFECTS[name].__doc__ or '').splitlines()[0]}" for name in sorted(DEFECTS))
    return "\n".join(("defects:", *lines))
