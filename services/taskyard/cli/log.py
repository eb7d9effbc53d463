"""`taskyard log tail` and `taskyard log verify`; the other commands of the log join them here."""

import asyncio
import textwrap
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
import typer
from rich.text import Text

from taskyard.cli import archive, export, log_files, texts
from taskyard.cli.connection import settings_file
from taskyard.cli.errors import EXIT_STATUSES, NOT_COMPLETED, WrongUsage
from taskyard.cli.screen import Screen, SequenceProgress
from taskyard.cli.session import ArchiveHead, AsJson, ConnectionFile, ServicesSettings
from taskyard.cli.tables import Column, layout
from taskyard.cli.verification import Verification
from taskyard.contracts.events import event_name, shown_event
from taskyard.contracts.values import (
    Position,
    commit_sequence,
    format_instant,
    format_position,
    make_position,
    parse_position,
)
from taskyard.eventlog.commit import StoredCommit
from taskyard.settings import Settings

TAIL_COMMITS = 20
MEANING_WIDTH = 120

CHAIN_COLUMNS = (
    Column(title="WRITER"),
    Column(title="COMMITS", align_right=True),
    Column(title="EVENTS", align_right=True),
    Column(title="EPOCH", align_right=True),
    Column(title="FIRST", align_right=True, leaves=2),
    Column(title="LAST", align_right=True, leaves=1),
    Column(title="HASH OF LAST", narrow=12),
)
BREAK_COLUMNS = (
    Column(title="BREAK AT", align_right=True, style="bold red"),
    Column(title="WRITER"),
    Column(title="WHAT", narrow=20),
)

log_app = typer.Typer(
    no_args_is_help=True,
    help="Read, verify, export, archive, restore or mirror the event log (as the services see it).",
)
for _command in (
    export.export,
    archive.archive,
    archive.restore,
    archive.mirror,
    archive.new_generation,
    archive.activate_version,
):
    log_app.command(_command.__name__.replace("_", "-"), epilog=EXIT_STATUSES)(_command)


@log_app.command("tail", epilog=EXIT_STATUSES)
def tail(
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what is appended.")] = False,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="POSITION", help="Begin here. Default: the last 20 commits.")
    ] = None,
    config: ServicesSettings = None,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Show events as they stand in the log. With --json an object for each event."""
    from taskyard.cli.log_reading import services_settings

    settings = services_settings(settings_file(config, connection))
    asyncio.run(_tail(settings, Screen(as_json=as_json), _position(from_), follow=follow))


@log_app.command("verify", epilog=EXIT_STATUSES)
def verify(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]", help="An archive (folder or s3://…) or the file of a slice. Default: the live log."
        ),
    ] = None,
    *,
    head: ArchiveHead = None,
    config: ServicesSettings = None,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Check a whole log, an archive or a slice: nothing is missing, altered, or written by someone who may not.

    Sequences have no gaps; each commit can be read and names the hash of its writer's one before; each event is its
    writer's own; epochs only rise; cursors never go back. Exit 1 if anything is broken.
    """
    if source is None:
        if head is not None:
            raise WrongUsage("--head is of an archive: name that")
        from taskyard.cli.log_reading import services_settings

        found = asyncio.run(_verify(services_settings(settings_file(config, connection))))
    else:
        found = asyncio.run(log_files.verify(source, SequenceProgress(), head))
    screen = Screen(as_json=as_json)
    if as_json:
        screen.json(_summary(found))
    else:
        screen.lines(verification_lines(found, screen.width))
    if found.found:
        raise typer.Exit(NOT_COMPLETED)


