"""Checkpoints: states of the past that are kept, so that every moment is a bounded fold away.

One stands at every STEP_EVENTS events at first. When there are more than CHECKPOINTS_MAX, every second one is given up
and the step doubles, so their number is bounded however long the log grows. Where they stand follows from the log
alone, so two instances keep the same ones. They only save time: one that is missing, cannot be read or was folded from
another log (which was there before this one was restored, or made anew) is passed over.
"""

import logging
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct

from taskyard.api.past.moments import Moment
from taskyard.api.past.state import FORMAT, PastState
from taskyard.contracts.values import Instant, Position
from taskyard.eventlog.errors import ArchiveDamaged, ArchiveUnreachable, LogBegins
from taskyard.eventlog.log import EventLog
from taskyard.eventlog.snapshots import SnapshotStore

STEP_EVENTS = 20_000
"""To fold so many takes about a tenth of a second."""
CHECKPOINTS_MAX = 64
CHECKPOINT_BYTES_MAX = 32 * 1024 * 1024
"""A state that is longer (some 50,000 live tasks) is not kept: what lies behind it is folded from an earlier one."""

_NAME = "past"
_log = logging.getLogger(__name__)


class Checkpoint(Struct, frozen=True, kw_only=True):
    """A state that is kept in `place`. It is the first one with at least `ordinal` * STEP_EVENTS events.

    `hash` is of the commit at `sequence`, the last one that was folded.
    """

    ordinal: int
    place: int
    reached: Position
    at: Instant
    sequence: int
    hash: str


class _Index(Struct, frozen=True, kw_only=True):
    checkpoints: list[Checkpoint]


async def is_of_log(log: EventLog[Any], sequence: int, expected: str) -> bool:
    """Whether what was folded up to the commit at `sequence`, whose hash was `expected`, is of this log.

    Where that commit can no longer be read, the log is taken to be the same: its beginning is elsewhere, or in no archive.

    Raises:
        LogUnavailable: the log gave no answer within the limit.
    """
    if not sequence:
        return True
    try:
        async with aclosing(log.read(sequence, sequence)) as commits:
            async for stored in commits:
                return stored.hash == expected
    except (LogBegins, ArchiveUnreachable, ArchiveDamaged):
        return True
    return False


class Checkpoints:
    """The series of one log, in a store of snapshots: one name for the index, one for each place."""

    def __init__(
        self,
        store: SnapshotStore,
        log: EventLog[Any],
        *,
        step_events: int = STEP_EVENTS,
        at_most: int = CHECKPOINTS_MAX,
    ) -> None:
        self._store = store
        self._log = log
        self._step_events = step_events
        self._at_most = at_most
        self._kept: dict[int, Checkpoint] | None = None

    async def before(self, moment: Moment) -> PastState | None:
        """The latest kept state that is not later than the moment. Raises `LogUnavailable`."""
        return await self._first_usable(each for each in await self._latest_first() if _is_not_later(each, moment))

    async def nearest(self, moment: Moment) -> Position:
        """Where the latest kept state stands that is not later than the moment; 0 without one."""
        kept = await self._known()
        return max((each.reached for each in kept.values() if _is_not_later(each, moment)), default=Position(0))

    async def latest(self) -> PastState | None:
        """The latest kept state. Raises `LogUnavailable`."""
        return await self._first_usable(await self._latest_first())

    def is_due(self, events_before: int, state: PastState) -> bool:
        """Whether a state that had `events_before` events a moment ago has passed a place where one is to be kept."""
        return self._ordinal(state.events) > self._ordinal(events_before)

    async def keep(self, state: PastState) -> None:
        """Keep a state that is due. Raises `LogUnavailable`."""
        kept = dict(await self._known())
        ordinal = self._ordinal(state.events)
        if ordinal in kept or ordinal % self._stride(kept):
            return
        data = state.save()
        if len(data) > CHECKPOINT_BYTES_MAX:
            _log.warning("a state of the past is too long to be kept", extra={"bytes": len(data)})
            return
        place = min(set(range(self._at_most + 1)) - {each.place for each in kept.values()})
        checkpoint = Checkpoint(
            ordinal=ordinal,
            place=place,
            reached=state.reached,
            at=state.at,
            sequence=state.sequence,
            hash=state.hash,
        )
        await self._store.save(_place_name(place), FORMAT, state.sequence, data)
        kept[ordinal] = checkpoint
        self._kept = self._thinned(kept)
        index = _Index(checkpoints=list(self._kept.values()))
        await self._store.save(_NAME, FORMAT, state.sequence, msgspec.json.encode(index))

    def _ordinal(self, events: int) -> int:
        return events // self._step_events

    def _stride(self, kept: dict[int, Checkpoint]) -> int:
        """How many steps apart the kept ones stand: a power of two, the largest that divides them all."""
        stride = 1
        while len(kept) > 1 and all(ordinal % (2 * stride) == 0 for ordinal in kept):
            stride *= 2
        return stride

    def _thinned(self, kept: dict[int, Checkpoint]) -> dict[int, Checkpoint]:
        stride = self._stride(kept)
        while len(kept) > self._at_most:
            stride *= 2
            kept = {ordinal: each for ordinal, each in kept.items() if ordinal % stride == 0}
        return kept

    async def _known(self) -> dict[int, Checkpoint]:
        if self._kept is None:
            # Not one that was kept of a longer log, which was there before this one.
            found = await self._store.load(_NAME, FORMAT, below=await self._log.head() + 1)
            self._kept = _read_index(found[1]) if found else {}
        return self._kept

    async def _latest_first(self) -> list[Checkpoint]:
        return sorted((await self._known()).values(), key=lambda each: each.reached, reverse=True)

    async def _first_usable(self, checkpoints: Iterable[Checkpoint]) -> PastState | None:
        for checkpoint in checkpoints:
            if not await is_of_log(self._log, checkpoint.sequence, checkpoint.hash):
                _log.warning("a kept state of the past is of another log", extra={"sequence": checkpoint.sequence})
                await self._forget(checkpoint)
            elif (state := await self._load(checkpoint)) is not None:
                return state
        return None

    async def _forget(self, checkpoint: Checkpoint) -> None:
        """Give its place free, so that the state of this log is kept there."""
        self._kept = {ordinal: each for ordinal, each in (await self._known()).items() if each != checkpoint}

    async def _load(self, checkpoint: Checkpoint) -> PastState | None:
        found = await self._store.load(_place_name(checkpoint.place), FORMAT, below=checkpoint.sequence + 1)
        if found is None or found[0] != checkpoint.sequence:
            return None
        try:
            state = PastState.restored(found[1])
        except msgspec.DecodeError:
            _log.warning("a kept state of the past cannot be read", extra={"sequence": checkpoint.sequence})
            return None
        return state if (state.reached, state.hash) == (checkpoint.reached, checkpoint.hash) else None


def _place_name(place: int) -> str:
    return f"{_NAME}_{place:02}"


def _is_not_later(checkpoint: Checkpoint, moment: Moment) -> bool:
    if moment.position is not None:
        return checkpoint.reached <= moment.position
    return moment.at is not None and checkpoint.at <= moment.at


def _read_index(data: bytes) -> dict[int, Checkpoint]:
    try:
        index = msgspec.json.decode(data, type=_Index)
    except msgspec.DecodeError:
        return {}
    return {each.ordinal: each for each in index.checkpoints}
