"""One seed: its world runs to its end, then what it left is judged."""

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from msgspec import Struct

from taskyard.contracts.values import Instant
from taskyard.eventlog.commit import StoredCommit
from taskyard.judge.evidence import Logged, Ran
from taskyard.judge.verdict import judge
from taskyard.scheduler.state import Pool
from taskyard.simulation.acts import Act
from taskyard.simulation.defects import put_back
from taskyard.simulation.evidence import gather, read_log
from taskyard.simulation.instance import Instance
from taskyard.simulation.read_model import compare_read_model, project
from taskyard.simulation.streams import Servers, read_whole
from taskyard.simulation.tables import Tables
from taskyard.simulation.time import World
from taskyard.simulation.yard import Yard


class Outcome(Struct, kw_only=True):
    """What came of a seed. `log` is its log as it can be printed, `digest` one of all of it; `acts` are all that were
    planned, and `without` the numbers of those that were left out.
    """

    seed: int
    without: frozenset[int]
    acts: list[Act]
    failures: list[str]
    faults: list[tuple[float, str]]
    log: list[Logged]
    runs: list[Ran]
    events: int
    tasks: int
    seconds: float
    digest: str


def run_seed(seed: int, without: frozenset[int] = frozenset()) -> Outcome:
    """Run one seed to its end and judge it."""
    with _no_collection():
        yard = Yard(seed, without)
        try:
            yard.run()
        except Exception:  # noqa: BLE001 - whatever a machine raises is a finding
            yard.world.failures.append(f"it stopped with an error:\n{traceback.format_exc(limit=-6)}")
        return _judge(yard, without)


@contextmanager
def _no_collection() -> Iterator[None]:
    """A world is full of circles and short of life: it is collected whole, when it is over."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _judge(yard: Yard, without: frozenset[int]) -> Outcome:
    """Read the log and what really ran; say all that is wrong."""
    world, log = yard.world, read_log(yard.servers)
    failures, tables, commits = world.failures, None, []
    if not failures:
        commits = _followed(yard.servers)
        tables = _project(commits, world)
    with put_back():
        verdict = judge(gather(yard, log, tables))
        failures = [*failures, *map(str, verdict.faults)]
        if tables is not None:
            failures += compare_read_model(tables, commits)
    if commits:
        failures += _compare_instances(yard.instances)
    return Outcome(
        seed=world.seed,
        without=without,
        acts=yard.acts.planned,
        failures=failures,
        faults=world.faults,
        log=log,
        runs=yard.witness.runs,
        events=verdict.events,
        tasks=len(verdict.lives),
        seconds=world.now,
        digest=verdict.digest,
    )


def _project(commits: list[StoredCommit[Any]], world: World) -> Tables | None:
    """The read model of the whole log; None if it could not be written, which is a failure of the run."""
    with put_back(but=Tables):
        try:
            return project(commits, world.seed)
        except Exception:  # noqa: BLE001 - whatever a projection raises is a finding
            world.failures.append(f"the projector stopped with an error:\n{traceback.format_exc(limit=-3)}")
            return None


def _compare_instances(instances: list[Instance]) -> list[str]:
    """Two instances that have folded the same log know the same, whatever snapshot they began with."""
    faults: list[str] = []
    for one, other in zip(instances[::2], instances[1::2], strict=True):
        if one.core.folded == other.core.folded and _known(one) != _known(other):
            faults.append(f"{one.name} and {other.name} differ at {one.core.folded}")
        if one.core.cursors != other.core.cursors:
            faults.append(f"{one.name} and {other.name} differ in their cursors")
    return faults


def _known(instance: Instance) -> dict[str, Any]:
    """What a machine would save. The order of what it saves as a list is of no meaning, nor is a pool that is only named."""
    saved: dict[str, Any] = msgspec.json.decode(instance.core.machine.snapshot())
    known = {name: list(map(_plain, part)) if isinstance(part, list) else part for name, part in saved.items()}
    if "pools" in known:
        known["pools"] = [
            pool for pool in known["pools"] if pool != _plain(msgspec.to_builtins(Pool(name=pool["name"])))
        ]
    return {name: sorted(map(repr, part)) if isinstance(part, list) else part for name, part in known.items()}


def _plain(part: Any) -> Any:
    """A pool without its zeros: a count that was one once is no other than one that never was."""
    if isinstance(part, dict) and "scheduled" in part:
        return {**part, "scheduled": {kind: count for kind, count in part["scheduled"].items() if count}}
    return part


def _followed(servers: Servers) -> list[StoredCommit[Any]]:
    """The log as a follower gives it."""
    commits: list[StoredCommit[Any]] = []
    at = Instant(0)
    for message in read_whole(servers.log):
        commits.append(servers.decoded(message, at))
        at = commits[-1].at
    return commits
