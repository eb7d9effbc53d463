"""The next generation of a log that grew too long: a new stream that begins with the latest commits of the old one.

Sequences and times go on as they were. The new stream holds the last commit of each writer, since the fence of
the next append is the sequence of that; what lies before is in the archive. Nothing is folded differently: an instance
begins with its snapshot, as ever, or else reads the archive first (`tiered.py`).

While the streams are exchanged there is for a moment no log, and a service that started then would make an empty one. So a
marker is set before and removed afterwards; services refuse to start while it is there, and the command goes on from it.
"""

from collections.abc import Coroutine
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct
from nats.aio.client import Client

from taskyard.contracts.events import DECIDERS, LOG_KEEPER, OWNERS, LogVersionActivated
from taskyard.contracts.subjects import StreamSpec
from taskyard.contracts.values import Instant
from taskyard.eventlog.answers import delete_stream, find_stream, until_answered
from taskyard.eventlog.archive import Archive
from taskyard.eventlog.archiving import Progress
from taskyard.eventlog.commit import Commit, CommitCodec
from taskyard.eventlog.copying import LogCopy
from taskyard.eventlog.errors import ApiRefused, CopyRefused, GenerationUnfinished, LeaseHeld, StreamMissing
from taskyard.eventlog.jetstream_api import STREAM_NOT_FOUND, api_request, last_message, publish
from taskyard.eventlog.leases import read_holder
from taskyard.eventlog.log import EventLog
from taskyard.eventlog.streams import replicas_of
from taskyard.eventlog.versions import KEEPER_INSTANCE, active_version

EXCHANGE_SECONDS_MAX = 60.0
"""How long the server may take for one step of the exchange."""
KEPT_COMMITS = 2_000
"""So many of the latest commits stay in the server, or half of a log that has few: services that were stopped begin with
snapshots, and the projector with rows, that are a little older than the end, and must not need the archive to start."""
CLOSING_INSTANCE = "generation"
"""The instance that takes over for each writer at the end of a generation, and decides nothing."""


class Exchange(Struct, frozen=True, kw_only=True):
    """The marker: the new stream holds the commits from `first` to `last`, which the archive has, as all before.

    `replicas` is how often the old one was kept.
    """

    first: int
    last: int
    replicas: int = 1


class Generation(Struct, frozen=True, kw_only=True):
    """A finished exchange: the stream now begins with `first`, where it began with `before`, and ends with `last`."""

    before: int
    first: int
    last: int


def marker_stream(stream: str) -> str:
    """The stream whose only message says that the log in `stream` is being exchanged."""
    return f"{stream}_EXCHANGE"


async def read_marker(nc: Client, stream: str) -> Exchange | None:
    """The exchange that was begun and not finished, if there is one.

    Raises:
        LogUnavailable: the server gave no answer within the limit.
    """
    name = marker_stream(stream)
    try:
        found = await until_answered(lambda: last_message(nc, name, name), EXCHANGE_SECONDS_MAX)
    except ApiRefused as refused:
        if refused.error_code == STREAM_NOT_FOUND:
            return None
        raise
    return None if found is None else msgspec.json.decode(found.data, type=Exchange)


async def require_finished(nc: Client, stream: str) -> None:
    """Refuse to start on a log that is being exchanged.

    Raises:
        GenerationUnfinished: it is.
        LogUnavailable: the server gave no answer within the limit.
    """
    if await read_marker(nc, stream) is not None:
        raise GenerationUnfinished(stream)


async def require_nobody_leads(nc: Client, bucket: str) -> None:
    """Make sure that no service leads now.

    Raises:
        LeaseHeld: one does, or did until a moment ago.
    """
    for writer in DECIDERS:
        try:
            holder = await until_answered(partial(read_holder, nc, bucket, writer), EXCHANGE_SECONDS_MAX)
        except ApiRefused as refused:
            if refused.error_code == STREAM_NOT_FOUND:
                return  # no service has ever run here
            raise
        if holder is not None:
            raise LeaseHeld(f"{writer} is led by {holder}: stop the services first")


async def close_generation(log: EventLog[object], codec: CommitCodec[object], now: Instant) -> int:
    """Append one commit for each writer, so that the end of the log holds the last one of each; the first one's sequence.

    For a service that is a takeover by an instance that decides nothing; the keeper says again which version is active.

    Raises:
        FenceMoved: a service runs after all.
        LogUnavailable: the outcome is not known; nothing is lost.
    """
    first = 0
    for writer in OWNERS:
        last = await log.last(writer)
        if last is None:
            continue
        is_keeper = writer == LOG_KEEPER
        version = active_version(last.commit.events) if is_keeper else None
        commit = Commit[object](
            writer=writer,
            instance=KEEPER_INSTANCE if is_keeper else CLOSING_INSTANCE,
            epoch=last.commit.epoch + (0 if is_keeper else 1),
            at=now,
            previous=last.hash,
            events=() if version is None else (LogVersionActivated(version=version, by=CLOSING_INSTANCE),),
        )
        sequence = await log.append(codec.encode(commit), writer=writer, expected=last.sequence)
        first = first or sequence
    return first


