"""Snapshots: the state of a machine at a position of the log, so that a fold need not begin at the first commit.

A snapshot only saves time: one that is missing, torn, damaged or of another version is passed over, and the log is
folded instead. The newest two of each writer are kept, in two places that are overwritten by turns.

Stored form: a snapshot is cut into chunks, chunk `i` on the subject `<bucket>.<writer>.<place>.<i>`, of which the
stream keeps the last message. Every chunk names the snapshot it belongs to in its headers. Chunk 0 is written last:
until then the place holds chunks of two snapshots, which shows when it is read, and the other place is whole.
"""

import asyncio
import logging
from hashlib import blake2b
from typing import Protocol
from uuid import uuid4

from nats.aio.client import Client

from taskyard.eventlog.append import Patience
from taskyard.eventlog.errors import ApiRefused, EventLogError, LogUnavailable, Unanswered
from taskyard.eventlog.jetstream_api import StoredMessage, last_message, parse_headers, publish
from taskyard.eventlog.streams import ensure_made, more_replicas

PLACES = 2
CHUNK_BYTES = 256 * 1024
SNAPSHOT_CHUNKS_MAX = 8_192
"""Two GiB; what claims to be longer is damaged."""
CALL_SECONDS_MAX = 10.0
REQUEST_SECONDS_MAX = 30.0
"""How long one chunk is tried."""

_ID, _VERSION, _SEQUENCE, _CHUNKS, _DIGEST = (
    f"Taskyard-Snapshot-{name}" for name in ("Id", "Version", "Sequence", "Chunks", "Digest")
)

_log = logging.getLogger(__name__)


class SnapshotStore(Protocol):
    """Where snapshots are kept. `version` is of the form of the state, `sequence` the last commit folded into it."""

    async def save(self, writer: str, version: int, sequence: int, data: bytes) -> None:
        """Keep a snapshot, in the place of the oldest one.

        Raises:
            LogUnavailable: the store did not answer in time; what was there before may be all there is.
        """
        ...

    async def load(self, writer: str, version: int, *, below: int | None = None) -> tuple[int, bytes] | None:
        """The newest snapshot of this version that can be read, with its sequence; of those before `below`, if given.

        Raises:
            LogUnavailable: the store did not answer in time.
        """
        ...


async def ensure_snapshots(nc: Client, bucket: str, *, replicas: int = 1) -> None:
    """Make the stream that holds the snapshots, unless there is one, with as many replicas at least.

    Raises:
        LogUnavailable: JetStream did not answer in time, or has no room for so many replicas.
        ApiRefused: JetStream refuses the stream.
    """
    config: dict[str, object] = {
        "name": bucket,
        "subjects": [f"{bucket}.*.*.*"],
        "storage": "file",
        "retention": "limits",
        "num_replicas": replicas,
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_msg_size": 2 * CHUNK_BYTES,
    }
    await ensure_made(nc, config, lambda found: more_replicas(found, replicas))


