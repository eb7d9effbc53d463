"""Follows any stream by an ordered push consumer over a plain NATS connection, without gaps and without duplicates.

The consumer is ephemeral and asks for no acks. Each delivery bears its stream sequence and its consumer sequence, so a
loss on the way shows at once; silence shows by missing heartbeats (a consumer that was deleted, or lost in a restart
of the server, says nothing); a reconnect shows in the connection's statistics. In each case the consumer is made again
after the last message that was taken in. The server's flow control is answered only while the reader keeps up, and where
the server has sent too much all the same, the consumer is given up until the reader has caught up: so the backlog stays
bounded, however slow a reader is.
"""

import asyncio
import logging
from contextlib import suppress
from types import TracebackType
from typing import Self
from uuid import uuid4

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error

from taskyard.contracts.values import Instant
from taskyard.eventlog.append import Patience
from taskyard.eventlog.backlog import Backlog
from taskyard.eventlog.errors import (
    ApiRefused,
    EventLogError,
    LogGap,
    LogUnavailable,
    StreamMissing,
    StreamReplaced,
    Unanswered,
)
from taskyard.eventlog.jetstream_api import STREAM_NOT_FOUND, api_request, nanoseconds, stream_info
from taskyard.eventlog.log import START, StreamMessage, original_time

HEARTBEAT_SECONDS = 0.5
SILENCE_SECONDS_MAX = 1.5
"""Nothing heard for this long, three heartbeats: the consumer is made again."""
WATCH_SECONDS = 0.25
INACTIVE_SECONDS = 5.0
"""After this long without a reader the server drops the consumer by itself."""
UNAVAILABLE_SECONDS_MAX = 600.0
"""How long the stream may be out of reach before following fails: restarts and elections must pass unnoticed."""
CLOSE_RETRY_SECONDS = 1.0
CLOSE_SECONDS_MAX = 5.0
"""How long it may take to give back what the server holds for a follower: then the server drops it by itself."""
BEHIND_SECONDS_MAX = 10.0
"""How long a stream may end before what was read: a leader just elected may still be applying what it has."""
MISSING_SECONDS_MAX = 10.0
"""How long a stream may be unknown to the servers: one that is made anew soon is found, and told apart."""

_log = logging.getLogger(__name__)
_closing: set[asyncio.Task[None]] = set()
"""Followers that give back what the server holds for them; asyncio itself does not keep its tasks."""


