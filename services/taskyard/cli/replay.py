"""`taskyard replay`: what a recorded stretch of the log would have come to with other slots, workers or another policy."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from taskyard.cli.connection import settings_file
from taskyard.cli.errors import Broken, WrongUsage
from taskyard.cli.replay_tables import report_lines
from taskyard.cli.screen import Screen, SequenceProgress
from taskyard.cli.session import AsJson, ConnectionFile, ServicesSettings
from taskyard.contracts.fleet import ANY_KIND
from taskyard.contracts.kinds import KINDS
from taskyard.settings import Settings

if TYPE_CHECKING:
    from nats.aio.client import Client

    from taskyard.api.past.checkpoints import Checkpoints
    from taskyard.api.past.moments import Moment
    from taskyard.api.past.state import PastState
    from taskyard.cli.log_reading import Log
    from taskyard.replay.reading import Commits
    from taskyard.replay.running import WhatIf

POLICIES = ("first-fit", "keep-slot-0")
PROGRESS_INSTANTS = 60 * 1_000_000
WORKERS_MAX = 1_000
SLOTS_MAX = 256


def replay(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FROM..TO|FILE",
            help="Positions or times, both included, either may be left out; or a slice from `log export`.",
        ),
    ],
    *,
    slots: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="What each slot of a worker accepts: any,plan,plan or noop+command,any."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=WORKERS_MAX, help="How many workers each pool has, throughout.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="first-fit or keep-slot-0.")] = None,
    config: ServicesSettings = None,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Run recorded commands again, in simulated time, with other settings, and compare with what happened.

    The real scheduler, allocator and dispatcher decide; durations and outcomes of attempts are those of history.
    Nothing of the system that was recorded is touched.
    """
    from taskyard.replay.errors import ReplayError
    from taskyard.replay.running import replay as run

    what_if = _what_if(slots, workers, policy)
    screen = Screen(as_json=as_json)
    try:
        before, commits = _read(source, config, connection)
        report = run(before, commits, what_if, _Clock())
    except ReplayError as error:
        raise WrongUsage(str(error)) from error
    if as_json:
        screen.json(msgspec.json.encode(report))
    else:
        screen.lines(report_lines(report, screen.width))


def parse_slots(text: str) -> tuple[tuple[str, ...], ...]:
    """What each slot accepts, from `any,plan,noop+command`. Raises `WrongUsage`."""
    slots = tuple(tuple(slot.strip().split("+")) for slot in text.split(","))
    known = (ANY_KIND, *KINDS)
    for kind in (kind for slot in slots for kind in slot):
        if kind not in known:
            raise WrongUsage(f"--slots {text!r}: {kind!r} is none of {', '.join(known)}")
    if len(slots) > SLOTS_MAX:
        raise WrongUsage(f"--slots: at most {SLOTS_MAX}")
    return slots


def _what_if(slots: str | None, workers: int | None, policy: str | None) -> "WhatIf":
    from taskyard.replay.running import WhatIf

    if policy is not None and policy not in POLICIES:
        raise WrongUsage(f"--policy {policy!r}: must be one of {', '.join(POLICIES)}")
    return WhatIf(slots=None if slots is None else parse_slots(slots), workers=workers, policy=policy)


def _read(source: str, config: Path | None, connection: Path | None) -> tuple["PastState", "Commits"]:
    from taskyard.cli.log_reading import services_settings
    from taskyard.eventlog.slices import SLICE_SUFFIX

    if source.endswith(SLICE_SUFFIX) or Path(source).is_file():
        return _read_file(Path(source))
    first, dots, last = source.partition("..")
    if not dots:
        raise WrongUsage(
            f"{source!r} is no file and no range: write FROM..TO, such as 1..500, or `..` for the whole log"
        )
    moments = _moment(first, source), _moment(last, source)
    settings = services_settings(settings_file(config, connection))
    return asyncio.run(_read_live(settings, *moments))


def _read_file(path: Path) -> tuple["PastState", "Commits"]:
    from taskyard.eventlog.errors import SliceUnreadable
    from taskyard.replay.reading import read_slice

    try:
        before, commits, _ = read_slice(path)
    except OSError as error:
        raise WrongUsage(f"{path} cannot be read: {error.strerror}") from error
    except SliceUnreadable as error:
        raise Broken(f"{path}: {error}") from error
    return before, commits


async def _read_live(
    settings: Settings, first: "Moment | None", last: "Moment | None"
) -> tuple["PastState", "Commits"]:
    from taskyard.cli.log_reading import connected, open_log
    from taskyard.replay.reading import read_stretch

    async with connected(settings) as nc:
        log = open_log(nc, settings)
        return await read_stretch(log, await open_checkpoints(nc, log), first, last, SequenceProgress())


async def open_checkpoints(nc: "Client", log: "Log") -> "Checkpoints":
    """The states of the past that a server keeps; none on one where no service has run yet."""
    from taskyard.api.past.checkpoints import Checkpoints
    from taskyard.contracts.subjects import SNAPSHOTS_BUCKET
    from taskyard.eventlog.errors import ApiRefused
    from taskyard.eventlog.jetstream_api import stream_info
    from taskyard.eventlog.snapshots import JetStreamSnapshots, MemorySnapshots

    try:
        await stream_info(nc, SNAPSHOTS_BUCKET)
    except ApiRefused:
        return Checkpoints(MemorySnapshots(), log)
    return Checkpoints(JetStreamSnapshots(nc, SNAPSHOTS_BUCKET), log)


def _moment(text: str, source: str) -> "Moment | None":
    from taskyard.api.past.moments import parse_moment

    if not text:
        return None
    try:
        return parse_moment(text)
    except ValueError as error:
        raise WrongUsage(f"{source!r}: {text!r} {error}") from error


class _Clock:
    """Says on a terminal which simulated time it is, now and then."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, now: int) -> None:
        if sys.stderr.isatty() and now - self._told >= PROGRESS_INSTANTS:
            from taskyard.contracts.values import Instant, format_instant

            self._told = now
            print(f"\r\033[Kreplays {format_instant(Instant(now))}\r", end="", file=sys.stderr, flush=True)
