"""What happens now: the log is followed while everything breaks, for whoever waits for a sign of life and for the screen."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import msgspec
from nats.aio.client import Client as NatsClient

from taskyard.chaos.errors import NotHealed
from taskyard.contracts.events import OWNERS, CommandRejected, RefusalsCounted, TaskStarted, WorkerJoined, decode_event
from taskyard.contracts.subjects import log_stream
from taskyard.contracts.values import Incarnation, Instant, make_position
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.follower import StreamFollower
from taskyard.eventlog.log import StreamMessage
from taskyard.judge.commits import Commit
from taskyard.judge.lives import Lives

FOLLOW_AGAIN_SECONDS = 1.0
POLL_SECONDS = 0.05

_decode = msgspec.json.Decoder(Commit).decode


class Monitor:
    """Follows the log for as long as it is asked to. Nothing is judged here: what it sees is read again at the end."""

    def __init__(self, client: NatsClient, partition: str) -> None:
        self.lives = Lives()
        self.ended: Counter[str] = Counter()
        self.head = 0
        self.starts = 0
        self.refusals = 0
        self.joined: set[Incarnation] = set()
        self.leaders: dict[str, str] = {}
        self._client = client
        self._stream = log_stream(partition)
        self._started = asyncio.Condition()

    @property
    def alive(self) -> int:
        """How many tasks have not ended."""
        return len(self.lives.by_id) - self.ended.total()

    async def run(self) -> None:
        """Follow for ever; whoever reads with patience reads on after every fault."""
        while True:
            try:
                async with StreamFollower(self._client, self._stream, after=self.head) as follower:
                    while True:
                        await self._see(await follower.next_batch())
            except EventLogError:
                await asyncio.sleep(FOLLOW_AGAIN_SECONDS)

    async def starts_again(self, seconds_max: float) -> None:
        """Wait until a task starts that had not started when this was called. Raises `NotHealed`."""
        before, begun = self.starts, time.monotonic()
        try:
            async with asyncio.timeout(seconds_max), self._started:
                await self._started.wait_for(lambda: self.starts > before)
        except TimeoutError as error:
            waited = time.monotonic() - begun
            raise NotHealed(f"no task has started for {waited:.0f} s after everything was healed") from error

    async def until(self, condition: Callable[[], bool], seconds_max: float) -> bool:
        """Wait until what was read fulfils a condition; False if it does not in time."""
        deadline = time.monotonic() + seconds_max
        while not condition():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def _see(self, messages: list[StreamMessage]) -> None:
        starts = self.starts
        for message in messages:
            if message.sequence > self.head:
                self.head = message.sequence
                self._fold(_decode(message.data), message)
        if self.starts > starts:
            async with self._started:
                self._started.notify_all()

    def _fold(self, commit: Commit, message: StreamMessage) -> None:
        if commit.writer in OWNERS and not commit.events:
            self.leaders[commit.writer] = commit.instance
        for index, raw in enumerate(commit.events):
            event = decode_event(raw)
            self.starts += isinstance(event, TaskStarted)
            self.refusals += event.count if isinstance(event, RefusalsCounted) else isinstance(event, CommandRejected)
            if isinstance(event, WorkerJoined):
                self.joined.add(event.incarnation)
            for step in self.lives.tell(event, Instant(message.at), make_position(message.sequence, index)):
                if step.counts and step.life.is_over:
                    self.ended[step.life.status] += 1
