"""`taskyard log archive`, `restore`, `mirror`, `new-generation`, `activate-version`: the log over years."""

import asyncio
import getpass
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from taskyard.cli import log_files
from taskyard.cli.connection import PASSWORD_VARIABLE, OtherServer, other_server, settings_file
from taskyard.cli.errors import Broken, WrongUsage
from taskyard.cli.screen import Screen, SequenceProgress
from taskyard.cli.session import ArchiveHead, AsJson, ConnectionFile, ServicesSettings
from taskyard.contracts.events import AnyEvent, decode_event
from taskyard.contracts.subjects import LEASES_BUCKET, SNAPSHOTS_BUCKET, StreamSpec, log_stream, streams
from taskyard.contracts.values import SECOND, Instant
from taskyard.eventlog.archive_head import write_head
from taskyard.eventlog.commit import CommitCodec
from taskyard.settings import Settings

ArchivePlace = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="DIR|s3://…",
        help="A folder, or bucket and path (needs taskyard\\[s3]). Default: log_archive of the services' settings.",
    ),
]

PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file", metavar="FILE", help=f"Holds the password. Default: the variable {PASSWORD_VARIABLE}."
    ),
]

DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="FOLDER", help="A folder of `taskyard dev` that does not run now, in place of --config."
    ),
]


def archive(
    to: ArchivePlace = None,
    *,
    head: ArchiveHead = None,
    config: ServicesSettings = None,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Add to an archive what the log holds beyond it: compressed segments, each read back and compared once written.

    Run it as often as you like, also while the services run; it goes on where the archive ends. It deletes nothing. With
    --head it first looks whether this is the archive that the file knows, and then keeps the new head there.
    """
    from taskyard.cli.log_reading import services_settings

    settings = services_settings(settings_file(config, connection))
    to = _place(to, settings)
    done = asyncio.run(_archive(settings, to, head))
    screen = Screen(as_json=as_json)
    if as_json:
        screen.json(done | {"archive": to})
    elif done["commits"]:
        screen.text(
            f"archived {done['commits']} commits in {done['segments']} segments ({done['bytes']} bytes), "
            f"up to commit {done['last']}, in {to}"
        )
    else:
        screen.text(f"nothing new: {to} ends with commit {done['last']}, as the log does")


def restore(
    from_: Annotated[str, typer.Option("--from", metavar="DIR|s3://…", help="The archive.")],
    *,
    head: ArchiveHead = None,
    data: DataFolder = None,
    config: ServicesSettings = None,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Put the log of an archive into an empty server, with its positions and times, and compare the two.

    The services must not run there yet. A restore that was stopped goes on. Start the services afterwards: they fold the
    log, and the read model is made from it.
    """
    done = asyncio.run(_restore(from_, head, data, settings_file(config, connection)))
    screen = Screen(as_json=as_json)
    if as_json:
        screen.json(done)
    else:
        screen.text(f"restored {done['commits']} commits; the log goes from {done['first']} to {done['last']}")
        screen.text(f"equal to the archive: digest {done['digest']}", "green")


def mirror(
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="NATS-URL",
            help="The other server: nats://user@host:port. Its password is read from a file or the environment.",
        ),
    ],
    *,
    password_file: PasswordFile = None,
    once: Annotated[bool, typer.Option("--once", help="End where the log ends now.")] = False,
    config: ServicesSettings = None,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Keep a copy of the log in another server, with its positions and times, until interrupted.

    The password comes from --password-file or TASKYARD_MIRROR_PASSWORD: other users of this machine can read arguments. It
    goes on where the copy ends. Should the first server be lost, stop this and start the services on the other one.
    """
    from taskyard.cli.log_reading import services_settings

    settings = services_settings(settings_file(config, connection))
    there = other_server(to, password_file)
    screen = Screen(as_json=as_json)
    try:
        last = asyncio.run(_mirror(settings, there, screen, once=once))
    except KeyboardInterrupt:
        raise typer.Exit from None
    if as_json:
        screen.json({"last": last})
    else:
        screen.text(f"the mirror ends with commit {last}")


def new_generation(
    to: ArchivePlace = None,
    data: DataFolder = None,
    config: ServicesSettings = None,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Remove all but the end of a long log from the server; the archive is completed and checked first.

    The services must not run. Positions go on. Set log_archive in the services' settings to the archive (in a folder of
    `taskyard dev` it is): what the log no longer holds is read from there by whoever folds it from the beginning.
    """
    done = asyncio.run(_new_generation(to, data, settings_file(config, connection)))
    screen = Screen(as_json=as_json)
    if as_json:
        screen.json(done)
    else:
        screen.text(
            f"the log now goes from commit {done['first']} to {done['last']}; all before is in {done['archive']}"
        )


