"""The connection to NATS: made again for ever, with the few things that an agent does over it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import msgspec
import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from taskyard.agent.aside import standing_aside
from taskyard.agent.errors import NotStoredError
from taskyard.agent.logs import fields

CONNECT_TIMEOUT_SECONDS = 2
RECONNECT_SECONDS = 0.5
PING_SECONDS = 5
PINGS_OUTSTANDING_MAX = 2
CLOSE_TIMEOUT_SECONDS = 2.0
CONTACT_TIMEOUT_SECONDS = 2
ANSWER_SECONDS_MAX = PING_SECONDS * (PINGS_OUTSTANDING_MAX + 2)
"""Longer than a silent connection lasts. An answer that comes when nobody waits for it any more ends nats-py's read loop:
its client then hears nothing until it finds the connection stale."""

_log = logging.getLogger(__name__)

Handler = Callable[[Msg], Awaitable[None]]


class _Refusal(msgspec.Struct):
    description: str = ""


class _Ack(msgspec.Struct):
    """JetStream's answer to a publish."""

    error: _Refusal | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


class Link:
    """One connection at a time. `handlers` maps subjects to what handles their messages, one after another."""

    def __init__(
        self, *, urls: Sequence[str], name: str, password: str, handlers: dict[str, Handler], on_up: Callable[[], None]
    ) -> None:
        self._urls = list(urls)
        self._name = name
        self._password = password
        self._handlers = handlers
        self._on_up = on_up
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._closed = asyncio.Event()
        self._last_error = ""
        self._asking: asyncio.Task[bool] | None = None

    @property
    def is_up(self) -> bool:
        """Whether there is a connection now, as far as one can know."""
        return self._client is not None and self._client.is_connected

    async def connected(self, *, timeout_seconds: float) -> None:
        """Wait for a connection, at most so long."""
        if self._up.is_set():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._up.wait()

    async def run(self) -> None:
        """Keep connected for ever. A client that gave up (credentials changed, say) is replaced by a new one."""
        try:
            while True:
                await self._connect_until_closed()
                self._up.clear()
                await asyncio.sleep(RECONNECT_SECONDS)
        finally:
            await self.close()

    async def store(self, subject: str, payload: bytes, *, headers: dict[str, str], timeout_seconds: float) -> None:
        """Have JetStream store a message.

        Raises:
            NotStoredError: there is no connection, no answer in time, or the answer is a refusal.
        """
        client = self._client
        if client is None or not client.is_connected:
            raise NotStoredError("there is no connection")
        try:
            answer = await client.request(subject, payload, timeout=timeout_seconds, headers=headers)
            error = _decode_ack(answer.data).error
        except Exception as failure:  # whatever it was: that it is stored is not known
            raise NotStoredError(str(failure) or type(failure).__name__) from failure
        if error is not None:
            raise NotStoredError(error.description)

    async def publish(self, subject: str, payload: bytes) -> None:
        """Send a message that nobody keeps, if there is a connection."""
        client = self._client
        if client is not None and client.is_connected:
            with suppress(nats.errors.Error, OSError):
                await client.publish(subject, payload)

    async def has_contact(self) -> bool:
        """Whether the server answers now."""
        client = self._client
        if client is None or not client.is_connected:
            return False
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(_is_answered(client))
        asking = self._asking
        # Not given up after this time but asked for again: see `ANSWER_SECONDS_MAX`.
        done, _ = await asyncio.wait([asking], timeout=CONTACT_TIMEOUT_SECONDS)
        return bool(done) and not asking.cancelled() and asking.result()

    async def close(self) -> None:
        """End the connection."""
        self._ask_no_more()
        if self._client is not None:
            with suppress(nats.errors.Error, OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                    await self._client.close()

    def _ask_no_more(self) -> None:
        """The connection that was asked over is gone, and its answer will not come."""
        if self._asking is not None:
            self._asking.cancel()

    async def _connect_until_closed(self) -> None:
        try:
            await self._connect()
            await self._closed.wait()
        except (OSError, nats.errors.Error, TimeoutError) as error:
            _log.warning("could not connect to NATS", extra=fields(error=str(error) or type(error).__name__))
        except Exception:  # noqa: BLE001 (as above, and nobody has thought of it)
            _log.exception("could not connect to NATS")

    async def _connect(self) -> None:
        await self.close()
        self._closed.clear()
        self._client = client = await nats.connect(
            servers=self._urls,
            user=self._name,
            password=self._password,
            name=f"taskyard-agent-{self._name}",
            inbox_prefix=f"_INBOX_{self._name}",
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            reconnect_time_wait=RECONNECT_SECONDS,
            max_reconnect_attempts=-1,
            ping_interval=PING_SECONDS,
            max_outstanding_pings=PINGS_OUTSTANDING_MAX,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_connected,
            closed_cb=self._on_closed,
        )
        for subject, handler in self._handlers.items():
            await client.subscribe(subject, cb=_each_by_itself(subject, handler))
        await client.flush(CONTACT_TIMEOUT_SECONDS)
        await self._on_connected()

    async def _on_connected(self) -> None:
        _log.info("connected to NATS", extra=fields(agent=self._name))
        self._last_error = ""
        self._up.set()
        with standing_aside("what is to be done with a connection"):
            self._on_up()

    async def _on_disconnected(self) -> None:
        _log.warning("the connection to NATS was lost", extra=fields(agent=self._name))
        self._up.clear()
        self._ask_no_more()

    async def _on_closed(self) -> None:
        self._up.clear()
        self._closed.set()

    async def _on_error(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if text != self._last_error:  # a server that is away tells the same twice a second
            _log.warning("NATS told an error", extra=fields(error=text))
        self._last_error = text


def _each_by_itself(subject: str, handler: Handler) -> Handler:
    async def handle(message: Msg) -> None:
        with standing_aside("a request", subject=subject):
            await handler(message)

    return handle


async def _is_answered(client: Client) -> bool:
    try:
        await client.flush(ANSWER_SECONDS_MAX)
    except (nats.errors.Error, OSError):
        return False
    return True