def first_kept(begins: int, closed: int) -> int:
    """Where the next generation begins, of a log that begins with one commit and was closed by another."""
    return closed - min(KEPT_COMMITS, (closed - begins) // 2)


async def exchange(
    nc: Client, spec: StreamSpec, archive: Archive, first: int, progress: Progress, *, replicas: int
) -> Generation:
    """Put a stream that begins with the commit `first` in the place of the log, whose archive is complete.

    Raises:
        CopyRefused: the archive does not end where the log does, or a service writes; nothing was changed.
        StreamMissing: there is no log.
        LogUnavailable: the server gave no answer within the limit. Call `finish_exchange` later.
    """
    found = await find_stream(nc, spec.name, EXCHANGE_SECONDS_MAX)
    if found is None:
        raise StreamMissing(spec.name)
    state = found.state
    if first <= state.first_seq:
        raise CopyRefused(f"the log begins with commit {state.first_seq}: there is nothing to leave out")
    if archive.last != state.last_seq or archive.first > state.first_seq:
        raise CopyRefused(f"the archive holds {archive.first} to {archive.last}, the log goes to {state.last_seq}")
    begun = Exchange(first=first, last=state.last_seq, replicas=max(replicas, replicas_of(found.config)))
    name = marker_stream(spec.name)
    config = {"name": name, "subjects": [name], "storage": "file", "num_replicas": begun.replicas}
    await _change(until_answered(lambda: api_request(nc, f"STREAM.CREATE.{name}", config), EXCHANGE_SECONDS_MAX))
    await until_answered(lambda: publish(nc, name, msgspec.json.encode(begun)), EXCHANGE_SECONDS_MAX)
    return await finish_exchange(nc, spec, archive, begun, progress, replicas=replicas, before=state.first_seq)


async def finish_exchange(
    nc: Client,
    spec: StreamSpec,
    archive: Archive,
    begun: Exchange,
    progress: Progress,
    *,
    replicas: int,
    before: int = 0,
) -> Generation:
    """Fill the new stream from the archive, and remove the marker. What was interrupted goes on.

    Raises:
        CopyRefused: the archive does not hold what the marker names; or a service has written after all, and nothing was
            changed: begin again.
        ArchiveDamaged, ArchiveUnreachable: see `Archive.read`.
        LogUnavailable: the server gave no answer within the limit. Call it again.
    """
    if archive.first > begun.first or archive.last < begun.last:
        raise CopyRefused(f"the archive holds {archive.first} to {archive.last}, not {begun.first} to {begun.last}")
    await _delete_old(nc, spec.name, begun)
    copy = LogCopy(nc, spec, replicas=max(replicas, begun.replicas))
    end = await copy.prepare(begun.first)
    for segment in archive.manifest.segments:
        if segment.last > end:
            messages = await archive.read(segment)
            await copy.store([m for m in messages if max(end + 1, begun.first) <= m.sequence <= begun.last])
            progress(min(segment.last, begun.last), begun.last)
    await _change(delete_stream(nc, marker_stream(spec.name), EXCHANGE_SECONDS_MAX))
    return Generation(before=before, first=begun.first, last=begun.last)


async def _delete_old(nc: Client, stream: str, begun: Exchange) -> None:
    """Delete the old stream, unless an earlier run has. What is in no archive is never deleted."""
    found = await find_stream(nc, stream, EXCHANGE_SECONDS_MAX)
    if found is None or found.state.first_seq >= begun.first:
        return
    if found.state.last_seq != begun.last:  # by a service that started before the marker was there
        await _change(delete_stream(nc, marker_stream(stream), EXCHANGE_SECONDS_MAX))
        raise CopyRefused(
            f"the log ends with commit {found.state.last_seq} and the archive with {begun.last}: "
            "a service has written, stop it and begin again; nothing was changed"
        )
    await _change(delete_stream(nc, stream, EXCHANGE_SECONDS_MAX))


async def _change(change: Coroutine[Any, Any, object]) -> None:
    """Make a step of the exchange."""
    try:
        await change
    except ApiRefused as refused:
        raise CopyRefused(str(refused)) from refused
