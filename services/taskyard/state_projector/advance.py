"""One step of the projection: commits are folded, and the rows that they change are written with the new position."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from taskyard.contracts.events import TaskSubmitted
from taskyard.eventlog.commit import StoredCommit
from taskyard.state_projector.projection import Projection
from taskyard.state_projector.store import LogPosition, Store


async def advance(
    store: Store, projection: Projection, before: LogPosition, commits: Sequence[StoredCommit[Any]]
) -> LogPosition:
    """Bring rows and projection, both at `before`, behind the last of these commits; the position of that.

    Raises:
        PositionMoved: the rows are not at `before`; nothing was written, and the projection is of no use any more.
    """
    submitted = [event.task for stored in commits for event in stored.commit.events if type(event) is TaskSubmitted]
    known = await store.existing(submitted)
    for stored in commits:
        projection.fold(stored.sequence, stored.at, stored.commit.writer, stored.commit.events, known)
    last = commits[-1]
    after = replace(before, sequence=last.sequence, hash=last.hash, log_time=last.at)
    projection.refused(await store.write(projection.take(), before=before, after=after))
    return after
