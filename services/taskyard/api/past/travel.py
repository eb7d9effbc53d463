"""Folds the log to a moment: from the nearest kept state on, off the event loop, one fold at a time, with limits.

A fold that took too long keeps how far it came, so that whoever asks again is soon answered. `keep_up` looks after the
kept states (checkpoints) in the background, slowly, so that it is never noticed.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast

from nats.errors import Error as NatsError

from taskyard.api.errors import Refusal, invalid, unavailable
from taskyard.api.past.checkpoints import Checkpoints
from taskyard.api.past.moments import Moment, parse_moment
from taskyard.api.past.state import LogEvent, PastState, end_of
from taskyard.api.past.waits import Watcher
from taskyard.contracts.events import FieldError
from taskyard.contracts.values import (
    Instant,
    Position,
    commit_sequence,
    format_instant,
    make_position,
    seconds,
)
from taskyard.eventlog.commit import StoredCommit
from taskyard.eventlog.errors import ArchiveDamaged, ArchiveUnreachable, EventLogError, LogBegins
from taskyard.eventlog.log import START, EventLog

FOLD_SECONDS_MAX = 8.0
"""How long one question may fold; below what clients wait for an answer."""
WAITING_MAX = 8
"""Questions that may wait for the one that folds."""
CHUNK_COMMITS = 256
CHUNK_EVENTS = 5_000
"""What is folded in one go, in a thread: some 20 ms."""
READ_SECONDS_MAX = 3.0
"""How long reading may stand still."""
AHEAD_SECONDS_MAX = 5.0
"""The clocks of this machine and of the log may differ so much before a time counts as the future."""

KEEP_SECONDS = 60.0
"""How often the kept states are looked after."""
KEEP_COMMITS_MIN = 5_000
"""A log that grew by less needs no new ones."""
KEEP_REST = 12.0
"""It rests so many times as long as it works: it takes less than a tenth of a processor."""

T = TypeVar("T")
Chunk = Sequence[StoredCommit[Any]]

_log = logging.getLogger(__name__)


class TimeTravel:
    """The past of one log. `now` is this machine's clock; `fold_seconds_max` bounds one question."""

    def __init__(
        self,
        log: EventLog[LogEvent],
        checkpoints: Checkpoints,
        now: Callable[[], Instant],
        *,
        fold_seconds_max: float = FOLD_SECONDS_MAX,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._log = log
        self._checkpoints = checkpoints
        self._now = now
        self._fold_seconds_max = fold_seconds_max
        self._waiting_max = waiting_max
        self._folding = asyncio.Lock()
        self._waiting = 0
        self._latest: PastState | None = None

    async def look(self, text: str, read: Callable[[PastState], T]) -> T:
        """What `read` makes of the state at the moment that a text names.

        Raises:
            Refusal: 422 for what is no moment of this log, 503 when it takes too long or too many ask.
            EventLogError: the log gives no answer.
        """
        try:
            moment = parse_moment(text)
        except ValueError as error:
            raise _no_moment(str(error)) from error
        with _told_from_the_archive():
            await self._check(moment)
            async with self.state_at(moment) as state:
                return await asyncio.to_thread(read, state)

    @asynccontextmanager
    async def state_at(self, moment: Moment) -> AsyncIterator[PastState]:
        """The state at a moment, to be read while this is open; nobody else folds meanwhile. Raises as `look`."""
        await self._wait_for_turn()
        try:
            async with asyncio.timeout(self._fold_seconds_max):
                state = await self._begin(moment)
            yield await self._fold_to(state, moment)
        except TimeoutError:
            raise self._too_long() from None
        finally:
            self._folding.release()

    async def _wait_for_turn(self) -> None:
        if self._waiting >= self._waiting_max:
            raise unavailable(f"{self._waiting} questions about the past wait already; try again")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._fold_seconds_max):
                await self._folding.acquire()
        except TimeoutError:
            raise unavailable("other questions about the past take long; try again") from None
        finally:
            self._waiting -= 1

    async def watch(self, first: Position, last: Position | None, watcher: Watcher, seconds_max: float) -> bool:
        """Let a watcher look on from the event at `first` to the one at `last`, or to where the log ends now.

        False when that takes longer than `seconds_max`: the watcher has seen a part. Raises as `look`.
        """
        deadline = asyncio.get_running_loop().time() + seconds_max
        with _told_from_the_archive():
            async with self.state_at(Moment(position=first, text="")) as state:
                watcher.committed(state)
                end = Moment(position=last or end_of(await self._log.head()), text="")
                return await self._advance(state, lambda chunk: _watch(state, chunk, end, watcher), deadline)

    # -- folding -------------------------------------------------------------------------------------------------------

    async def _begin(self, moment: Moment) -> PastState:
        """A state to fold on from: the last one that was folded, or a kept one where that is nearer."""
        latest = self._latest
        if latest is not None and _is_behind(latest, moment):
            latest = None
        if latest is not None and await self._checkpoints.nearest(moment) <= latest.reached:
            return latest
        return await self._checkpoints.before(moment) or PastState()

    async def _fold_to(self, state: PastState, moment: Moment) -> PastState:
        deadline = asyncio.get_running_loop().time() + self._fold_seconds_max
        if not await self._advance(state, lambda chunk: _fold(state, chunk, moment), deadline):
            raise self._too_long(state)
        return state

    async def _advance(self, state: PastState, fold: Callable[[Chunk], bool], deadline: float) -> bool:
        """Fold on until `fold` says that it is there, or the log ends. False when time is up: the state stays where it is."""
        self._latest = None
        is_whole = True  # not while a thread folds it: who asked may be gone before the thread is done
        try:
            async with aclosing(self._chunks(state)) as chunks:
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

    async def _chunks(self, state: PastState) -> AsyncGenerator[Chunk, None]:
        """The commits that a state has not folded yet, some at a time, up to where the log ends now."""
        head = await self._log.head()
        first = commit_sequence(Position(state.reached + 1))
        chunk: list[StoredCommit[Any]] = []
        events = 0
        async with aclosing(self._read(max(first, 1), head, state.at)) as commits:
            while True:
                try:
                    async with asyncio.timeout(READ_SECONDS_MAX):
                        stored = await anext(commits, None)
                except TimeoutError:
                    raise unavailable("the log stands still while it is read; try again") from None
                if stored is not None:
                    chunk.append(stored)
                    events += len(stored.commit.events)
                if chunk and (stored is None or len(chunk) >= CHUNK_COMMITS or events >= CHUNK_EVENTS):
                    yield chunk
                    chunk, events = [], 0
                if stored is None:
                    return

    def _too_long(self, state: PastState | None = None) -> Refusal:
        came = f" (it came to commit {state.sequence})" if state is not None else ""
        return unavailable(
            f"folding the log to that moment takes longer than {self._fold_seconds_max:g} s{came}; "
            "try again, it goes on from there"
        )

    # -- what is a moment of this log ----------------------------------------------------------------------------------

    async def _check(self, moment: Moment) -> None:
        head = await self._log.head()
        if head == 0:
            raise _no_moment("the log is empty")
        if moment.at is not None:
            if moment.at > self._now() + seconds(AHEAD_SECONDS_MAX):
                raise _no_moment("is in the future")
            if not await self._checkpoints.nearest(moment) and moment.at < (first := await self._first()):
                raise _no_moment(f"is before the beginning of the log at {format_instant(first)}")
        elif moment.position is not None:
            if commit_sequence(moment.position) > head:
                raise _no_moment(f"the log ends with commit {head}")
            if commit_sequence(moment.position) < 1:
                raise _no_moment("is before the beginning of the log at position 1.0")

    async def _first(self) -> Instant:
        async with aclosing(self._read(1, 1, START)) as commits:
            async for stored in commits:
                return stored.at
        return START

    def _read(self, first: int, last: int, floor: Instant) -> AsyncGenerator[StoredCommit[LogEvent], None]:
        # Every log reads by an asynchronous generator, which has to be closed where it is left early.
        return cast("AsyncGenerator[StoredCommit[LogEvent], None]", self._log.read(first, last, floor=floor))

    # -- keeping checkpoints -------------------------------------------------------------------------------------------

    async def keep_up(self) -> None:
        """Keep states of the past, for as long as the service runs."""
        done = 0
        while True:
            try:
                head = await self._log.head()
                if head - done >= KEEP_COMMITS_MIN:
                    done = await self.keep_until(head)
            except (EventLogError, NatsError, Refusal) as error:
                _log.warning("states of the past are not kept for now", extra={"error": str(error)})
            await asyncio.sleep(KEEP_SECONDS)

    async def keep_until(self, head: int, *, rest: float = KEEP_REST) -> int:
        """Fold on from the latest kept state to the commit `head`, slowly, and keep what is due; how far it came."""
        state = await self._checkpoints.latest() or PastState()
        clock = asyncio.get_running_loop().time
        async with aclosing(self._chunks(state)) as chunks:
            async for chunk in chunks:
                for stored in chunk:
                    before = state.events
                    began = clock()
                    await asyncio.to_thread(state.fold, stored, end_of(stored.sequence))
                    if self._checkpoints.is_due(before, state):
                        await self._checkpoints.keep(state)
                    await asyncio.sleep((clock() - began) * rest)
                if state.sequence >= head:
                    break
        return state.sequence


