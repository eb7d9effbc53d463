"""Archiving a log, restoring one, and keeping a mirror of one: each goes on where it was interrupted."""

from collections.abc import Callable

from msgspec import Struct
from nats.aio.client import Client

from taskyard.contracts.values import Instant
from taskyard.eventlog.answers import state_of, until_answered
from taskyard.eventlog.archive import SEGMENT_BYTES_MAX, SEGMENT_COMMITS_MAX, Archive
from taskyard.eventlog.commit import hash_commit
from taskyard.eventlog.copying import LogCopy, LogDigest, read_messages
from taskyard.eventlog.errors import ArchiveMismatch, CopyRefused, LogGap
from taskyard.eventlog.follower import StreamFollower
from taskyard.eventlog.jetstream_api import StreamState, message_at
from taskyard.eventlog.log import START, StreamMessage

Progress = Callable[[int, int], None]
"""Is told how far something is, and where it ends: sequences of commits."""


class Archived(Struct, frozen=True, kw_only=True):
    """What one run added to an archive that now ends with the commit `last`."""

    commits: int
    segments: int
    bytes: int
    last: int


class Restored(Struct, frozen=True, kw_only=True):
    """What was restored: the commits from `first` to `last`, of which `commits` in this run; `digest` is of all."""

    first: int
    last: int
    commits: int
    digest: str


async def archive_log(nc: Client, stream: str, archive: Archive, progress: Progress) -> Archived:
    """Add to an archive what the log in `stream` holds beyond it, up to where that ends now.

    Raises:
        ArchiveMismatch: the archive is not the beginning of this log.
        LogGap: the log lost commits.
        StreamMissing: there is no log.
        LogUnavailable: the log gave no answer within the limit; what was added stays.
        ArchiveUnreachable, ArchiveDamaged: see `Archive.add`.
    """
    state = await state_of(nc, stream)
    await _require_beginning(nc, stream, state, archive)
    first = archive.last + 1 if archive.last else state.first_seq
    commits = segments = size = 0
    waiting = _Waiting(archive.last_at)
    async for batch in read_messages(nc, stream, first, state.last_seq):
        for message in batch:
            expected = first + commits + len(waiting.messages)
            if message.sequence != expected:
                raise LogGap(stream=stream, expected=expected, actual=message.sequence)
            waiting.add(message)
            if waiting.is_full or message.sequence == state.last_seq:
                segment = await archive.add(waiting.messages)
                commits, segments, size = commits + len(waiting.messages), segments + 1, size + segment.bytes
                waiting = _Waiting(segment.last_at)
                progress(segment.last, state.last_seq)
    if first + commits <= state.last_seq:
        missing = first + commits + len(waiting.messages)
        raise LogGap(stream=stream, expected=missing, actual=state.last_seq + 1)
    return Archived(commits=commits, segments=segments, bytes=size, last=archive.last)


class _Waiting:
    """Commits of the next segment. Their times never go back, as the fold has them."""

    def __init__(self, floor: Instant) -> None:
        self.messages: list[StreamMessage] = []
        self._floor = floor
        self._bytes = 0

    def add(self, message: StreamMessage) -> None:
        """Take in the next commit."""
        self._floor = max(self._floor, message.at)
        self._bytes += len(message.data)
        self.messages.append(
            StreamMessage(sequence=message.sequence, at=self._floor, subject=message.subject, data=message.data)
        )

    @property
    def is_full(self) -> bool:
        """Whether the segment is as long as one may be."""
        return len(self.messages) >= SEGMENT_COMMITS_MAX or self._bytes >= SEGMENT_BYTES_MAX


async def _require_beginning(nc: Client, stream: str, state: StreamState, archive: Archive) -> None:
    if not archive.last:
        return
    if state.last_seq < archive.last:
        raise ArchiveMismatch(f"the archive ends with commit {archive.last}, the log with {state.last_seq}")
    if archive.last + 1 < state.first_seq:
        raise ArchiveMismatch(f"the archive ends with commit {archive.last}, the log begins with {state.first_seq}")
    found = await until_answered(lambda: message_at(nc, stream, archive.last))
    if found is not None and hash_commit(found.data) != archive.manifest.last_hash:
        raise ArchiveMismatch(f"commit {archive.last} is another one in the archive: it is of another log")


async def restore_log(archive: Archive, copy: LogCopy, progress: Progress) -> Restored:
    """Put all commits of an archive into an empty log, or go on with a restore that was stopped; then compare both.

    Raises:
        CopyRefused: the log is not empty, or is not the same as the archive after all.
        ArchiveDamaged, ArchiveUnreachable: see `Archive.read`; what was restored stays.
        LogUnavailable: the server gave no answer within the limit; what was restored stays.
    """
    end = await copy.prepare(max(archive.first, 1))
    if end > archive.last:
        raise CopyRefused(f"the log is not empty: it ends with commit {end}, the archive with {archive.last}")
    expected = LogDigest()
    restored = 0
    async for messages in archive.commits():
        expected.add(messages)
        known = [message for message in messages if message.sequence == end]
        if known:
            await copy.require_copy(end, known[0].subject, known[0].data)
        missing = [message for message in messages if message.sequence > end]
        await copy.store(missing)
        restored += len(missing)
        progress(messages[-1].sequence, archive.last)
    found = LogDigest()
    async for batch in copy.read(max(archive.first, 1), archive.last):
        found.add(batch)
        progress(batch[-1].sequence, archive.last)
    if str(found) != str(expected):
        raise CopyRefused("the restored log is not the same as the archive: it must not be used")
    return Restored(first=archive.first, last=archive.last, commits=restored, digest=str(found))


async def mirror_log(nc: Client, stream: str, copy: LogCopy, progress: Progress, *, last: int | None = None) -> int:
    """Copy what the log in `stream` holds beyond its mirror, and go on with what is appended, for ever or up to `last`.

    Returns the sequence of the last commit copied, once `last` is reached.

    Raises:
        CopyRefused: what stands in the mirror is not the beginning of this log, or somebody writes there.
        StreamMissing: there is no log.
        LogUnavailable: one of the servers gave no answer within the limit; what was copied stays.
    """
    state = await state_of(nc, stream)
    end = await copy.prepare(state.first_seq or 1)
    floor = START
    if end >= (state.first_seq or 1):
        original = await until_answered(lambda: message_at(nc, stream, end))
        if original is None:
            raise CopyRefused(f"the mirror ends with commit {end}, which the log does not have")
        floor = await copy.require_copy(end, original.subject, original.data)
    if last is not None and end >= last:
        return end
    follower = StreamFollower(nc, stream, after=end, floor=floor, contiguous=True, original_times=True)
    async with follower as batches:
        async for batch in batches:
            wanted = batch if last is None else [message for message in batch if message.sequence <= last]
            await copy.store(wanted)
            end = wanted[-1].sequence
            progress(end, end if last is None else last)
            if end == last:
                return end
    return end
