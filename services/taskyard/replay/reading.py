"""Where a replay reads from: a stretch of a live log with the state before it, or the file of a slice."""

from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from taskyard.api.past.checkpoints import Checkpoints
from taskyard.api.past.moments import Moment
from taskyard.api.past.state import PastState, end_of
from taskyard.contracts.events import AnyEvent, decode_event
from taskyard.contracts.values import Instant, commit_sequence
from taskyard.eventlog.commit import CommitCodec, StoredCommit
from taskyard.eventlog.errors import LogBegins, SliceUnreadable
from taskyard.eventlog.log import EventLog
from taskyard.eventlog.slices import NO_SNAPSHOT, SliceHeader, SliceReader
from taskyard.replay.errors import NothingToReplay

COMMITS_READ_MAX = 1_000_000
"""What is replayed is held in memory."""

Commits = list[StoredCommit[Any]]
Told = Callable[[int, int], None]

_codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)


async def read_stretch(
    log: EventLog[Any], checkpoints: Checkpoints, first: Moment | None, last: Moment | None, told: Told
) -> tuple[PastState, Commits]:
    """The commits from one moment to another, whole ones, and the state before them. `told` hears how far it is.

    Raises:
        NothingToReplay: there are none between the two, or more than COMMITS_READ_MAX.
        EventLogError: the log gives no answer.
    """
    head = await log.head()
    before = (await checkpoints.before(_just_before(first)) if first is not None else None) or PastState()
    commits: Commits = []
    async with aclosing(log.read(before.sequence + 1, head, floor=before.at)) as reading:
        async for stored in reading:
            told(stored.sequence, head)
            if last is not None and _is_behind(stored, last):
                break
            if not commits and first is not None and not _is_reached(stored, first):
                before.fold(stored, end_of(stored.sequence))
                continue
            commits.append(stored)
            _check_length(len(commits))
    told(head, head)
    if not commits:
        raise NothingToReplay(f"the log, which ends with commit {head}, has nothing there")
    return before, commits


async def snapshot_before(log: EventLog[Any], checkpoints: Checkpoints, first: int) -> Raw:
    """The state before the commit `first`, for the header of a slice; none at the beginning, or where the log does not tell.

    Raises:
        EventLogError: the log gives no answer.
    """
    if first <= 1:
        return NO_SNAPSHOT
    before = Moment(position=end_of(first - 1))
    state = await checkpoints.before(before) or PastState()
    try:
        async with aclosing(log.read(state.sequence + 1, first - 1, floor=state.at)) as reading:
            async for stored in reading:
                state.fold(stored, end_of(stored.sequence))
    except LogBegins:
        return NO_SNAPSHOT
    return Raw(state.save())


def read_slice(path: Path) -> tuple[PastState, Commits, SliceHeader]:
    """What a slice holds. One that begins in the middle of a log tells what was before only if it bears a snapshot.

    Raises:
        SliceUnreadable: the file is none.
        NothingToReplay: it is empty, or too long.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        reader = SliceReader(file)
        commits: Commits = []
        for stored in reader.commits(_codec):
            commits.append(stored)
            _check_length(len(commits))
    if not commits:
        raise NothingToReplay("the slice is empty")
    return _state_before(reader.header), commits, reader.header


def _state_before(header: SliceHeader) -> PastState:
    if not header.has_snapshot:
        return PastState()
    try:
        return PastState.restored(bytes(header.snapshot))
    except msgspec.DecodeError as error:
        raise SliceUnreadable(1, f"its snapshot is not understood: {error}") from error


def _check_length(commits: int) -> None:
    if commits > COMMITS_READ_MAX:
        raise NothingToReplay(f"these are more than {COMMITS_READ_MAX} commits: replay a shorter stretch")


def _just_before(moment: Moment) -> Moment:
    if moment.position is not None:
        return Moment(position=end_of(max(commit_sequence(moment.position) - 1, 0)))
    return Moment(at=Instant((moment.at or 0) - 1))


def _is_reached(stored: StoredCommit[Any], first: Moment) -> bool:
    if first.position is not None:
        return stored.sequence >= commit_sequence(first.position)
    return first.at is None or stored.at >= first.at


def _is_behind(stored: StoredCommit[Any], last: Moment) -> bool:
    if last.position is not None:
        return stored.sequence > commit_sequence(last.position)
    return last.at is not None and stored.at > last.at
