"""Requests to JetStream over a plain NATS connection: JSON in, checked answers out, every call with a timeout."""

import asyncio
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from nats.aio.client import Client
from nats.errors import ConnectionClosedError, Error, MaxPayloadError

from taskyard.contracts.values import SECOND, Instant, from_datetime
from taskyard.eventlog.errors import ApiRefused, CommitTooLarge, LogUnavailable, Unanswered

API_SECONDS_MAX = 2.0
"""How long one request may take."""

EXPECTED_LAST_SUBJECT_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_LAST_SEQUENCE = "Nats-Expected-Last-Sequence"

WRONG_LAST_SEQUENCE = 10071
WRONG_LAST_SEQUENCE_IN_FLIGHT = 10164
"""The same refusal by a replicated stream while another write is in flight."""
NO_MESSAGE_FOUND = 10037
STREAM_NOT_FOUND = 10059
MESSAGE_TOO_LARGE = 10054
NO_ROOM_ON_SERVER = 10047
"""There is less room on the server, or in the account, than a stream asks for."""
NOT_STORED = 10077
"""A stream could not store a message, and the description says why: `STREAM_IS_FULL`, or its disk is."""
STREAM_IS_FULL = "maximum bytes exceeded"
STORE_NOT_CREATED = 10049
"""A stream cannot be made now: one of its name was just deleted, and its files are still going."""

NANOSECONDS = 1_000_000_000

T = TypeVar("T")


class _Refusal(Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Envelope(Struct):
    error: _Refusal | None = None


class PublishAck(Struct):
    """The stream's answer to a stored message."""

    stream: str
    seq: int


class StreamState(Struct):
    """The first and the last sequence of a stream, and how much it holds."""

    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0


class StreamInfo(Struct):
    """A stream as the server describes it; the configuration is left as it came, so that nothing unknown is lost."""

    config: dict[str, Any]
    state: StreamState
    created: str = ""


class _StoredMessage(Struct):
    subject: str
    seq: int
    time: str
    data: bytes = b""
    hdrs: bytes = b""


class _MessageAnswer(Struct):
    message: _StoredMessage


class StoredMessage(Struct, frozen=True):
    """A message read by itself from the leader of a stream; `headers` is the raw block."""

    subject: str
    sequence: int
    at: Instant
    data: bytes
    headers: bytes


async def request(
    nc: Client, subject: str, payload: bytes, *, headers: dict[str, str] | None = None, timeout: float = API_SECONDS_MAX
) -> bytes:
    """Send one request and return its answer.

    Raises:
        Unanswered: no answer in time, nobody there, or the connection is down; the effect is unknown.
        ApiRefused: JetStream answered with an error.
        LogUnavailable: the connection was closed for good.
        CommitTooLarge: the payload is larger than the server takes.
    """
    task = asyncio.current_task()
    cancels = task.cancelling() if task else 0
    try:
        answer = await nc.request(subject, payload, timeout=timeout, headers=headers)
    except ConnectionClosedError as error:
        raise LogUnavailable("the connection is closed") from error
    except MaxPayloadError as error:
        raise CommitTooLarge(f"{subject}: {len(payload)} bytes") from error
    except (Error, TimeoutError, OSError) as error:
        raise Unanswered(f"{subject}: {str(error) or type(error).__name__}") from error
    if task and task.cancelling() > cancels:
        # The client waits by `wait_for`, which on Python 3.11 loses a cancellation that meets the answer.
        raise asyncio.CancelledError
    refusal = _decode(answer.data, _Envelope).error
    if refusal is not None:
        raise ApiRefused(
            subject=subject, code=refusal.code, error_code=refusal.err_code, description=refusal.description
        )
    return answer.data


async def api_request(nc: Client, call: str, body: object = None, *, timeout: float = API_SECONDS_MAX) -> bytes:
    """Call `$JS.API.<call>` with a JSON body. Raises as `request`."""
    payload = b"" if body is None else msgspec.json.encode(body)
    return await request(nc, f"$JS.API.{call}", payload, timeout=timeout)


async def publish(
    nc: Client, subject: str, data: bytes, *, headers: dict[str, str] | None = None, timeout: float = API_SECONDS_MAX
) -> PublishAck:
    """Store one message and return where it stands. Raises as `request`."""
    return _decode(await request(nc, subject, data, headers=headers, timeout=timeout), PublishAck)


async def stream_info(nc: Client, stream: str, *, timeout: float = API_SECONDS_MAX) -> StreamInfo:
    """What the leader of the stream says about it. Raises as `request`."""
    return _decode(await api_request(nc, f"STREAM.INFO.{stream}", timeout=timeout), StreamInfo)


async def last_message(
    nc: Client, stream: str, subject: str, *, timeout: float = API_SECONDS_MAX
) -> StoredMessage | None:
    """The last message on a subject, read from the leader: a direct get may be answered by a replica that lags.

    Raises as `request`.
    """
    return await _message(nc, stream, {"last_by_subj": subject}, timeout)


async def message_at(
    nc: Client, stream: str, sequence: int, *, timeout: float = API_SECONDS_MAX
) -> StoredMessage | None:
    """The message at a sequence, read from the leader. Raises as `request`."""
    return await _message(nc, stream, {"seq": sequence}, timeout)


async def _message(nc: Client, stream: str, wanted: object, timeout: float) -> StoredMessage | None:
    try:
        answer = await api_request(nc, f"STREAM.MSG.GET.{stream}", wanted, timeout=timeout)
    except ApiRefused as refused:
        if refused.error_code == NO_MESSAGE_FOUND:
            return None
        raise
    found = _decode(answer, _MessageAnswer).message
    return StoredMessage(found.subject, found.seq, parse_time(found.time), found.data, found.hdrs)


def parse_time(text: str) -> Instant:
    """The instant of an RFC 3339 text with nanoseconds, cut (not rounded) as the timestamps of deliveries are."""
    whole, _, rest = text.partition(".")
    digits = rest[: next((i for i, c in enumerate(rest) if not c.isdigit()), len(rest))]
    zone = rest[len(digits) :] if rest else ""
    at = from_datetime(datetime.fromisoformat(whole + zone))
    return Instant(at // SECOND * SECOND + int((digits + "000000")[:6]))


def parse_headers(block: bytes) -> dict[str, str]:
    """The headers of a raw block."""
    lines = block.decode("utf-8", "replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def nanoseconds(duration_seconds: float) -> int:
    """A duration in the unit of JetStream's configuration."""
    return round(duration_seconds * NANOSECONDS)


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        # Something else than JetStream answered, such as another responder on the subject: the effect is unknown.
        raise Unanswered(f"an answer was not understood: {error}") from error
