"""`taskyard log export`: a slice of the log as a file, for a test, the simulator, a replay, or somebody who helps."""

import asyncio
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from msgspec import Raw

from taskyard.cli.connection import settings_file
from taskyard.cli.errors import Broken, WrongUsage
from taskyard.cli.screen import Screen, SequenceProgress
from taskyard.cli.session import AsJson, ConnectionFile, ServicesSettings
from taskyard.contracts.subjects import log_stream
from taskyard.contracts.values import commit_sequence, parse_position
from taskyard.private_files import writing
from taskyard.settings import Settings

if TYPE_CHECKING:
    from nats.aio.client import Client

    from taskyard.eventlog.anonymising import Anonymiser
    from taskyard.eventlog.slices import SliceHeader, SliceWriter

STANDARD_OUTPUT = "-"


def export(
    range_: Annotated[
        str, typer.Argument(metavar="FROM..TO", help="Positions or commits, both included; `..` is the whole log.")
    ],
    file: Annotated[str, typer.Argument(metavar="FILE", help="`-` writes to standard output.")],
    *,
    anonymise: Annotated[
        bool,
        typer.Option("--anonymise", help="Replace names, labels, inputs, results, messages and reasons by pseudonyms."),
    ] = False,
    config: ServicesSettings = None,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Write a slice of the log: JSON Lines, a header and then each commit with its sequence and time.

    One that begins in the middle bears what stood before it. `taskyard log verify FILE` checks a slice, `taskyard replay
    FILE` runs it. Anonymised, it tells what happened and when, but not whose it was.
    """
    from taskyard.cli.log_reading import services_settings

    first, last = parse_range(range_)
    settings = services_settings(settings_file(config, connection))
    done = asyncio.run(_export(settings, first, last, file, anonymise=anonymise))
    screen = Screen(as_json=as_json)
    if file == STANDARD_OUTPUT:
        screen.note(f"wrote commits {done['from']} to {done['to']}")
    elif as_json:
        screen.json(done)
    else:
        how = ", anonymised" if anonymise else ""
        screen.text(f"wrote commits {done['from']} to {done['to']} to {file} ({done['bytes']} bytes{how})")
    if not done["knows_before"]:
        screen.note("it does not tell what stood before: that is in the archive, which log_archive does not name")


def parse_range(text: str) -> tuple[int, int | None]:
    """The commits that `FROM..TO` means: the first, and the last or None for the end. Raises `WrongUsage`."""
    first, dots, last = text.partition("..")
    if not dots:
        raise WrongUsage(f"{text!r} is no range: write FROM..TO, such as 1..500, 1.0..500.3 or `..` for all")
    begin = _sequence(first, text) if first else 1
    end = _sequence(last, text) if last else None
    if end is not None and end < begin:
        raise WrongUsage(f"{text!r} ends before it begins")
    return begin, end


def _sequence(position: str, text: str) -> int:
    try:
        return max(commit_sequence(parse_position(position)), 1)
    except ValueError as error:
        raise WrongUsage(f"{text!r}: {position!r} is no position") from error


async def _export(settings: Settings, first: int, last: int | None, file: str, *, anonymise: bool) -> dict[str, Any]:
    from taskyard.cli.log_reading import connected
    from taskyard.eventlog.anonymising import KEY_BYTES, Anonymiser
    from taskyard.eventlog.answers import state_of
    from taskyard.eventlog.slices import SliceHeader, SliceWriter

    stream = log_stream(settings.partition)
    anonymiser = Anonymiser(secrets.token_bytes(KEY_BYTES)) if anonymise else None
    async with connected(settings) as nc:
        state = await state_of(nc, stream)
        first, last = max(first, state.first_seq), min(last or state.last_seq, state.last_seq)
        if last < first:
            raise WrongUsage(
                f"the log goes from commit {state.first_seq} to {state.last_seq}: nothing of it was asked for"
            )
        with _written(file) as out:
            before = await _state_before(nc, settings, first, anonymiser)
            header = SliceHeader(
                first=first, last=last, partition=settings.partition, anonymised=anonymise, snapshot=before
            )
            await _write(nc, stream, header, SliceWriter(out, header), anonymiser)
            size = out.tell() if file != STANDARD_OUTPUT else 0
    return {
        "from": first,
        "to": last,
        "file": file,
        "bytes": size,
        "anonymised": anonymise,
        "knows_before": first == 1 or header.has_snapshot,
    }


async def _write(
    nc: "Client", stream: str, header: "SliceHeader", writer: "SliceWriter", anonymiser: "Anonymiser | None"
) -> None:
    """Write the commits of a slice."""
    from taskyard.cli.log_files import writer_of
    from taskyard.eventlog.copying import read_messages
    from taskyard.eventlog.log import START

    progress = SequenceProgress()
    floor, expected = START, header.first
    async for batch in read_messages(nc, stream, header.first, header.last):
        for message in batch:
            if message.sequence != expected or not writer_of(message.data):
                raise _broken_at(expected)
            floor, expected = max(floor, message.at), expected + 1
            data = anonymiser.commit(message.data) if anonymiser else message.data
            writer.add(sequence=message.sequence, at=floor, data=data)
        progress(batch[-1].sequence, header.last)
    if expected <= header.last:
        raise _broken_at(expected)
    writer.finish()


def _broken_at(sequence: int) -> Broken:
    return Broken(f"commit {sequence} is missing or no commit, see `taskyard log verify`")


async def _state_before(nc: "Client", settings: Settings, first: int, anonymiser: "Anonymiser | None") -> Raw:
    """What stood before a slice, so that a replay of it knows the tasks and workers that were there."""
    from taskyard.cli.log_reading import open_log
    from taskyard.cli.replay import open_checkpoints
    from taskyard.eventlog.slices import NO_SNAPSHOT, SNAPSHOT_BYTES_MAX
    from taskyard.replay.reading import snapshot_before

    log = open_log(nc, settings)
    before = await snapshot_before(log, await open_checkpoints(nc, log), first)
    if anonymiser is not None and before != NO_SNAPSHOT:
        before = Raw(anonymiser.state(bytes(before)))
    if len(bytes(before)) > SNAPSHOT_BYTES_MAX:
        raise WrongUsage(f"too many tasks lived before commit {first} for the head of a slice: begin elsewhere")
    return before


@contextmanager
def _written(file: str) -> Iterator[BinaryIO]:
    """Where the slice goes; a file is there as a whole or not at all."""
    if file == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    try:
        with writing(Path(file)) as out:
            yield out
    except OSError as error:
        raise WrongUsage(f"{file} cannot be written: {error.strerror}") from error
