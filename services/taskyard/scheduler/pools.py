"""Pools and queues as the scheduler knows them: their settings, and counts of their live tasks.

A snapshot says that something is paused or locked, and neither by whom nor why: nothing is decided by that.
"""

from msgspec import Struct

from taskyard.contracts.lifecycle import NO_INSTANT
from taskyard.contracts.queues import Hold, PoolSettings, QueueSettings

APPROVAL_TIMEOUT_SECONDS = 24 * 3600.0
WAITING_MAX = 1_000_000


class Pool(PoolSettings, kw_only=True):
    """A pool. `waiting` counts tasks without a slot; `scheduled` those of each kind among them that may already run."""

    waiting: int = 0
    scheduled: dict[str, int] = {}  # noqa: RUF012 - a Struct gives each its own

    @property
    def waiting_max(self) -> int:
        """How many tasks may wait in it."""
        return WAITING_MAX if self.max_waiting is None else self.max_waiting

    @property
    def approval_seconds(self) -> float:
        """How long a plan waits for its answer."""
        set_to = self.approval_timeout_seconds
        return APPROVAL_TIMEOUT_SECONDS if set_to is None else set_to


class Queue(QueueSettings, kw_only=True):
    """A queue. `admitted` counts its tasks between scheduled and end."""

    admitted: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether nothing would be lost by forgetting it."""
        return not (self.max_running or self.paused or self.locked or self.admitted)


class SavedPool(Struct, frozen=True, kw_only=True):
    """A pool in a snapshot."""

    name: str
    max_waiting: int = WAITING_MAX
    approval_timeout_seconds: float = APPROVAL_TIMEOUT_SECONDS
    is_paused: bool = False
    waiting: int = 0
    scheduled: dict[str, int] = {}


class SavedQueue(Struct, frozen=True, kw_only=True):
    """A queue in a snapshot; `max_running` 0 is no limit."""

    pool: str
    name: str
    max_running: int = 0
    is_paused: bool = False
    is_locked: bool = False
    admitted: int = 0


def save_pool(pool: Pool) -> SavedPool:
    """The pool for a snapshot."""
    return SavedPool(
        name=pool.name,
        max_waiting=pool.waiting_max,
        approval_timeout_seconds=pool.approval_seconds,
        is_paused=pool.is_paused,
        waiting=pool.waiting,
        scheduled=pool.scheduled,
    )


def restore_pool(saved: SavedPool) -> Pool:
    """The pool of a snapshot."""
    return Pool(
        name=saved.name,
        max_waiting=saved.max_waiting,
        approval_timeout_seconds=saved.approval_timeout_seconds,
        paused=_hold(is_held=saved.is_paused),
        waiting=saved.waiting,
        scheduled=saved.scheduled,
    )


def save_queue(queue: Queue) -> SavedQueue:
    """The queue for a snapshot."""
    return SavedQueue(
        pool=queue.pool,
        name=queue.name,
        max_running=queue.max_running or 0,
        is_paused=queue.is_paused,
        is_locked=queue.is_locked,
        admitted=queue.admitted,
    )


def restore_queue(saved: SavedQueue) -> Queue:
    """The queue of a snapshot."""
    return Queue(
        pool=saved.pool,
        name=saved.name,
        max_running=saved.max_running or None,
        paused=_hold(is_held=saved.is_paused),
        locked=_hold(is_held=saved.is_locked),
        admitted=saved.admitted,
    )


def _hold(*, is_held: bool) -> Hold | None:
    return Hold(by="", reason="", at=NO_INSTANT) if is_held else None
