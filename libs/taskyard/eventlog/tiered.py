"""A log whose beginning lies in its archive: followed as one, from the archive first and then from the stream.

A log that grew too long goes on in a next generation (`generation.py`): a stream that begins with its latest commits,
under the same sequences. Who has folded so far, or has a snapshot, follows the stream and needs no archive. Who folds
from the beginning reads the archive first.
"""

from types import TracebackType
from typing import Self

from nats.aio.client import Client

from taskyard.contracts.values import Instant
from taskyard.eventlog.answers import find_stream
from taskyard.eventlog.archive import Archive
from taskyard.eventlog.archive_stores import open_store
from taskyard.eventlog.backlog import Backlog
from taskyard.eventlog.errors import ApiRefused, LogBegins
from taskyard.eventlog.follower import StreamFollower
from taskyard.eventlog.log import StreamMessage

BEGIN_SECONDS_MAX = 600.0
"""How long the stream may be out of reach before following fails, as for whoever follows it already."""


class TieredFollower:
    """Follows the log in `stream` after the sequence `after`. `archive` is the address of its archive, if it has one.

    Open it with `async with`, then iterate: see `Batches`. What lies in the archive is read segment by segment.
    """

    def __init__(self, nc: Client, stream: str, *, after: int, floor: Instant, archive: str | None) -> None:
        self._nc = nc
        self._stream = stream
        self._after = after
        self._floor = floor
        self._archive = archive
        self._opened: Archive | None = None
        self._first: int | None = None
        self._waiting = Backlog()
        self._live: StreamFollower | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            await self._live.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[StreamMessage]:
        """The next batch; waits until there is one.

        Raises:
            LogBegins: the stream begins behind what is asked for, and no archive has it.
            ArchiveDamaged, ArchiveUnreachable: the archive has it and cannot be read.
            EventLogError: see `StreamFollower.next_batch`.
        """
        if self._live is None:
            batch = await self._from_archive()
            if batch is not None:
                return batch
            self._live = await self._follow_stream()
        return await self._live.next_batch()

    async def _follow_stream(self) -> StreamFollower:
        follower = StreamFollower(
            self._nc, self._stream, after=self._after, floor=self._floor, contiguous=True, original_times=True
        )
        return await follower.__aenter__()

    async def _from_archive(self) -> list[StreamMessage] | None:
        """The next batch of the archive; None once the stream goes on from here.

        Nothing is taken before an await that may be cancelled.
        """
        while not self._waiting:
            if self._first is None:
                self._first = await self._find_first()
            if self._after + 1 >= self._first:
                return None
            if self._opened is None:
                self._opened = await self._open_archive(self._first)
            segment = next(s for s in self._opened.manifest.segments if s.last > self._after)
            messages = await self._opened.read(segment)
            for message in messages:
                if self._after < message.sequence < self._first:
                    self._waiting.add(message)
        batch = self._waiting.take_batch()
        self._after, self._floor = batch[-1].sequence, batch[-1].at
        return batch

    async def _open_archive(self, first: int) -> Archive:
        """The archive that holds everything from here to the beginning of the stream."""
        if self._archive is not None:
            archive = await Archive.open(open_store(self._archive))
            if archive.first <= self._after + 1 and archive.last >= first - 1:
                return archive
        raise LogBegins(stream=self._stream, first=first, wanted=self._after + 1)

    async def _find_first(self) -> int:
        try:
            found = await find_stream(self._nc, self._stream, BEGIN_SECONDS_MAX)
        except ApiRefused:
            found = None
        return 0 if found is None else found.state.first_seq  # whoever follows the stream tells what is wrong with it
