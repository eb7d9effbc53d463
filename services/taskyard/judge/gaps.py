"""The longest time in which nothing began although something waited."""

from collections.abc import Iterable

from msgspec import Struct

from taskyard.contracts.values import SECOND, Instant


class Gap(Struct, frozen=True, kw_only=True):
    """From `begun` to `over` work waited and nothing started."""

    begun: Instant
    over: Instant

    @property
    def seconds(self) -> float:
        """How long that is."""
        return max(0, self.over - self.begun) / SECOND


NO_GAP = Gap(begun=Instant(0), over=Instant(0))


def find_gaps(waits: Iterable[tuple[Instant, Instant]]) -> list[Gap]:
    """All gaps, in the order of time. Each wait is when a task was accepted and when it started first."""
    starts = sorted((started, accepted) for accepted, started in waits)
    # Of all that had not started yet, who waited longest: what starts later may have been accepted earlier.
    waiting_since: list[Instant] = []
    earliest: Instant | None = None
    for _, accepted in reversed(starts):
        earliest = accepted if earliest is None else min(earliest, accepted)
        waiting_since.append(earliest)
    waiting_since.reverse()
    gaps: list[Gap] = []
    last = Instant(0)
    for (started, _), since in zip(starts, waiting_since, strict=True):
        gaps.append(Gap(begun=max(last, since), over=started))
        last = started
    return gaps


def longest(gaps: Iterable[Gap]) -> Gap:
    """The longest of them; an empty one if there is none."""
    return max(gaps, key=lambda gap: gap.seconds, default=NO_GAP)
