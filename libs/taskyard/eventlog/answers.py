"""Requests that outlast an election or a restart of the servers: asked again until they are answered.

Three servers that lose the leader of a stream, or their own, for some seconds give no answer, or answer that they cannot
now. Neither says anything about what was asked for.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from nats.aio.client import Client

from taskyard.eventlog.append import Patience
from taskyard.eventlog.errors import ApiRefused, StreamMissing, Unanswered
from taskyard.eventlog.jetstream_api import STREAM_NOT_FOUND, StreamInfo, StreamState, api_request, stream_info

ANSWER_SECONDS_MAX = 30.0
"""How long a question is asked again: an election leaves 4 to 9 s without an answer."""

_UNAVAILABLE = 503
"""The status of what a server cannot do now: no leader is elected yet, it has not joined the cluster, no space."""

T = TypeVar("T")


async def until_answered(
    ask: Callable[[], Awaitable[T]],
    seconds_max: float = ANSWER_SECONDS_MAX,
    *,
    passing: Collection[int] = (),
) -> T:
    """What `ask` gives: one try of a request that may be made twice. `passing` are errors that may be gone a little later.

    Raises:
        ApiRefused: JetStream refuses it, and will do so again.
        LogUnavailable: it was not answered within `seconds_max`.
    """
    patience = Patience(seconds_max)
    while True:
        try:
            return await ask()
        except Unanswered as error:
            await patience.pause(error)
        except ApiRefused as refused:
            if refused.code != _UNAVAILABLE and refused.error_code not in passing:
                raise
            await patience.pause(refused)


async def find_stream(nc: Client, stream: str, seconds_max: float = ANSWER_SECONDS_MAX) -> StreamInfo | None:
    """What the leader of a stream says about it; None where there is no such stream. Raises as `until_answered`."""
    return await until_answered(lambda: try_find_stream(nc, stream), seconds_max)


async def try_find_stream(nc: Client, stream: str) -> StreamInfo | None:
    """`find_stream`, asked once. Raises as `jetstream_api.request`."""
    try:
        return await stream_info(nc, stream)
    except ApiRefused as refused:
        if refused.error_code == STREAM_NOT_FOUND:
            return None
        raise


async def delete_stream(nc: Client, stream: str, seconds_max: float = ANSWER_SECONDS_MAX) -> None:
    """Delete a stream, if it is there. Raises as `until_answered`."""
    try:
        await until_answered(lambda: api_request(nc, f"STREAM.DELETE.{stream}"), seconds_max)
    except ApiRefused as refused:
        if refused.error_code != STREAM_NOT_FOUND:  # as it is also where an earlier try was heard
            raise


async def state_of(nc: Client, stream: str, seconds_max: float = ANSWER_SECONDS_MAX) -> StreamState:
    """Where a stream begins and ends.

    Raises:
        StreamMissing: there is no such stream.
        ApiRefused, LogUnavailable: see `until_answered`.
    """
    found = await find_stream(nc, stream, seconds_max)
    if found is None:
        raise StreamMissing(stream)
    return found.state
