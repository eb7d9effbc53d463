"""Folds the log to a moment: from the nearest kept state on, off the event loop, one fold at a time, with limits.

A fold that took too long keeps how far it came, so that whoever asks again is soon answered. The state that was folded
last is kept, too: pages of one moment need no fold. Before it is used again it is asked whether it is of the log still.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TypeVar

from taskyard.api.errors import Refusal, invalid, unavailable
from taskyard.api.past.checkpoints import Checkpoints, is_of_log
from taskyard.api.past.folding import Chunk, chunks_behind, fold_chunk, head_of, is_behind, watch_chunk
from taskyard.api.past.moments import Moment, parse_moment, with_its_millisecond
from taskyard.api.past.state import LogEvent, PastState, end_of
from taskyard.api.past.waits import Watcher
from taskyard.contracts.events import FieldError
from taskyard.contracts.values import (
    Instant,
    Position,
    commit_sequence,
    format_instant,
    seconds,
)
from taskyard.eventlog.errors import ArchiveDamaged, ArchiveUnreachable, LogBegins
from taskyard.eventlog.log import START, EventLog

FOLD_SECONDS_MAX = 8.0
"""How long one question may fold; below what clients wait for an answer."""
AHEAD_SECONDS_MAX = 5.0
"""The clocks of this machine and of the log may differ so much before a time counts as the future."""

T = TypeVar("T")


class TimeTravel:
    """The past of one log. `now` is this machine's clock; `fold_seconds_max` bounds one question."""

    def __init__(
        self,
        log: EventLog[LogEvent],
        checkpoints: Checkpoints,
        now: Callable[[], Instant],
        *,
        fold_seconds_max: float = FOLD_SECONDS_MAX,
    ) -> None:
        self._log = log
        self._checkpoints = checkpoints
        self._now = now
        self._fold_seconds_max = fold_seconds_max
        self._folding = asyncio.Lock()
        self._latest: PastState | None = None

    async def look(self, moment: Moment, read: Callable[[PastState], T]) -> T:
        """What `read` makes of the state at a moment.

        Raises:
            Refusal: 422 for what is no moment of this log, 503 when it takes too long.
            EventLogError: the log gives no answer.
        """
        with _told_from_the_archive():
            await self._check(moment)
            async with self.state_at(moment) as state:
                return await asyncio.to_thread(read, state)

    @asynccontextmanager
    async def state_at(self, moment: Moment) -> AsyncIterator[PastState]:
        """The state at a moment, to be read while this is open; nobody else folds meanwhile. Raises as `look`."""
        async with self._folding:
            yield await self._fold_to(await self._begin(moment), moment)

    async def watch(self, first: Position, last: Position | None, watcher: Watcher, seconds_max: float) -> bool:
        """Let a watcher look on from the event at `first` to the one at `last`, or to where the log ends now.

        False when that takes longer than `seconds_max`: the watcher has seen a part. Raises as `look`.
        """
        deadline = asyncio.get_running_loop().time() + seconds_max
        with _told_from_the_archive():
            async with self.state_at(Moment(position=first)) as state:
                watcher.committed(state)
                end = last or end_of(await head_of(self._log))
                return await self._advance(state, lambda chunk: watch_chunk(state, chunk, end, watcher), deadline)

    # -- folding -------------------------------------------------------------------------------------------------------

    async def _begin(self, moment: Moment) -> PastState:
        try:
            async with asyncio.timeout(self._fold_seconds_max):
                return await self._nearest(moment)
        except TimeoutError:
            raise self._too_long() from None

    async def _nearest(self, moment: Moment) -> PastState:
        """A state to fold on from: the last one that was folded, or a kept one where that is nearer."""
        latest = self._latest
        if latest is not None and not is_behind(latest, moment):
            is_nearest = await self._checkpoints.nearest(moment) <= latest.reached
            if is_nearest and await is_of_log(self._log, latest.sequence, latest.hash):
                return latest
        return await self._checkpoints.before(moment) or PastState()

    async def _fold_to(self, state: PastState, moment: Moment) -> PastState:
        deadline = asyncio.get_running_loop().time() + self._fold_seconds_max
        if moment.position is not None and state.reached == moment.position:
            self._latest = state
            return state
        if not await self._advance(state, lambda chunk: fold_chunk(state, chunk, moment), deadline):
            raise self._too_long(state)
        if not state.reached:
            raise no_moment(f"is before the beginning of the log at {format_instant(await self._first())}")
        return state

    async def _advance(self, state: PastState, fold: Callable[[Chunk], bool], deadline: float) -> bool:
        """Fold on until `fold` says that it is there, or the log ends. False when time is up: the state stays where it is."""
        self._latest = None
        is_whole = True  # not while a thread folds it: who asked may be gone before the thread is done
        try:
            async with aclosing(chunks_behind(state, self._log)) as chunks:
                async for chunk in chunks:
                    is_whole = False
                    is_there = await asyncio.to_thread(fold, chunk)
                    is_whole = True
                    if is_there:
                        return True
                    if asyncio.get_running_loop().time() > deadline:
                        return False
        finally:
            self._latest = state if is_whole else None
        return True

    def _too_long(self, state: PastState | None = None) -> Refusal:
        came = f" (it came to commit {state.sequence})" if state is not None else ""
        return unavailable(
            f"folding the log to that moment takes longer than {self._fold_seconds_max:g} s{came}; "
            "try again, it goes on from there"
        )

    # -- what is a moment of this log ----------------------------------------------------------------------------------

    async def _check(self, moment: Moment) -> None:
        head = await head_of(self._log)
        if head == 0:
            raise no_moment("the log is empty")
        if moment.at is not None and moment.at > self._now() + seconds(AHEAD_SECONDS_MAX):
            raise no_moment("is in the future")
        if moment.position is not None and commit_sequence(moment.position) > head:
            raise no_moment(f"the log ends with commit {head}")
        if moment.position is not None and commit_sequence(moment.position) < 1:
            raise no_moment("is before the beginning of the log at position 1.0")

    async def _first(self) -> Instant:
        async with aclosing(self._log.read(1, 1)) as commits:
            async for stored in commits:
                return stored.at
        return START


def moment_in(text: str) -> Moment:
    """The moment that `?at=` names. Raises 422."""
    try:
        return with_its_millisecond(parse_moment(text))
    except ValueError as error:
        raise no_moment(str(error)) from error


def no_moment(message: str) -> Refusal:
    """422: what `?at=` names is no moment of this log."""
    return invalid(FieldError(path="at", message=message))


@contextmanager
def _told_from_the_archive() -> Iterator[None]:
    """What lies in the archive of a log, and cannot be read from there, is told as that: NATS is not away."""
    try:
        yield
    except (LogBegins, ArchiveDamaged, ArchiveUnreachable) as error:
        raise Refusal(503, "archive_unavailable", str(error)) from error