def _fold(state: PastState, chunk: Chunk, moment: Moment) -> bool:
    """Fold what of a chunk was there at the moment; whether the moment is reached."""
    for stored in chunk:
        if moment.at is not None and stored.at > moment.at:
            return True
        until = end_of(stored.sequence) if moment.position is None else moment.position
        state.fold(stored, min(until, end_of(stored.sequence)))
        if moment.position is not None and state.reached >= moment.position:
            return True
    return False


def _watch(state: PastState, chunk: Chunk, moment: Moment, watcher: Watcher) -> bool:
    """As `_fold`, event by event, with a watcher that looks on."""
    assert moment.position is not None
    for stored in chunk:
        for index, event in enumerate(stored.commit.events):
            position = make_position(stored.sequence, index)
            if position <= state.reached:
                continue
            if position > moment.position:
                return True
            watcher.before(state, event)
            watcher.after(state, event, state.apply(event, stored.at, position))
        state.fold(stored, min(moment.position, end_of(stored.sequence)))
        watcher.committed(state)
        if state.reached >= moment.position:
            return True
    return False


def _is_behind(state: PastState, moment: Moment) -> bool:
    """Whether a state is later than the moment, so that nothing leads from it to there."""
    if moment.position is not None:
        return state.reached > moment.position
    return moment.at is not None and state.at > moment.at


@contextmanager
def _told_from_the_archive() -> Iterator[None]:
    """What lies in the archive of a log, and cannot be read from there, is told as that: NATS is not away."""
    try:
        yield
    except (LogBegins, ArchiveDamaged, ArchiveUnreachable) as error:
        raise Refusal(503, "archive_unavailable", str(error)) from error


def _no_moment(message: str) -> Refusal:
    return invalid(FieldError(path="at", message=message))
