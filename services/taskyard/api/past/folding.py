"""Reading the log in chunks that are folded in one go, and folding one up to a moment, with a watcher or without."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from taskyard.api.errors import unavailable
from taskyard.api.past.moments import Moment
from taskyard.api.past.state import LogEvent, PastState, end_of
from taskyard.api.past.waits import Watcher
from taskyard.contracts.values import Position, commit_sequence, make_position
from taskyard.eventlog.commit import StoredCommit
from taskyard.eventlog.log import EventLog

CHUNK_COMMITS = 256
CHUNK_EVENTS = 5_000
"""What is folded in one go, in a thread: some 20 ms."""
READ_SECONDS_MAX = 3.0
"""How long reading may stand still."""
HEAD_SECONDS_MAX = 8.0
"""How long is waited to learn where the log ends: about as long as three servers need for another leader."""

Chunk = Sequence[StoredCommit[Any]]


async def chunks_behind(state: PastState, log: EventLog[LogEvent]) -> AsyncGenerator[Chunk, None]:
    """The commits that a state has not folded yet, some at a time, up to where the log ends now.

    Raises:
        Refusal: 503 when the log stands still.
        EventLogError: the log gives no answer.
    """
    head = await head_of(log)
    first = commit_sequence(Position(state.reached + 1))
    chunk: list[StoredCommit[Any]] = []
    events = 0
    async with aclosing(log.read(max(first, 1), head, floor=state.at)) as commits:
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


async def head_of(log: EventLog[LogEvent]) -> int:
    """Where the log ends. Raises as `chunks_behind`."""
    try:
        async with asyncio.timeout(HEAD_SECONDS_MAX):
            return await log.head()
    except TimeoutError:
        raise unavailable("the log gives no answer; try again") from None


def fold_chunk(state: PastState, chunk: Chunk, moment: Moment) -> bool:
    """Fold what of a chunk was there at the moment; whether the moment is reached."""
    for stored in chunk:
        if moment.at is not None and stored.at > moment.at:
            return True
        until = end_of(stored.sequence) if moment.position is None else moment.position
        state.fold(stored, min(until, end_of(stored.sequence)))
        if moment.position is not None and state.reached >= moment.position:
            return True
    return False


def watch_chunk(state: PastState, chunk: Chunk, until: Position, watcher: Watcher) -> bool:
    """As `fold_chunk`, event by event, with a watcher that looks on."""
    for stored in chunk:
        for index, event in enumerate(stored.commit.events):
            position = make_position(stored.sequence, index)
            if position <= state.reached:
                continue
            if position > until:
                return True
            watcher.before(state, event)
            watcher.after(state, event, state.apply(event, stored.at, position))
        state.fold(stored, min(until, end_of(stored.sequence)))
        watcher.committed(state)
        if state.reached >= until:
            return True
    return False


def is_behind(state: PastState, moment: Moment) -> bool:
    """Whether a state is later than the moment, so that nothing leads from it to there."""
    if moment.position is not None:
        return state.reached > moment.position
    return moment.at is not None and state.at > moment.at
