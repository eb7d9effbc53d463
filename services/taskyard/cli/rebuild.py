"""`taskyard rebuild`: the read model made again from the log, compared with the live one, and put in its place."""

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.text import Text

from taskyard.cli import texts
from taskyard.cli.connection import settings_file
from taskyard.cli.errors import NOT_COMPLETED, Broken, CliError, Refused, Unreachable, WrongUsage
from taskyard.cli.screen import Screen
from taskyard.cli.session import AsJson, ConnectionFile, ServicesSettings
from taskyard.cli.tables import Column, layout

if TYPE_CHECKING:
    # It brings the driver of PostgreSQL along, which the other commands have no use for.
    from taskyard.state_projector.differences import RowDifference
    from taskyard.state_projector.rebuild import Progress, RebuildReport

PROGRESS_SECONDS = 0.2
"""How often a terminal is told; who reads JSON is told once a second."""
PROGRESS_SECONDS_JSON = 1.0
CONFLICT = 409

COLUMNS = (
    Column(title="TABLE"),
    Column(title="LIVE", narrow=12),
    Column(title="FROM THE LOG", narrow=12),
    Column(title="", style="bold red"),
)
ROW_COLUMNS = (
    Column(title="TABLE"),
    Column(title="FIRST ROWS", narrow=24),
    Column(title="LIVE"),
)
_FOUND = {"missing": "is missing", "surplus": "has no reason in the log"}


def rebuild(
    verify_only: Annotated[bool, typer.Option("--verify-only", help="Compare, and change nothing.")] = False,
    other_log: Annotated[
        bool,
        typer.Option(
            "--other-log", help="Replace, without comparing, also rows of another log: one restored or made anew."
        ),
    ] = False,
    config: ServicesSettings = None,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Make the read model again from the log beside the live one, compare the two, and switch to the new one.

    Reading goes on all the while. Exit 1 if the two differ: the rows are named, a few of each table, and the new one
    takes the place of the live one all the same, since the log is right; --verify-only leaves it. With --json the
    progress goes to standard error, an object a line, and the report to standard output.
    """
    screen = Screen(as_json=as_json)
    if verify_only and other_log:
        raise WrongUsage("--verify-only compares, and rows of another log cannot be compared: leave out --other-log")
    path, progress = settings_file(config, connection), _ProgressLine(as_json=as_json)
    report = asyncio.run(_rebuild(path, progress, verify_only=verify_only, other_log=other_log))
    if as_json:
        screen.json(msgspec.to_builtins(report) | {"equal": report.is_equal})
    else:
        screen.lines(report_lines(report, screen.width))
    if not report.is_equal:
        raise typer.Exit(NOT_COMPLETED)


def report_lines(report: "RebuildReport", width: int | None) -> list[Text]:
    """A line for each table, rows that differ, and the verdict."""
    rows = [
        (table, digest, report.new_digest.get(table, ""), "differs" if table in report.differing else "")
        for table, digest in report.old_digest.items()
    ]
    what = f"{report.events} events in {texts.duration(report.seconds)}, up to commit {report.sequence}"
    unreadable = _unreadable_lines(report.unreadable)
    if not report.compared:
        return [
            Text(what),
            *unreadable,
            Text("not compared, as the live rows were of another log; the new rows are in use"),
        ]
    what = f"{report.events} events in {texts.duration(report.seconds)}, compared at commit {report.sequence}"
    verdict = "equal" if report.is_equal else f"differing: {', '.join(report.differing)}"
    done = "the new rows are in use" if report.switched else "nothing was changed"
    style = "green" if report.is_equal else "bold red"
    return [
        *layout(COLUMNS, rows, width),
        *_difference_lines(report.differences, width),
        Text(),
        Text(what),
        *unreadable,
        Text(f"{verdict}; {done}", style=style),
    ]


def progress_text(progress: "Progress") -> str:
    """How far it is, for people."""
    share = f"{progress.phase} {progress.percent:.0f} %"
    if progress.phase != "folding":
        return share
    left = "" if progress.remaining_seconds is None else f", {texts.duration(progress.remaining_seconds)} left"
    at = f"commit {progress.sequence} of {progress.target}"
    return f"{share}, {at}, {progress.events_per_second:,.0f} events/s{left}"


def _unreadable_lines(unreadable: int) -> list[Text]:
    if not unreadable:
        return []
    what = f"{unreadable} events could not be folded or shown whole, as this command's log tells; a version that can mends them"
    return [Text(what, style="yellow")]


def _difference_lines(differences: "tuple[RowDifference, ...]", width: int | None) -> list[Text]:
    if not differences:
        return []
    rows = [
        (
            each.table,
            texts.one_line(" ".join(map(str, each.key))),
            _FOUND.get(each.kind) or f"differs in {', '.join(each.columns)}",
        )
        for each in differences
    ]
    return [Text(), *layout(ROW_COLUMNS, rows, width)]


class _ProgressLine:
    """Tells standard error, now and then, how far it is."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._told_at = 0.0
        self._phase = ""

    def __call__(self, progress: "Progress") -> None:
        now = time.monotonic()
        pause = PROGRESS_SECONDS_JSON if self._as_json else PROGRESS_SECONDS
        if progress.phase == self._phase and now - self._told_at < pause:
            return
        self._told_at, self._phase = now, progress.phase
        if self._as_json:
            print(msgspec.json.encode(progress).decode(), file=sys.stderr, flush=True)
        elif sys.stderr.isatty():
            print(f"\r\033[K{progress_text(progress)}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave a clean line."""
        if self._phase and not self._as_json and sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


async def _rebuild(path: Path, progress: _ProgressLine, *, verify_only: bool, other_log: bool) -> "RebuildReport":
    from taskyard.cli.log_reading import connected, open_log, services_settings
    from taskyard.state_projector import errors
    from taskyard.state_projector.database import DATABASE_ERRORS
    from taskyard.state_projector.rebuild import rebuild as rebuild_from

    settings = services_settings(path)
    try:
        async with connected(settings) as nc:
            log = open_log(nc, settings)
            return await rebuild_from(
                log, settings.postgres_dsn, verify_only=verify_only, other_log=other_log, tell=progress
            )
    except errors.LogMismatch as error:
        raise Broken(f"{error}; if the log was restored or made anew, see --other-log") from error
    except errors.ProjectorError as error:
        raise Refused(CONFLICT, "", str(error)) from error
    except CliError:
        raise
    except DATABASE_ERRORS as error:
        raise Unreachable(f"PostgreSQL gives no answer: {str(error) or type(error).__name__}") from error
    finally:
        progress.end()