class StreamFollower:
    """Follows `stream` after the sequence `after`. Open it with `async with`, then iterate or call `next_batch`.

    `contiguous` states that the stream has no holes (a log): then one raises `LogGap`. Without it, expired messages are
    passed over, and a stream that ends before `after` is read again from its start. `filter_subject` narrows what is
    delivered and excludes `contiguous`. `original_times` says that the stream is a log, whose commits may have been
    copied from another one with their times. `created` is when the stream was made, in JetStream's words, where that is
    known: one that was made at another time is another stream.
    """

    def __init__(
        self,
        nc: Client,
        stream: str,
        *,
        after: int,
        floor: Instant = START,
        filter_subject: str = "",
        contiguous: bool = False,
        original_times: bool = False,
        created: str = "",
        unavailable_seconds_max: float = UNAVAILABLE_SECONDS_MAX,
    ) -> None:
        assert not (contiguous and filter_subject), "a filtered stream has holes"
        self._nc = nc
        self._stream = stream
        self._last = after
        self._floor = floor
        self._filter_subject = filter_subject
        self._contiguous = contiguous
        self._original_times = original_times
        self._created = created
        self._unavailable_seconds_max = unavailable_seconds_max
        self._backlog = Backlog()
        self._flow_reply = ""
        self._is_paused = False
        self._error: Exception | None = None
        self._subscription: Subscription | None = None
        self._consumer = ""
        self._consumer_sequence = 0
        self._trouble = asyncio.Event()
        self._heard = 0.0
        self._reconnects = 0
        self._time = asyncio.get_running_loop().time
        self._keeper: asyncio.Task[None] | None = None
        self._giving_back: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._keeper = asyncio.create_task(self._keep(), name=f"follow {self._stream}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[StreamMessage]:
        return await self.next_batch()

    async def next_batch(self) -> list[StreamMessage]:
        """Everything that has arrived, up to a bound; waits until there is something.

        Raises:
            LogGap: a contiguous stream has a hole or lost its end.
            StreamReplaced: it was deleted and made anew.
            StreamMissing: it was deleted.
            LogUnavailable: it was out of reach for longer than the limit.
        """
        backlog = self._backlog
        while not backlog:
            if self._error is not None:
                raise self._error
            backlog.arrived.clear()
            await backlog.arrived.wait()
        batch = backlog.take_batch()
        if (self._flow_reply or self._is_paused) and backlog.is_easy:
            # The keeper goes on: a network await here could lose the batch when the reader is cancelled.
            self._trouble.set()
        return batch

    async def close(self) -> None:
        """Stop following; the consumer on the server is removed if the connection allows.

        Whoever closes may be cancelled, even at each of their awaits, as a request is whose client has hung up. A task of
        its own does the work, so that nothing stays on the server for ever.
        """
        self._fail(LogUnavailable("the follower was closed"))
        if self._giving_back is None:
            self._giving_back = asyncio.create_task(self._give_back(), name=f"stop to follow {self._stream}")
            _closing.add(self._giving_back)
            self._giving_back.add_done_callback(_closing.discard)
        await asyncio.shield(self._giving_back)

    async def _give_back(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await self._stop_keeper()
                await self._drop_consumer()
        except TimeoutError:
            _log.warning("consumer is left to the server", extra={"stream": self._stream, "consumer": self._consumer})

    async def _stop_keeper(self) -> None:
        keeper = self._keeper
        if keeper is not None:
            while not keeper.done():
                # More than once if need be: the client swallows a cancellation that meets it while it flushes.
                keeper.cancel()
                await asyncio.wait({keeper}, timeout=CLOSE_RETRY_SECONDS)
        # The cancelled task holds the frames that it ended in, and so this object: it would keep what nobody reads any more,
        # which may be megabytes, until the garbage collector comes by.
        self._keeper = None
        self._backlog.clear()

    async def _keep(self) -> None:
        try:
            while True:
                await self._make_consumer()
                await self._watch()
                if self._is_paused:
                    await self._until_caught_up()
                else:
                    _log.info(
                        "consumer was lost and is made again", extra={"stream": self._stream, "after": self._last}
                    )
        except Exception as error:  # noqa: BLE001 - whatever it is, the reader must get it instead of silence
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._backlog.arrived.set()

    async def _until_caught_up(self) -> None:
        """Without a consumer, for as long as the reader takes: it may stand still for ever, and then nothing is sent to it."""
        await self._drop_consumer()
        while not self._backlog.is_easy:
            self._trouble.clear()
            await self._trouble.wait()
        self._is_paused = False

    async def _watch(self) -> None:
        """Return when the consumer must be made again."""
        while True:
            due = self._time() + WATCH_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._trouble.wait()
            self._trouble.clear()
            if self._error is not None:
                raise self._error
            if self._consumer_sequence < 0 or self._nc.stats["reconnects"] != self._reconnects or self._nc.is_closed:
                return
            await self._answer_flow_control()
            now = self._time()
            if now - due > WATCH_SECONDS:
                self._heard = now  # This process slept, not the server: what was sent meanwhile is still to be read.
            if now - self._heard > SILENCE_SECONDS_MAX:
                return

    async def _answer_flow_control(self) -> None:
        if self._flow_reply and self._backlog.is_easy:
            reply, self._flow_reply = self._flow_reply, ""
            with suppress(Error):  # A lost answer is asked for again by the next heartbeat.
                await self._nc.publish(reply)

    async def _make_consumer(self) -> None:
        patience = Patience(self._unavailable_seconds_max)
        behind: Patience | None = None
        missing: Patience | None = None
        while True:
            await self._drop_consumer()
            try:
                info = await stream_info(self._nc, self._stream)
                if info.created != (self._created or info.created):
                    raise StreamReplaced(self._stream)
                self._created, missing = info.created, None
                if info.state.last_seq < self._last:
                    behind = behind or Patience(BEHIND_SECONDS_MAX)
                    await self._wait_for_end(info.state.last_seq, behind)
                    continue
                await self._subscribe()
                return
            except (ApiRefused, Unanswered, Error) as error:
                behind = None
                if isinstance(error, ApiRefused) and error.error_code == STREAM_NOT_FOUND:
                    missing = missing or Patience(MISSING_SECONDS_MAX)
                    await self._wait_for_stream(error, missing)
                else:
                    await patience.pause(error)

    async def _wait_for_stream(self, error: ApiRefused, missing: Patience) -> None:
        try:
            await missing.pause(error)
        except LogUnavailable:
            raise StreamMissing(self._stream) from error

    async def _wait_for_end(self, head: int, behind: Patience) -> None:
        gap = LogGap(stream=self._stream, expected=self._last + 1, actual=head + 1)
        try:
            await behind.pause(gap)
        except LogUnavailable:
            if self._contiguous:
                raise gap from None
            _log.warning("stream lost its end and is read again", extra={"stream": self._stream, "end": head})
            self._last = 0

    async def _subscribe(self) -> None:
        inbox = self._nc.new_inbox()
        self._reconnects = self._nc.stats["reconnects"]
        self._consumer = f"taskyard-{uuid4().hex}"
        self._consumer_sequence = 0
        # No limits of the client: it would drop what exceeds them. Flow control bounds what the server sends.
        self._subscription = await self._nc.subscribe(inbox, cb=self._take, pending_msgs_limit=0, pending_bytes_limit=0)
        config: dict[str, object] = {
            "name": self._consumer,
            "deliver_subject": inbox,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._last + 1,
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": True,
            "idle_heartbeat": nanoseconds(HEARTBEAT_SECONDS),
            "inactive_threshold": nanoseconds(INACTIVE_SECONDS),
            "mem_storage": True,
            "num_replicas": 1,
        }
        call = f"CONSUMER.CREATE.{self._stream}.{self._consumer}"
        if self._filter_subject:
            config["filter_subject"] = self._filter_subject
            call += f".{self._filter_subject}"
        await api_request(self._nc, call, {"stream_name": self._stream, "config": config, "action": "create"})
        self._heard = self._time()

    async def _drop_consumer(self) -> None:
        self._flow_reply = ""
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        with suppress(Error):
            await subscription.unsubscribe()
        if self._nc.is_connected:
            with suppress(EventLogError):
                await api_request(self._nc, f"CONSUMER.DELETE.{self._stream}.{self._consumer}", timeout=0.5)

    async def _take(self, message: Msg) -> None:
        """Take in one delivery. The hot path: about ten microseconds at most."""
        self._heard = self._time()
        reply = message.reply
        if not reply.startswith("$JS.ACK."):
            await self._take_control(message)
            return
        fields = reply.split(".")
        # $JS.ACK[.<domain>.<account>].<stream>.<consumer>.<deliveries>.<sequence>.<consumer sequence>.<time>.<pending>
        at_sequence = 5 if len(fields) == 9 else 7
        if int(fields[at_sequence + 1]) != self._consumer_sequence + 1:
            self._lose()
            return
        self._consumer_sequence += 1
        sequence = int(fields[at_sequence])
        if sequence <= self._last:
            return  # A consumer on a replica that lags begins before what was already read.
        if self._contiguous and sequence != self._last + 1:
            self._fail(LogGap(stream=self._stream, expected=self._last + 1, actual=sequence))
            self._lose()
            return
        self._last = sequence
        at = Instant(int(fields[at_sequence + 2]) // 1_000)
        if self._original_times:
            at = original_time(message.headers, at)
        at = max(at, self._floor)
        self._floor = at
        self._backlog.add(
            StreamMessage(sequence=sequence, at=at, subject=message.subject, data=message.data, headers=message.headers)
        )
        if self._backlog.is_full:
            self._is_paused = True
            self._lose()

    def _lose(self) -> None:
        """Mark the consumer as lost; a negative sequence refuses what it still delivers."""
        self._consumer_sequence = -(1 << 62)
        self._trouble.set()

    async def _take_control(self, message: Msg) -> None:
        headers = message.headers or {}
        if headers.get("Status") != "100":
            return
        self._flow_reply = message.reply or headers.get("Nats-Consumer-Stalled", "")
        await self._answer_flow_control()
        delivered = headers.get("Nats-Last-Consumer")
        if delivered is not None and int(delivered) > self._consumer_sequence >= 0:
            self._lose()  # The last deliveries before this heartbeat did not arrive.
