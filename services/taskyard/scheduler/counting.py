"""Which refusals are written into the log one by one, and which are only counted, so that nobody fills it with them.

Each principal's refusals may take so many bytes of the log at once, and so many a second from then on; the log itself tells
how much they took. What is refused beyond that is counted, and one event tells for each principal how many commands that were,
where they stand among the commands, and why they were refused. It stands in the next commit, whatever else that says, or in
one of its own after WINDOW_SECONDS at the latest: so every commit accounts for all commands that its cursor has passed.
Nobody is told of a refusal before it is stored, alone or in a count: what a leader had counted and not stored is decided anew
by the next one, perhaps otherwise. An id is not remembered for having been counted, and may be sent again.
"""

from collections.abc import Mapping

import msgspec

from taskyard.contracts.events import CommandRejected, RefusalsCounted
from taskyard.contracts.lifecycle import NO_INSTANT
from taskyard.contracts.values import SECOND, Instant, seconds
from taskyard.scheduler.messages import CommandMessage

REFUSED_BYTES_AT_ONCE = 32 * 1024
REFUSED_BYTES_A_SECOND = 512
"""What a person does wrong stays far below it: a refusal of one command takes 200 to 400 bytes."""
DEBT_SECONDS_MAX = 600.0
"""One long refusal may take more than there is left; after so long it is forgiven, as it is where a clock was set back."""
WINDOW_SECONDS = 1.0
"""How long a refusal that is only counted, and its answer, wait for a commit."""
COUNTED_MAX = 2_000
"""So many wait at most; a commit tells of them at once."""
PRINCIPALS_MAX = 10_000
"""Principals that are remembered. Whose share is whole again needs no memory."""

_BYTE = SECOND // REFUSED_BYTES_A_SECOND
_SHARE = REFUSED_BYTES_AT_ONCE * _BYTE
_DEBT_MAX = seconds(DEBT_SECONDS_MAX)

_Key = tuple[str, str]
"""A principal, and the stream of its commands."""


class Shares:
    """What is left of each principal's share of the log: a fold. `whole_at` says when it is whole again."""

    def __init__(self, whole_at: Mapping[str, Instant] | None = None) -> None:
        self.whole_at = dict(whole_at or {})

    def wrote(self, event: CommandRejected, at: Instant) -> None:
        """A refusal stands in the log."""
        used = max(self.whole_at.get(event.by, at), at) + cost_of(event)
        self.whole_at[event.by] = Instant(min(used, at + _DEBT_MAX))
        if len(self.whole_at) > PRINCIPALS_MAX:
            self.whole_at = {by: whole for by, whole in self.whole_at.items() if whole > at}

    def has_room(self, by: str, now: Instant, taken: int) -> bool:
        """Whether anything is left at `now`, once what this decision has `taken` is off."""
        return max(self.whole_at.get(by, now), now) + taken < now + _SHARE


class Counting:
    """What a leader has counted and not told yet, beside what its last decision has done: that counts once it stands."""

    def __init__(self) -> None:
        self._counts: dict[_Key, RefusalsCounted] = {}
        self._begun = NO_INSTANT
        self._waiting = 0
        self._new: dict[_Key, RefusalsCounted] = {}
        self._new_waiting = 0
        self._decided_at = NO_INSTANT
        self._taken: dict[str, int] = {}
        self._is_told = False

    # -- one decision --------------------------------------------------------------------------------------------------

    def begin(self, now: Instant) -> None:
        """What was decided last stands; another decision begins."""
        if self._is_told:
            self._counts, self._waiting = {}, 0
        elif self._new:
            self._begun = self._begun if self._counts else self._decided_at
            self._counts, self._waiting = self._sum(), self._waiting + self._new_waiting
        self.take_back()
        self._decided_at = now

    def take_back(self) -> None:
        """What was decided last does not stand: it is decided again."""
        self._new, self._new_waiting, self._taken, self._is_told = {}, 0, {}, False

    def writes(self, event: CommandRejected, message: CommandMessage, shares: Shares) -> bool:
        """Whether a refusal is to be written; otherwise it was counted now."""
        if shares.has_room(event.by, self._decided_at, self._taken.get(event.by, 0)):
            self._taken[event.by] = self._taken.get(event.by, 0) + cost_of(event)
            return True
        key = (event.by, message.stream)
        one = RefusalsCounted(
            by=event.by,
            stream=message.stream,
            count=1,
            first=message.sequence,
            last=message.sequence,
            since=message.at,
            until=message.at,
            codes={event.code: 1},
        )
        self._new[key] = _added(self._new.get(key), one)
        self._new_waiting += 1
        return False

    def told(self, *, has_events: bool) -> list[RefusalsCounted]:
        """The counts to be told by this decision, which `has_events` anyway: then all, and else when it is time."""
        is_due = self._counts and self.next_deadline is not None and self.next_deadline <= self._decided_at
        is_full = self._waiting + self._new_waiting >= COUNTED_MAX
        self._is_told = has_events or bool(is_due) or is_full
        return list(self._sum().values()) if self._is_told else []

    def _sum(self) -> dict[_Key, RefusalsCounted]:
        counts = dict(self._counts)
        for key, count in self._new.items():
            counts[key] = _added(counts.get(key), count)
        return counts

    # -- when to tell --------------------------------------------------------------------------------------------------

    def look_anew(self) -> None:
        """The clock was set back: whatever waits is told at once."""
        self._begun = self._decided_at = NO_INSTANT

    @property
    def next_deadline(self) -> Instant | None:
        """When what is counted must be told."""
        if self._is_told or not (self._counts or self._new):
            return None
        return Instant((self._begun if self._counts else self._decided_at) + seconds(WINDOW_SECONDS))


def cost_of(event: CommandRejected) -> int:
    """How long it takes until a share is as it was before the event was written."""
    return len(msgspec.json.encode(event)) * _BYTE


def _added(count: RefusalsCounted | None, more: RefusalsCounted) -> RefusalsCounted:
    if count is None:
        return more
    codes = dict(count.codes)
    for code, number in more.codes.items():
        codes[code] = codes.get(code, 0) + number
    return msgspec.structs.replace(
        count,
        count=count.count + more.count,
        first=min(count.first, more.first),
        last=max(count.last, more.last),
        since=min(count.since, more.since),
        until=max(count.until, more.until),
        codes=codes,
    )
