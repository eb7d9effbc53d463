"""The version of what a log means, and the rule that an instance which does not know it stops.

A newer version of this program may give events another effect. It begins behind a `LogVersionActivated` in the log, so
that every reader folds the same at every position. A reader that does not know the version would fold, decide and
write rows wrongly from there on: it stops at that commit, and does not start behind it.
"""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from taskyard.contracts.events import LOG_KEEPER, LOG_VERSION, LogVersionActivated
from taskyard.contracts.values import Instant
from taskyard.eventlog.commit import Commit, CommitCodec, StoredCommit
from taskyard.eventlog.errors import LogVersionUnknown
from taskyard.eventlog.log import EventLog

KEEPER_INSTANCE = "operator"
"""The keeper has no instances that could follow one another: its commits are fenced, and bear one name."""

FIRST_VERSION = 1
"""What a log means that nothing was activated in."""


class Activation(Struct, frozen=True, kw_only=True):
    """What became of a wish to activate a version: the sequence of the new commit, 0 where it was active already."""

    version: int
    sequence: int


def active_version(events: Iterable[Any]) -> int | None:
    """The version that these events of the log keeper say is active; None if they say nothing of it."""
    versions = [event.version for event in events if isinstance(event, LogVersionActivated)]
    return max(versions, default=None)


def require_known(stored: StoredCommit[Any]) -> None:
    """Refuse a commit behind which the log means what this program does not know.

    Raises:
        LogVersionUnknown: this program must not read on.
    """
    if stored.commit.writer == LOG_KEEPER:
        version = active_version(stored.commit.events)
        if version is not None and version > LOG_VERSION:
            raise LogVersionUnknown(version=version, known=LOG_VERSION, sequence=stored.sequence)


async def read_version(log: EventLog[Any]) -> int:
    """The version that is active at the end of the log.

    Raises:
        LogVersionUnknown: this program does not know it, and must not start on this log.
        LogUnavailable: the log gave no answer within the limit.
    """
    last = await log.last(LOG_KEEPER)
    if last is None:
        return FIRST_VERSION
    require_known(last)
    return active_version(last.commit.events) or FIRST_VERSION


async def activate_version(
    log: EventLog[Any], codec: CommitCodec[Any], version: int, *, by: str, now: Instant
) -> Activation:
    """Make `version` the meaning of the log from its next commit on, unless it is that already or goes beyond it.

    Raises:
        LogVersionUnknown: this program does not know the version, or the one that is active.
        FenceMoved: somebody else does the same at the same time; nothing was stored.
        LogUnavailable: the outcome is not known; ask again.
    """
    if version > LOG_VERSION:
        raise LogVersionUnknown(version=version, known=LOG_VERSION, sequence=None)
    active = await read_version(log)
    if version <= active:
        return Activation(version=active, sequence=0)
    last = await log.last(LOG_KEEPER)
    commit = Commit(
        writer=LOG_KEEPER,
        instance=KEEPER_INSTANCE,
        epoch=0,
        at=now,
        previous="" if last is None else last.hash,
        events=(LogVersionActivated(version=version, by=by),),
    )
    sequence = await log.append(codec.encode(commit), writer=LOG_KEEPER, expected=0 if last is None else last.sequence)
    return Activation(version=version, sequence=sequence)