def activate_version(
    version: Annotated[int, typer.Argument(min=1, help="The version of the log's meaning.")],
    config: ServicesSettings = None,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Activate a newer version of what the log means, from its next commit on, once every instance runs that version.

    An instance that does not know the version stops at that commit. There is no way back.
    """
    from taskyard.cli.log_reading import services_settings

    settings = services_settings(settings_file(config, connection))
    done = asyncio.run(_activate(settings, version))
    screen = Screen(as_json=as_json)
    if as_json:
        screen.json(done)
    elif done["sequence"]:
        screen.text(f"version {done['version']} is active since commit {done['sequence']}")
    else:
        screen.text(f"nothing to do: version {done['version']} is active")


async def _archive(settings: Settings, to: str, head: Path | None) -> dict[str, Any]:
    from taskyard.cli.log_reading import connected
    from taskyard.eventlog.archiving import archive_log

    known = head if head is not None and head.exists() else None
    target = await log_files.open_archive(to, settings.partition, known)
    async with connected(settings) as nc:
        done = await archive_log(nc, log_stream(settings.partition), target, SequenceProgress())
    if head is not None:
        try:
            write_head(head, target.manifest)
        except OSError as error:
            raise WrongUsage(f"{head} cannot be written: {error.strerror}") from error
    return msgspec.to_builtins(done)


async def _new_generation(to: str | None, data: Path | None, settings_path: Path) -> dict[str, Any]:
    from taskyard.cli.log_reading import connected, open_log
    from taskyard.eventlog import generation
    from taskyard.eventlog.archiving import archive_log
    from taskyard.eventlog.jetstream_api import stream_info

    progress = SequenceProgress()
    codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
    async with _server(data, settings_path) as settings, connected(settings) as nc:
        place, spec = _place(to, settings), _log_spec(settings.partition)
        target = await log_files.open_archive(place, settings.partition)
        begun = await generation.read_marker(nc, spec.name)
        if begun is None:
            await generation.require_nobody_leads(nc, LEASES_BUCKET)
            closed = await generation.close_generation(open_log(nc, settings), codec, _now())
            first = generation.first_kept((await stream_info(nc, spec.name)).state.first_seq, closed)
            await archive_log(nc, spec.name, target, progress)
            await _require_whole(place)
            done = await generation.exchange(nc, spec, target, first, progress, replicas=settings.stream_replicas)
        else:
            done = await generation.finish_exchange(
                nc, spec, target, begun, progress, replicas=settings.stream_replicas
            )
    return msgspec.to_builtins(done) | {"archive": place}


async def _require_whole(place: str) -> None:
    """What is left out of the log is nowhere else but in the archive."""
    found = await log_files.verify(place, SequenceProgress())
    if found.found:
        first = found.breaks[0]
        raise Broken(f"the archive is not whole, nothing was changed: commit {first.sequence} {first.what}")


async def _restore(where: str, head: Path | None, data: Path | None, settings_path: Path) -> dict[str, Any]:
    from taskyard.cli.log_reading import connected
    from taskyard.eventlog.archiving import restore_log
    from taskyard.eventlog.copying import LogCopy

    source = await log_files.open_archive(where, head=head)
    async with _server(data, settings_path) as settings, connected(settings) as nc:
        if settings.partition != source.manifest.partition:
            raise WrongUsage(f"the archive is of partition {source.manifest.partition}, not of {settings.partition}")
        spec = _log_spec(settings.partition)
        copy = LogCopy(nc, spec, replicas=settings.stream_replicas, snapshots=SNAPSHOTS_BUCKET)
        return msgspec.to_builtins(await restore_log(source, copy, SequenceProgress()))


async def _mirror(settings: Settings, there: OtherServer, screen: Screen, *, once: bool) -> int:
    from taskyard.cli.log_reading import connected, connected_to
    from taskyard.eventlog.answers import state_of
    from taskyard.eventlog.archiving import mirror_log
    from taskyard.eventlog.copying import LogCopy

    stream = log_stream(settings.partition)
    async with connected(settings) as nc, connected_to(there) as other:
        head = (await state_of(nc, stream)).last_seq
        copy = LogCopy(other, _log_spec(settings.partition), snapshots=SNAPSHOTS_BUCKET)
        if not once:
            screen.note(f"copies commits to {there.url}; INT ends it")
        return await mirror_log(nc, stream, copy, SequenceProgress(), last=head if once else None)


async def _activate(settings: Settings, version: int) -> dict[str, Any]:
    from taskyard.cli.log_reading import connected, open_log
    from taskyard.eventlog.versions import activate_version as activate

    codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
    async with connected(settings) as nc:
        log = open_log(nc, settings)
        return msgspec.to_builtins(await activate(log, codec, version, by=getpass.getuser(), now=_now()))


@asynccontextmanager
async def _server(data: Path | None, settings_path: Path) -> AsyncIterator[Settings]:
    """The server that the services are to use: the one in their settings, or that of a folder, started for a while."""
    from taskyard.cli.log_reading import services_settings

    if data is None:
        yield services_settings(settings_path)
        return
    from taskyard.dev.errors import DevError
    from taskyard.dev.standing_still import nats_of
    from taskyard.embedded.errors import EmbeddedError

    try:
        with nats_of(data) as settings:
            yield settings
    except (DevError, EmbeddedError) as error:
        raise WrongUsage(str(error)) from error


def _place(to: str | None, settings: Settings) -> str:
    place = to or settings.log_archive
    if place is None:
        raise WrongUsage("name the archive by --to, or by log_archive in the services' settings")
    return place


def _now() -> Instant:
    return Instant(round(time.time() * SECOND))


def _log_spec(partition: str) -> StreamSpec:
    return next(spec for spec in streams(partition) if spec.name == log_stream(partition))