def verification_lines(found: Verification, width: int | None) -> list[Text]:
    """A line for each writer, one for each break, what the first one means, and the verdict."""
    chains = [
        (c.writer, str(c.commits), str(c.events), str(c.epoch), str(c.first), str(c.last), c.hash)
        for _, c in sorted(found.chains.items())
    ]
    lines = layout(CHAIN_COLUMNS, chains, width)
    if found.breaks:
        breaks = [(str(b.sequence), b.writer, texts.one_line(b.what)) for b in found.breaks]
        lines += [Text(), *layout(BREAK_COLUMNS, breaks, width)]
        first = found.breaks[0]
        told = textwrap.wrap(f"first at commit {first.sequence}: {first.meaning}", width or MEANING_WIDTH)
        lines += [Text(), *map(Text, told)]
    if not found.is_version_known:
        lines += [Text(), Text(f"the log has version {found.version}: this program must not fold it", style="bold red")]
    unknown = f", {found.unknown_events} of them unknown to this version" if found.unknown_events else ""
    counted = f"{found.commits} commits with {found.events} events{unknown}"
    begins = f", from commit {found.first} on" if found.first > 1 else ""
    breaks_found = "1 break" if found.found == 1 else f"{found.found} breaks"
    verdict = f"{breaks_found} in {counted}{begins}" if found.found else f"whole: {counted}{begins}"
    return [*lines, Text(), Text(verdict, style="bold red" if found.found else "green")]


async def _tail(settings: Settings, screen: Screen, start: Position | None, *, follow: bool) -> None:
    from taskyard.cli.log_reading import connected, open_log

    async with connected(settings) as nc:
        log = open_log(nc, settings)
        head = await log.head()
        first = make_position(max(head - TAIL_COMMITS + 1, 1), 0) if start is None else start
        async for stored in log.read(max(commit_sequence(first), 1), head):
            _show(screen, stored, first)
        if follow:
            async with log.follow(max(head, commit_sequence(first) - 1)) as batches:
                async for batch in batches:
                    for stored in batch:
                        _show(screen, stored, first)


async def _verify(settings: Settings) -> Verification:
    from taskyard.cli import log_reading

    async with log_reading.connected(settings) as nc:
        return await log_reading.verify(nc, settings.partition, SequenceProgress())


def _show(screen: Screen, stored: StoredCommit[Any], first: Position) -> None:
    events = [
        (position, event)
        for index, event in enumerate(stored.commit.events)
        if (position := make_position(stored.sequence, index)) >= first
    ]
    if screen.as_json:
        for position, event in events:
            screen.json(_event_object(stored, position, event))
    else:
        screen.lines(_event_lines(stored, events))


def _event_object(stored: StoredCommit[Any], position: Position, event: Any) -> dict[str, Any]:
    return {
        "position": format_position(position),
        "at": format_instant(stored.at),
        "writer": stored.commit.writer,
        "epoch": stored.commit.epoch,
        "type": event_name(event),
        "data": _fields(event),
    }


def _event_lines(stored: StoredCommit[Any], events: Iterable[tuple[Position, Any]]) -> list[Text]:
    shown = [(format_position(position), event_name(event), texts.pairs(_fields(event))) for position, event in events]
    if not stored.commit.events:
        shown = [(str(stored.sequence), f"epoch {stored.commit.epoch}", f"instance={stored.commit.instance}")]
    lines: list[Text] = []
    for position, name, fields in shown:
        line = Text(no_wrap=True)
        line.append(f"{position:<10}  {texts.moment(format_instant(stored.at))}  ")
        line.append(f"{stored.commit.writer:<14}  ", style="bright_black")
        line.append(texts.one_line(name), style="bold")
        line.append(f"  {texts.one_line(fields)}")
        lines.append(line)
    return lines


def _fields(event: Any) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(shown_event(event)[0]))
    return {name: value for name, value in fields.items() if name != "type"}


def _summary(found: Verification) -> dict[str, Any]:
    return {
        "ok": not found.found,
        "first": found.first,
        "last": found.last,
        "version": found.version,
        "commits": found.commits,
        "events": found.events,
        "unknown_events": found.unknown_events,
        "writers": [msgspec.to_builtins(chain) for _, chain in sorted(found.chains.items())],
        "breaks_found": found.found,
        "breaks": [msgspec.to_builtins(b) for b in found.breaks],
    }


def _position(text: str | None) -> Position | None:
    if text is None:
        return None
    try:
        # A bare sequence means its whole commit here, since this is where reading begins.
        return parse_position(text) if "." in text else make_position(int(text), 0)
    except ValueError as error:
        raise WrongUsage(f"--from {text!r} is no position") from error
