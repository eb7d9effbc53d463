"""The shortened history of a seed that failed: what went wrong on purpose, and the events of the tasks involved."""

import re
from collections.abc import Iterator

import msgspec

from taskyard.judge.evidence import Logged, Ran
from taskyard.simulation.acts import format_numbers
from taskyard.simulation.run import Outcome

LINES_MAX = 150
LINE_CHARACTERS_MAX = 200
FAILURES_SHOWN_MAX = 10

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def shortened_history(outcome: Outcome) -> str:
    """What a person needs to understand a failure: failures, faults, events and runs, in the order of time."""
    ids = set(_ID.findall(" ".join(outcome.failures)))
    lines = [(at, f"FAULT    {what}") for at, what in outcome.faults]
    for logged in outcome.log:
        lines += [(logged.seconds, line) for line in _events(logged, ids)]
    for run in outcome.runs:
        if not ids or run.task in ids:
            lines += _runs(run)
    lines.sort(key=lambda line: line[0])
    shown = [f"{at:9.3f}  {text[:LINE_CHARACTERS_MAX]}" for at, text in lines]
    if len(shown) > LINES_MAX:
        half = LINES_MAX // 2
        shown = [*shown[:half], f"           … {len(shown) - LINES_MAX} lines left out", *shown[-half:]]
    failures = [f"  {failure}" for failure in outcome.failures[:FAILURES_SHOWN_MAX]]
    more = len(outcome.failures) - FAILURES_SHOWN_MAX
    failures += [f"  and {more} more"] if more > 0 else []
    return "\n".join((f"seed {outcome.seed} failed:", *failures, *_acts(outcome), *shown))


def replay_options(outcome: Outcome) -> str:
    """The options of the command line that show this very run again."""
    without = f" --without {format_numbers(outcome.without)}" if outcome.without else ""
    return f"--seed {outcome.seed}{without}"


def _acts(outcome: Outcome) -> Iterator[str]:
    """What was done, where it was made less than what was planned."""
    if outcome.without:
        yield f"  {len(outcome.acts) - len(outcome.without)} of {len(outcome.acts)} acts are enough:"
        for number, act in sorted(enumerate(outcome.acts), key=lambda one: one[1].seconds):
            if number not in outcome.without:
                yield f"{act.seconds:9.3f}  ACT      {act.what}"


def _events(logged: Logged, ids: set[str]) -> Iterator[str]:
    commit = msgspec.json.decode(logged.data)
    events = commit.get("events", ())
    if not events:
        yield f"{logged.sequence:5}    {commit['instance']} takes over with epoch {commit['epoch']}"
    for index, event in enumerate(events):
        text = msgspec.json.encode(event).decode()
        is_of_worker = event["type"].startswith("Worker")
        if is_of_worker or not ids or any(id in text for id in ids):
            name = event.pop("type")
            rest = " ".join(f"{key}={value}" for key, value in event.items() if key not in _LEFT_OUT)
            yield f"{logged.sequence:5}.{index:<2} {name} {rest}"


def _runs(run: Ran) -> Iterator[tuple[float, str]]:
    what = f"{run.host} slot {run.slot}: {'apply' if run.apply else run.kind} {run.task} attempt {run.attempt}"
    yield run.began, f"RUNS     {what}"
    if run.ended is not None:
        yield run.ended, f"ENDS     {what}"


_LEFT_OUT = frozenset(("slots", "kinds", "digest", "labels", "traceparent", "retry_delays_seconds", "command"))
