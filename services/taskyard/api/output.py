"""The output of a task: its stored chunks, read to the end or followed until the task has ended."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from msgspec import Struct
from nats.aio.client import Client

from taskyard.api.errors import unavailable
from taskyard.contracts.agent_protocol import HEADER_ATTEMPT, HEADER_OFFSET, HEADER_STREAM
from taskyard.contracts.subjects import OUTPUT, output_subject
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.follower import StreamFollower
from taskyard.eventlog.jetstream_api import last_message
from taskyard.eventlog.log import StreamMessage

END_CHECK_SECONDS = 0.25
"""How often a follower asks whether the task has ended, and how long chunks may come in after its end."""
READERS_MAX = 200
"""How many may read or follow output at a time; each has a consumer and a bounded buffer of its own."""
READ_SECONDS_MAX = 10.0
"""How long reading what is stored may go on without a chunk."""

_log = logging.getLogger(__name__)


WorkersOf = Callable[[str], Awaitable[Mapping[int, str]]]
"""Which worker had each attempt of a task."""


class OutputRequest(Struct, frozen=True, kw_only=True):
    """What of a task's output is wanted. `attempt` is the first one shown, and the only one unless `later` too are.

    `stream` is `stdout`, `stderr`, or `None` for both as they came; `skip_bytes` are left out of what is answered.
    """

    task: str
    attempt: int
    later: bool = False
    stream: str | None = None
    skip_bytes: int = 0


class TaskOutput:
    """Reads the stream of output in the agents' account."""

    def __init__(
        self,
        fleet: Client,
        workers_of: WorkersOf,
        closing: asyncio.Event,
        *,
        end_check_seconds: float = END_CHECK_SECONDS,
    ) -> None:
        self._fleet = fleet
        self._workers_of = workers_of
        self._closing = closing
        self._end_check_seconds = end_check_seconds
        self._readers = 0

    def require_room(self) -> None:
        """Check that another one may read. Raises `Refusal`: too many read already."""
        if self._readers >= READERS_MAX:
            raise unavailable(f"{READERS_MAX} readers of output are there already")

    async def head(self, task: str) -> int:
        """The sequence of the task's last chunk, 0 for none. Raises `EventLogError`."""
        last = await last_message(self._fleet, OUTPUT, output_subject("*", task))
        return 0 if last is None else last.sequence

    async def read(self, wanted: OutputRequest, head: int) -> AsyncGenerator[bytes, None]:
        """What is stored up to the sequence `head`."""
        if head == 0:
            return
        pieces = _Pieces(wanted, await self._workers_of(wanted.task))
        async with self._following(wanted.task) as follower:
            sequence = 0
            while sequence < head:
                try:
                    async with asyncio.timeout(READ_SECONDS_MAX):
                        batch = await follower.next_batch()
                except (TimeoutError, EventLogError):
                    # The last chunks may have expired meanwhile; the status line has been sent long ago.
                    _log.warning("output ended early", extra={"task": wanted.task})
                    return
                sequence = batch[-1].sequence
                yield pieces.of(message for message in batch if message.sequence <= head)

    async def follow(
        self, wanted: OutputRequest, has_ended: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[bytes, None]:
        """What is stored and what comes, until the task has ended and everything has been sent."""
        pieces = _Pieces(wanted, await self._workers_of(wanted.task))
        sequence = 0
        ended_before = False
        async with self._following(wanted.task) as follower:
            while not self._closing.is_set():
                try:
                    async with asyncio.timeout(self._end_check_seconds):
                        batch = await follower.next_batch()
                except TimeoutError:
                    # Ended at the check before too: what the agent sent before its last report has come in since.
                    if ended_before and sequence >= await self.head(wanted.task):
                        return
                    ended_before = await has_ended()
                    continue
                sequence = batch[-1].sequence
                if pieces.has_news(batch):
                    pieces.workers = await self._workers_of(wanted.task)
                if text := pieces.of(batch):
                    yield text

    @asynccontextmanager
    async def _following(self, task: str) -> AsyncGenerator[StreamFollower, None]:
        self._readers += 1
        try:
            subject = output_subject("*", task)
            async with StreamFollower(self._fleet, OUTPUT, after=0, filter_subject=subject) as follower:
                yield follower
        finally:
            self._readers -= 1


class _Pieces:
    """Puts chunks together: of the wanted attempts and streams, each byte once, from the wanted byte on.

    Only the worker that had the attempt is believed: the subject says which agent a chunk is from, and an agent may
    write any task behind its own name.
    """

    def __init__(self, wanted: OutputRequest, workers: Mapping[int, str]) -> None:
        self.workers = workers
        self._wanted = wanted
        self._skip_bytes = wanted.skip_bytes
        self._reached: dict[tuple[int, str], int] = {}

    def has_news(self, messages: Iterable[StreamMessage]) -> bool:
        """Whether there are chunks of an attempt whose worker is not known yet."""
        newest = max(self.workers, default=0)
        chunks = (_chunk(message) for message in messages)
        return any(chunk is not None and chunk.attempt > newest for chunk in chunks)

    def of(self, messages: Iterable[StreamMessage]) -> bytes:
        """The text of some chunks."""
        text = b"".join(self._new_bytes(message) for message in messages)
        skipped = min(self._skip_bytes, len(text))
        self._skip_bytes -= skipped
        return text[skipped:]

    def _new_bytes(self, message: StreamMessage) -> bytes:
        chunk = _chunk(message)
        wanted = self._wanted
        if chunk is None or self.workers.get(chunk.attempt) != chunk.agent:
            return b""
        if chunk.attempt < wanted.attempt or (chunk.attempt > wanted.attempt and not wanted.later):
            return b""
        if wanted.stream is not None and chunk.stream != wanted.stream:
            return b""
        # An agent that got no acknowledgement sends again, perhaps with more: what was shown is not shown twice.
        reached = self._reached.get((chunk.attempt, chunk.stream), 0)
        end = chunk.offset + len(message.data)
        if end <= reached:
            return b""
        self._reached[chunk.attempt, chunk.stream] = end
        return message.data[max(reached - chunk.offset, 0) :]


class _Chunk(NamedTuple):
    agent: str
    attempt: int
    stream: str
    offset: int


def _chunk(message: StreamMessage) -> _Chunk | None:
    """What the headers say of a chunk; `None` for what is none: an agent may publish here whatever it likes."""
    headers = message.headers or {}
    try:
        attempt, offset = int(headers[HEADER_ATTEMPT]), int(headers[HEADER_OFFSET])
        return _Chunk(message.subject.split(".")[2], attempt, headers[HEADER_STREAM], offset)
    except (KeyError, ValueError, IndexError):
        return None
