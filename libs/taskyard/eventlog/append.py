"""How an append whose outcome is unclear is resolved: one rule, for the real log and for its twin.

A timeout is not a "no", and a refusal by the fence may be the answer to an own earlier try. So after anything but a
clear answer the writer's last message is read: these very bytes mean that the commit is stored; the predecessor means
that it is not, and the same bytes are sent again (a late earlier copy then meets the fence); anything else means that
another instance has taken over.
"""

import asyncio
import random
from typing import Protocol

from taskyard.eventlog.commit import COMMIT_BYTES_MAX
from taskyard.eventlog.errors import CommitTooLarge, FenceMoved, LogUnavailable, Unanswered

APPEND_SECONDS_MAX = 30.0
"""How long one append is tried: longer than the 4 to 9 s that a leader election leaves without an answer."""
BACKOFF_SECONDS_MAX = 1.0
_BACKOFF_SECONDS_FIRST = 0.02


class AppendRejected(Unanswered):
    """The fence refused this try. It says nothing yet: an own earlier try may be what moved the fence."""


class Appender(Protocol):
    """A place that can be asked to append and to show a writer's last message. Each call is one bounded try."""

    async def try_append(self, data: bytes, *, writer: str, expected: int) -> int:
        """Append once; the new sequence. Raises `Unanswered` or `AppendRejected`."""
        ...

    async def read_last(self, writer: str) -> tuple[int, bytes] | None:
        """Sequence and bytes of the writer's last message, as the leader knows it. Raises `Unanswered`."""
        ...


class Patience:
    """The time left for something that is tried again, with growing and jittered pauses between the tries."""

    def __init__(self, seconds_max: float) -> None:
        self._deadline = asyncio.get_running_loop().time() + seconds_max
        self._pause_seconds = 0.0

    async def pause(self, cause: Exception) -> None:
        """Wait before the next try; the first pause only yields.

        Raises:
            LogUnavailable: the time is up; `cause` is why the last try failed.
        """
        if asyncio.get_running_loop().time() + self._pause_seconds > self._deadline:
            raise LogUnavailable(str(cause)) from cause
        await asyncio.sleep(self._pause_seconds * random.uniform(0.5, 1.0))
        self._pause_seconds = min(max(self._pause_seconds * 2, _BACKOFF_SECONDS_FIRST), BACKOFF_SECONDS_MAX)


async def append_resolved(
    appender: Appender, data: bytes, *, writer: str, expected: int, seconds_max: float = APPEND_SECONDS_MAX
) -> int:
    """Append `data` until its outcome is known; its sequence.

    Raises:
        FenceMoved: another commit of this writer stands after `expected`.
        LogUnavailable: the outcome stayed unknown for `seconds_max`.
        CommitTooLarge: more bytes than a commit may have.
    """
    if len(data) > COMMIT_BYTES_MAX:
        raise CommitTooLarge(f"{len(data)} bytes, at most {COMMIT_BYTES_MAX} fit a commit")
    patience = Patience(seconds_max)
    while True:
        try:
            return await appender.try_append(data, writer=writer, expected=expected)
        except Unanswered as unclear:
            cause = unclear
        sequence, stored = await _read_last(appender, writer, patience)
        if stored == data and sequence > expected:
            return sequence
        if sequence != expected:
            raise FenceMoved(writer=writer, expected=expected, actual=sequence) from cause
        await patience.pause(cause)


async def _read_last(appender: Appender, writer: str, patience: Patience) -> tuple[int, bytes]:
    while True:
        try:
            return await appender.read_last(writer) or (0, b"")
        except Unanswered as error:
            await patience.pause(error)
