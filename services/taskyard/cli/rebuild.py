"""`taskyard rebuild`: the read model made again from the log, compared with the live one, and put in its place."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.text import Text

from taskyard.cli import texts
from taskyard.cli.connection import settings_file
from taskyard.cli.errors import NOT_COMPLETED, Broken, CliError, Refused, Unreachable
from taskyard.cli.screen import Screen
from taskyard.cli.session import AsJson, ConnectionFile, ServicesSettings
from taskyard.cli.tables import Column, layout

if TYPE_CHECKING:
    # It brings the driver of PostgreSQL along, which the other commands have no use for.
    from taskyard.state_projector.rebuild import RebuildReport

PROGRESS_COMMITS = 1_000
CONFLICT = 409

COLUMNS = (
    Column(title="TABLE"),
    Column(title="LIVE", narrow=12),
    Column(title="FROM THE LOG", narrow=12),
    Column(title="", style="bold red"),
)


def rebuild(
    verify_only: Annotated[bool, typer.Option("--verify-only", help="Compare, and change nothing.")] = False,
    config: ServicesSettings = None,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Make the read model again from the log beside the live one, compare the two, and switch to the new one.

    Exit 1 if they differ; the new one takes the place of the live one all the same, since the log is right.
    """
    report = asyncio.run(_rebuild(settings_file(config, connection), verify_only=verify_only))
    screen = Screen(as_json=as_json)
    if as_json:
        screen.json(msgspec.to_builtins(report) | {"equal": report.is_equal})
    else:
        screen.lines(report_lines(report, screen.width))
    if not report.is_equal:
        raise typer.Exit(NOT_COMPLETED)


def report_lines(report: "RebuildReport", width: int | None) -> list[Text]:
    """A line for each table, and the verdict."""
    rows = [
        (table, digest, report.new_digest.get(table, ""), "differs" if table in report.differing else "")
        for table, digest in report.old_digest.items()
    ]
    what = f"{report.events} events in {texts.duration(report.seconds)}, compared at commit {report.sequence}"
    verdict = "equal" if report.is_equal else f"differing: {', '.join(report.differing)}"
    done = "the new rows are in use" if report.switched else "nothing was changed"
    style = "green" if report.is_equal else "bold red"
    return [*layout(COLUMNS, rows, width), Text(), Text(what), Text(f"{verdict}; {done}", style=style)]


async def _rebuild(path: Path, *, verify_only: bool) -> "RebuildReport":
    import asyncpg

    from taskyard.cli.log_reading import connected, open_reporting_log, services_settings
    from taskyard.state_projector import errors
    from taskyard.state_projector.rebuild import rebuild as rebuild_from

    settings = services_settings(path)
    try:
        async with connected(settings) as nc:
            log = open_reporting_log(nc, settings, _progress)
            return await rebuild_from(log, settings.postgres_dsn, verify_only=verify_only)
    except errors.LogMismatch as error:
        raise Broken(str(error)) from error
    except errors.ProjectorError as error:
        raise Refused(CONFLICT, "", str(error)) from error
    except CliError:
        raise
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Unreachable(f"PostgreSQL gives no answer: {str(error) or type(error).__name__}") from error


def _progress(sequence: int) -> None:
    if sequence % PROGRESS_COMMITS == 0 and sys.stderr.isatty():
        print(f"\rcommit {sequence}", end="\r", file=sys.stderr, flush=True)
