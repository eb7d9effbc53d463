"""What `./dev chaos` is asked to do."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

from taskyard.bench.command_line import count, positive
from taskyard.chaos.flooding import FLOODS

ROUNDS_DEFAULT = 10
RATE_DEFAULT = 220.0
OUTAGE_SECONDS_DEFAULT = 60.0
FREEZE_SECONDS_DEFAULT = 40.0
FLOOD_SECONDS_DEFAULT = 60.0
HOSTILE_RATE_DEFAULT = 200.0
SEEDS = 1 << 31


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to do. `rate` is in tasks a second; without `keep` the folder is removed if all is well."""

    rounds: int
    rate: float
    outage_seconds: float
    freeze_seconds: float
    seed: int
    keep: Path | None
    as_json: bool


@dataclass(frozen=True, kw_only=True)
class HostileOptions:
    """What to do with `--hostile`: each of the floods for so long, under a load of `rate` tasks a second."""

    floods: tuple[str, ...]
    seconds: float
    rate: float
    keep: Path | None
    as_json: bool


def parse(argv: list[str]) -> Options | HostileOptions:
    """Read the command line; what is wrong there ends the program with status 2."""
    parser = argparse.ArgumentParser(
        prog="./dev chaos",
        description="Runs the whole system as separate processes, two instances of each service, under a mixed load, and"
        " breaks it: kill -9 of every service, of workers, nats-server and PostgreSQL; processes that stand still, alone"
        " and all services at once; PostgreSQL away; the disks of nats-server and of a worker full; two agents of one name;"
        " the journal of an agent put back; an agent killed under an apply; bursts of refused commands; everything"
        " stopped, and everything killed, and started again."
        " Then it reads the whole log, what really ran, and what clients were told, and judges."
        " Ends with 0 only if nothing was lost, doubled, stuck or leaked, no healthy attempt was ended, and"
        " every other rule was kept."
        " With `--hostile` nothing is broken: one agent and one operator, held to a quarter of the processors, flood the system"
        " in each way that they can, and it ends with 0 only if 99 of 100 tasks of others start within a second all the while.",
        epilog="About ten minutes; `--rounds 1 --outage 10 --freeze 10` does each fault once in about four."
        " Disks can be made full only as root on Linux; otherwise these faults are left out, and said so.",
    )
    parser.add_argument("--rounds", type=count, default=ROUNDS_DEFAULT, help="kills of each service (%(default)s)")
    parser.add_argument(
        "--rate",
        type=positive,
        help=f"tasks a second ({RATE_DEFAULT:g}, with --hostile {HOSTILE_RATE_DEFAULT:g})",
    )
    parser.add_argument("--hostile", action="store_true", help="measure how others fare while somebody means harm")
    parser.add_argument(
        "--flood",
        choices=tuple(FLOODS),
        action="append",
        help="with --hostile: only this flood; may be repeated (default: all)",
    )
    parser.add_argument(
        "--flood-seconds",
        type=positive,
        default=FLOOD_SECONDS_DEFAULT,
        metavar="SECONDS",
        help="with --hostile: how long each flood lasts (%(default)s)",
    )
    parser.add_argument(
        "--outage",
        type=positive,
        default=OUTAGE_SECONDS_DEFAULT,
        metavar="SECONDS",
        help="how long PostgreSQL is away (%(default)s)",
    )
    parser.add_argument(
        "--freeze",
        type=positive,
        default=FREEZE_SECONDS_DEFAULT,
        metavar="SECONDS",
        help="how long all services stand still at once (%(default)s)",
    )
    parser.add_argument("--seed", type=int, help="draws the order of the faults and who is hit (default: any)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="run in this new folder, and leave data and logs there"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line, the rest to stderr"
    )
    found = parser.parse_args(argv)
    if found.keep is not None and found.keep.exists() and any(found.keep.iterdir()):
        parser.error(f"--keep: {found.keep} is not empty; a run is judged from the first event on")
    if found.hostile:
        return HostileOptions(
            floods=tuple(found.flood or FLOODS),
            seconds=found.flood_seconds,
            rate=found.rate or HOSTILE_RATE_DEFAULT,
            keep=found.keep,
            as_json=found.json,
        )
    return Options(
        rounds=found.rounds,
        rate=found.rate or RATE_DEFAULT,
        outage_seconds=found.outage,
        freeze_seconds=found.freeze,
        seed=SystemRandom().randrange(SEEDS) if found.seed is None else found.seed,
        keep=found.keep,
        as_json=found.json,
    )