class JetStreamSnapshots:
    """Snapshots in a stream made by `ensure_snapshots`."""

    def __init__(self, nc: Client, bucket: str) -> None:
        self._nc = nc
        self._bucket = bucket

    async def save(self, writer: str, version: int, sequence: int, data: bytes) -> None:
        """Keep a snapshot: see `SnapshotStore`."""
        heads = [await self._head(writer, place) for place in range(PLACES)]
        oldest = min(range(PLACES), key=lambda place: (_sequence_of(heads[place]), place))
        chunks = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)] or [b""]
        headers = {
            _ID: uuid4().hex,
            _VERSION: str(version),
            _SEQUENCE: str(sequence),
            _CHUNKS: str(len(chunks)),
            # Another thread: a long snapshot would hold up whatever else this program does.
            _DIGEST: await asyncio.to_thread(_digest, data),
        }
        for index in reversed(range(len(chunks))):
            await self._publish(self._subject(writer, oldest, index), chunks[index], headers)

    async def load(self, writer: str, version: int, *, below: int | None = None) -> tuple[int, bytes] | None:
        """The newest snapshot that can be read: see `SnapshotStore`."""
        heads = [await self._head(writer, place) for place in range(PLACES)]
        for place in sorted(range(PLACES), key=lambda place: _sequence_of(heads[place]), reverse=True):
            head, sequence = heads[place], _sequence_of(heads[place])
            if head is None or (below is not None and sequence >= below):
                continue
            if head[0].get(_VERSION) != str(version):
                _log.warning("skipped a snapshot of another version", extra={"writer": writer, "sequence": sequence})
                continue
            data = await self._read(writer, place, *head)
            if data is not None:
                return sequence, data
            _log.warning("skipped a damaged snapshot", extra={"writer": writer, "sequence": sequence})
        return None

    async def _read(self, writer: str, place: int, headers: dict[str, str], first: bytes) -> bytes | None:
        count = headers.get(_CHUNKS, "")
        if not count.isdecimal() or not 1 <= int(count) <= SNAPSHOT_CHUNKS_MAX:
            return None
        chunks = [first]
        for index in range(1, int(count)):
            message = await self._last(self._subject(writer, place, index))
            if message is None or parse_headers(message.headers).get(_ID) != headers.get(_ID):
                return None
            chunks.append(message.data)
        data = b"".join(chunks)
        return data if _digest(data) == headers.get(_DIGEST) else None

    async def _head(self, writer: str, place: int) -> tuple[dict[str, str], bytes] | None:
        message = await self._last(self._subject(writer, place, 0))
        return None if message is None else (parse_headers(message.headers), message.data)

    async def _last(self, subject: str) -> StoredMessage | None:
        patience = Patience(REQUEST_SECONDS_MAX)
        while True:
            try:
                return await last_message(self._nc, self._bucket, subject, timeout=CALL_SECONDS_MAX)
            except (ApiRefused, Unanswered) as error:
                await patience.pause(error)

    async def _publish(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        patience = Patience(REQUEST_SECONDS_MAX)
        while True:
            try:
                await publish(self._nc, subject, data, headers=headers, timeout=CALL_SECONDS_MAX)
                return
            except LogUnavailable:
                raise
            except EventLogError as error:
                await patience.pause(error)

    def _subject(self, writer: str, place: int, index: int) -> str:
        return f"{self._bucket}.{writer}.{place}.{index}"


class MemorySnapshots:
    """The twin of `JetStreamSnapshots`; `damage` makes the newest one unreadable."""

    def __init__(self) -> None:
        self._kept: dict[str, list[tuple[int, int, bytes, str]]] = {}

    async def save(self, writer: str, version: int, sequence: int, data: bytes) -> None:
        """Keep a snapshot: see `SnapshotStore`."""
        kept = [*self._kept.get(writer, []), (sequence, version, data, _digest(data))]
        self._kept[writer] = sorted(kept, key=lambda snapshot: snapshot[0])[-PLACES:]

    async def load(self, writer: str, version: int, *, below: int | None = None) -> tuple[int, bytes] | None:
        """The newest snapshot that can be read: see `SnapshotStore`."""
        for sequence, of_version, data, digest in reversed(self._kept.get(writer, [])):
            is_before = below is None or sequence < below
            if is_before and of_version == version and _digest(data) == digest:
                return sequence, data
        return None

    def damage(self, writer: str) -> None:
        """Make the newest snapshot of a writer unreadable."""
        sequence, version, data, _ = self._kept[writer][-1]
        self._kept[writer][-1] = (sequence, version, data, "damaged")


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=32).hexdigest()


def _sequence_of(head: tuple[dict[str, str], bytes] | None) -> int:
    text = head[0].get(_SEQUENCE, "") if head else ""
    return int(text) if text.isdecimal() else -1
