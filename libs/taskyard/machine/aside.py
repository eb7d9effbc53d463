"""What made deciding raise without any input: it stands aside for a while, so that all others go on."""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

from taskyard.contracts.values import Instant, seconds
from taskyard.machine.machine import Fault

KeyT = TypeVar("KeyT", bound=Hashable)

ASIDE_SECONDS = 60.0
"""So long it is passed over; then it is looked at again."""


class Aside(Generic[KeyT]):
    """What stands aside, each until its time. Times are those of whoever decides."""

    def __init__(self) -> None:
        self._until: dict[KeyT, Instant] = {}
        self._reasons: dict[KeyT, str] = {}

    def put(self, key: KeyT, reference: str, error: Exception, now: Instant) -> Fault:
        """Let it stand aside; the fault that tells of it."""
        self._until[key] = Instant(now + seconds(ASIDE_SECONDS))
        self._reasons[key] = f"{type(error).__name__}, in the log as {reference}"
        return Fault(reference, error)

    @property
    def reasons(self) -> Mapping[KeyT, str]:
        """Why each of them stands aside, with the reference under which the program's log tells more."""
        return self._reasons

    def __contains__(self, key: KeyT) -> bool:
        """Whether it stands aside."""
        return key in self._until

    def take_back(self, now: Instant) -> list[KeyT]:
        """What has stood aside for long enough, and does so no more."""
        over = [key for key, until in self._until.items() if until <= now]
        for key in over:
            del self._until[key], self._reasons[key]
        return over

    @property
    def next_deadline(self) -> Instant | None:
        """When the next one is looked at again."""
        return min(self._until.values(), default=None)
