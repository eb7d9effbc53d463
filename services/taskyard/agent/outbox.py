"""Reports on their way to JetStream: in order, in batches, on disk until they are acknowledged.

One batch is in flight at a time. Reports that come meanwhile gather; the commit of the journal that makes them durable
also fixes their batches, so that a batch sent again, even after a restart, is the same bytes under the same message id.
"""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Protocol, cast

import msgspec

from taskyard.agent.aside import standing_aside
from taskyard.agent.errors import NotStoredError
from taskyard.agent.journal import Batch
from taskyard.agent.logs import fields
from taskyard.contracts.agent_protocol import (
    REPORT_BATCH_MAX,
    REPORT_BYTES_MAX,
    REPORT_RETRY_SECONDS_MAX,
    REPORT_STORE_SECONDS_MAX,
    AnyReport,
    Progressed,
    ReportBatch,
)
from taskyard.contracts.subjects import report_subject

OUTBOX_REPORTS_MAX = 20_000
"""So many unsent reports make the agent decline new assignments; progress is dropped from then on."""
RETRY_SECONDS_FIRST = 0.2
ID_BYTES = 16
"""So many random bytes stand in each batch, whose digest is the id of its message: who could guess an id could have the
message dropped as a copy of his own, since a stream's ids are those of all who write to it."""

_encode = msgspec.json.Encoder().encode


class _Counted(msgspec.Struct):
    """A batch whose reports are not looked into."""

    reports: list[msgspec.Raw]


_decode_counted = msgspec.json.Decoder(_Counted).decode
_log = logging.getLogger(__name__)


class BatchStore(Protocol):
    """Where batches are kept until they are sent."""

    def announce(self) -> None:
        """Reports are there that the next commit must seal."""
        ...

    def write_batches(self, batches: Sequence[Batch]) -> None:
        """Keep batches, as part of the next commit."""
        ...

    def delete_batch(self, incarnation: str, number: int) -> None:
        """Forget a batch."""
        ...

    async def sync(self) -> None:
        """Wait until everything written is durable."""
        ...


class Sender(Protocol):
    """How a message is stored in JetStream."""

    async def store(self, subject: str, payload: bytes, *, headers: dict[str, str], timeout_seconds: float) -> None:
        """Store it, or raise `NotStoredError`."""
        ...

    async def connected(self, *, timeout_seconds: float) -> None:
        """Wait for a connection, at most so long."""
        ...


class Outbox:
    """All reports of one agent. `kept` are the batches that an earlier run could not send."""

    def __init__(
        self, *, agent: str, incarnation: str, store: BatchStore, sender: Sender, kept: Sequence[Batch]
    ) -> None:
        self._agent = agent
        self._incarnation = incarnation
        self._store = store
        self._sender = sender
        self._sealed: deque[tuple[Batch, int]] = deque((batch, _count(batch)) for batch in kept)
        self._open: list[bytes] = []
        self._number = 0
        self._waiting = sum(count for _, count in self._sealed)
        self._added = asyncio.Event()
        self._empty = asyncio.Event()
        self._note()

    @property
    def full(self) -> bool:
        """Whether too many reports wait for JetStream."""
        return self._waiting >= OUTBOX_REPORTS_MAX

    def add(self, reports: Iterable[AnyReport]) -> None:
        """Send these reports, in this order. They are kept once the store is synced."""
        for report in reports:
            if isinstance(report, Progressed) and self.full:
                continue
            with standing_aside("a report", task=report.task, report=type(report).__name__):
                self._open.append(_encode(report))
                self._waiting += 1
                self._store.announce()
        self._note()

    def seal(self) -> None:
        """Put what has gathered into batches, as part of the commit that is about to happen."""
        batches = [
            (
                (self._incarnation, self._next_number(), _encode_batch(self._incarnation, self._number, chunk)),
                len(chunk),
            )
            for chunk in _chunks(self._open)
        ]
        self._open = []
        self._sealed.extend(batches)
        self._store.write_batches([batch for batch, _ in batches])

    async def run(self) -> None:
        """Send for ever."""
        while True:
            await self._added.wait()
            await self._store.sync()
            while self._sealed:
                batch, count = self._sealed[0]
                await self._send(batch)
                self._sealed.popleft()
                self._waiting -= count
                self._store.delete_batch(batch[0], batch[1])
                await self._store.sync()  # returns at once unless reports have gathered meanwhile
            self._note()

    async def flushed(self, *, timeout_seconds: float) -> bool:
        """Wait until nothing is unsent; False if that took too long."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def _send(self, batch: Batch) -> None:
        _, number, payload = batch
        headers = {"Nats-Msg-Id": blake2b(payload, digest_size=ID_BYTES).hexdigest()}
        delay_seconds = RETRY_SECONDS_FIRST
        while True:
            await self._sender.connected(timeout_seconds=REPORT_RETRY_SECONDS_MAX)
            try:
                await self._sender.store(
                    report_subject(self._agent), payload, headers=headers, timeout_seconds=REPORT_STORE_SECONDS_MAX
                )
                return
            except NotStoredError as error:
                _log.warning("a batch of reports was not stored", extra=fields(number=number, error=str(error)))
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(delay_seconds * 2, REPORT_RETRY_SECONDS_MAX)

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _note(self) -> None:
        for event, holds in ((self._added, self._waiting > 0), (self._empty, self._waiting == 0)):
            if holds:
                event.set()
            else:
                event.clear()


def _chunks(reports: list[bytes]) -> list[list[bytes]]:
    """Cut reports into batches of bounded number and size; one that is too large alone is a batch of its own."""
    chunks: list[list[bytes]] = []
    size = 0
    for report in reports:
        if not chunks or len(chunks[-1]) == REPORT_BATCH_MAX or size + len(report) > REPORT_BYTES_MAX:
            chunks.append([])
            size = 0
        chunks[-1].append(report)
        size += len(report)
    return chunks


def _count(batch: Batch) -> int:
    """How many reports a kept batch holds; one that cannot be read is sent as it is."""
    with standing_aside("what a kept batch holds", number=batch[1]):
        return len(_decode_counted(batch[2]).reports)
    return 1


def _encode_batch(incarnation: str, number: int, reports: list[bytes]) -> bytes:
    encoded = cast("tuple[AnyReport, ...]", tuple(msgspec.Raw(report) for report in reports))
    nonce = secrets.token_hex(ID_BYTES)
    return _encode(ReportBatch(incarnation=incarnation, number=number, nonce=nonce, reports=encoded))
