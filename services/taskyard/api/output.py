"""The output of a task: its stored chunks, read to the end or followed until the task has ended.

An answer ends where the output does. Where it cannot go on before that, it is broken off (`BrokenOff`): the reader learns that
this was not all, and may go on from where it is.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import NamedTuple

from msgspec import Struct
from nats.aio.client import Client
from nats.errors import Error as NatsError

from taskyard.api.errors import ReadModelUnavailable, Refusal
from taskyard.api.live import BrokenOff
from taskyard.contracts.agent_protocol import HEADER_ATTEMPT, HEADER_OFFSET, HEADER_STREAM
from taskyard.contracts.output_marks import missing_mark
from taskyard.contracts.subjects import OUTPUT, output_subject
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.follower import StreamFollower
from taskyard.eventlog.jetstream_api import last_message
from taskyard.eventlog.log import StreamMessage

END_CHECK_SECONDS = 0.25
"""How often a follower asks whether the task has ended, and how long chunks may come in after its end."""
READ_SECONDS_MAX = 10.0
"""How long reading what is stored may go on without a chunk."""

_log = logging.getLogger(__name__)


WorkersOf = Callable[[str], Awaitable[Mapping[int, str]]]
"""Which worker had each attempt of a task."""


class OutputRequest(Struct, frozen=True, kw_only=True):
    """What of a task's output is wanted. `attempt` is the first one shown, and the only one unless `later` too are.

    `stream` is `stdout`, `stderr`, or `None` for both as they came; `skip_bytes` are left out at the beginning.
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

    async def head(self, task: str) -> int:
        """The sequence of the task's last chunk, 0 for none. Raises `EventLogError`."""
        last = await last_message(self._fleet, OUTPUT, output_subject("*", task))
        return 0 if last is None else last.sequence

    async def read(self, wanted: OutputRequest, head: int) -> AsyncGenerator[bytes, None]:
        """What is stored up to the sequence `head`."""
        if head == 0:
            return
        sequence = 0
        with _breaking_off(wanted):
            pieces = _Pieces(wanted, await self._workers_of(wanted.task))
            async with self._following(wanted.task) as follower:
                while sequence < head:
                    # The last chunks may have expired meanwhile: then this takes too long.
                    async with asyncio.timeout(READ_SECONDS_MAX):
                        batch = await follower.next_batch()
                    sequence = batch[-1].sequence
                    yield pieces.of(message for message in batch if message.sequence <= head)

    async def follow(
        self, wanted: OutputRequest, has_ended: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[bytes, None]:
        """What is stored and what comes, until the task has ended and everything has been sent."""
        sequence = 0
        ended_before = False
        with _breaking_off(wanted):
            pieces = _Pieces(wanted, await self._workers_of(wanted.task))
            async with self._following(wanted.task) as follower:
                while not self._closing.is_set():
                    batch = await self._next_batch(follower)
                    if not batch:
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
        raise BrokenOff("the service stops")

    async def _next_batch(self, follower: StreamFollower) -> list[StreamMessage]:
        """What comes next; nothing where it is time to ask whether the task has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._end_check_seconds):
                return await follower.next_batch()
        return []

    @asynccontextmanager
    async def _following(self, task: str) -> AsyncGenerator[StreamFollower, None]:
        subject = output_subject("*", task)
        async with StreamFollower(self._fleet, OUTPUT, after=0, filter_subject=subject) as follower:
            yield follower


@contextmanager
def _breaking_off(wanted: OutputRequest) -> Generator[None, None, None]:
    """Whatever keeps the rest of the output from the reader breaks the answer off."""
    try:
        yield
    except (TimeoutError, EventLogError, NatsError, ReadModelUnavailable, Refusal) as error:
        # A refusal: the task is gone, as after a rebuild from another log.
        cause = str(error) or type(error).__name__
        _log.warning("output was broken off", extra={"task": wanted.task, "cause": cause})
        raise BrokenOff(cause) from error


class _Pieces:
    """Puts chunks together: of the wanted attempts and streams, each byte once, from the wanted byte on.

    What the stream lacks between two chunks, or before the first, is marked. The wanted byte is counted in the output as it
    was written, what is missing included and these marks not: so a byte has the same place whatever expires meanwhile.

    Only the worker that had the attempt is believed: the subject says which agent a chunk is from, and an agent may
    write any task behind its own name.
    """

    def __init__(self, wanted: OutputRequest, workers: Mapping[int, str]) -> None:
        self.workers = workers
        self._wanted = wanted
        self._place = 0
        self._reached: dict[tuple[int, str], int] = {}

    def has_news(self, messages: Iterable[StreamMessage]) -> bool:
        """Whether there are chunks of an attempt whose worker is not known yet."""
        newest = max(self.workers, default=0)
        chunks = (_chunk(message) for message in messages)
        return any(chunk is not None and chunk.attempt > newest for chunk in chunks)

    def of(self, messages: Iterable[StreamMessage]) -> bytes:
        """The text of some chunks."""
        return b"".join(self._new_bytes(message) for message in messages)

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
        missing = self._pass(max(chunk.offset - reached, 0))
        data = message.data[max(reached - chunk.offset, 0) :]
        wanted_of_it = self._pass(len(data))
        return (missing_mark(missing) if missing else b"") + data[len(data) - wanted_of_it :]

    def _pass(self, count: int) -> int:
        """Go on by so many bytes; how many of them are wanted."""
        self._place += count
        return min(count, max(self._place - self._wanted.skip_bytes, 0))


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
