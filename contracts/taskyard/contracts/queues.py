"""Pools and queues with their settings, folded from the log: limits, and who paused or locked what, why and since when.

Every fold of settings is this one. Who counts something of each pool or queue beside it does so in a Struct of its own
that inherits the settings.
"""

from collections.abc import Iterable
from typing import Generic, TypeVar, assert_never, get_args

from msgspec import Struct

from taskyard.contracts.events import (
    PlacingFailed,
    PlacingResumed,
    PoolConfigured,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    QueueUnlocked,
)
from taskyard.contracts.values import Instant

SettingsEvent = PoolConfigured | QueueConfigured | QueuePaused | QueueResumed | QueueLocked | QueueUnlocked
SETTINGS_EVENTS: frozenset[type] = frozenset(get_args(SettingsEvent))
"""The events that `SettingsTable` folds."""

PlacingEvent = PlacingFailed | PlacingResumed
PLACING_EVENTS: frozenset[type] = frozenset(get_args(PlacingEvent))
"""What is told of a pool by who gives slots."""

INTERNAL_ERROR = "internal_error"
"""The code of what is refused, or held back, since deciding on it raised. With it begins the reason of a pause that the
scheduler itself has set."""


class Hold(Struct, frozen=True, kw_only=True, gc=False):
    """A pause or a lock: by whom, why, and since when."""

    by: str
    reason: str
    at: Instant


class PoolSettings(Struct, kw_only=True):
    """Settings of a pool; None where nobody has set one. `aside` are kinds, and tasks whose applies, are given no slots
    since looking for one raised, each with the reason.
    """

    name: str
    max_waiting: int | None = None
    approval_timeout_seconds: float | None = None
    placement: str | None = None
    paused: Hold | None = None
    aside: dict[str, str] = {}

    @property
    def is_paused(self) -> bool:
        """Whether nothing of the pool is scheduled."""
        return self.paused is not None


class QueueSettings(Struct, kw_only=True):
    """Settings of a queue. `max_running` None is no limit."""

    pool: str
    name: str
    max_running: int | None = None
    paused: Hold | None = None
    locked: Hold | None = None

    @property
    def is_paused(self) -> bool:
        """Whether somebody paused the queue itself."""
        return self.paused is not None

    @property
    def is_locked(self) -> bool:
        """Whether somebody locked it."""
        return self.locked is not None


PoolT = TypeVar("PoolT", bound=PoolSettings)
QueueT = TypeVar("QueueT", bound=QueueSettings)


class SettingsTable(Generic[PoolT, QueueT]):
    """Pools and queues by name. One comes to be when it is first named, and a queue's pool with its queue.

    A workspace is one lock in the partition: a person's lock of a queue holds the tasks that lock it whatever pool they name,
    and an unlock through a pool that has no lock of its own ends those that were set through others.
    """

    def __init__(
        self,
        make_pool: type[PoolT],
        make_queue: type[QueueT],
        pools: Iterable[PoolT] = (),
        queues: Iterable[QueueT] = (),
    ) -> None:
        self.pools = {pool.name: pool for pool in pools}
        self.queues = {(queue.pool, queue.name): queue for queue in queues}
        self._make_pool = make_pool
        self._make_queue = make_queue
        self._locked: dict[str, dict[str, None]] = {}
        for queue in self.queues.values():
            if queue.is_locked:
                self._locked.setdefault(queue.name, {})[queue.pool] = None

    def apply(self, event: SettingsEvent, at: Instant) -> None:
        """Fold one event that was stored at `at`."""
        match event:
            case PoolConfigured():
                self._configure_pool(event)
            case QueueConfigured():
                queue = self.queue(event.pool, event.queue)
                if event.max_running is not None:
                    queue.max_running = event.max_running or None
            case QueuePaused():
                self._pausable(event).paused = Hold(by=event.by, reason=event.reason, at=at)
            case QueueResumed():
                self._pausable(event).paused = None
            case QueueLocked():
                self.queue(event.pool, event.queue).locked = Hold(by=event.by, reason=event.reason, at=at)
                self._locked.setdefault(event.queue, {})[event.pool] = None
            case QueueUnlocked():
                for pool in self.unlocked_by(event):
                    self._unlock(pool, event.queue)
            case _:
                assert_never(event)

    def apply_placing(self, event: PlacingEvent) -> None:
        """Fold what is told of who stands aside."""
        aside = self.pool(event.pool).aside
        if isinstance(event, PlacingFailed):
            aside[event.what] = event.reason
        else:
            aside.pop(event.what, None)

    def pool(self, name: str) -> PoolT:
        """The pool of this name."""
        pool = self.pools.get(name)
        if pool is None:
            pool = self.pools[name] = self._make_pool(name=name)
        return pool

    def queue(self, pool: str, name: str) -> QueueT:
        """The queue of this name in the pool."""
        queue = self.queues.get((pool, name))
        if queue is None:
            self.pool(pool)
            queue = self.queues[pool, name] = self._make_queue(pool=pool, name=name)
        return queue

    def locks_of(self, workspace: str) -> list[QueueT]:
        """The queues of this name that a person locked, by pool: each holds the tasks that lock it in all of them."""
        return [self.queues[pool, workspace] for pool in sorted(self._locked.get(workspace, ()))]

    def unlocked_by(self, event: QueueUnlocked) -> list[str]:
        """The pools whose locks of the queue this unlock ends; the one that it names where nobody has locked anything."""
        locked = self._locked.get(event.queue, {})
        return [event.pool] if event.pool in locked or not locked else sorted(locked)

    def _unlock(self, pool: str, name: str) -> None:
        self.queue(pool, name).locked = None
        pools = self._locked.get(name, {})
        pools.pop(pool, None)
        if not pools:
            self._locked.pop(name, None)

    def _configure_pool(self, event: PoolConfigured) -> None:
        pool = self.pool(event.pool)
        if event.max_waiting is not None:
            pool.max_waiting = event.max_waiting
        if event.approval_timeout_seconds is not None:
            pool.approval_timeout_seconds = event.approval_timeout_seconds
        if event.placement is not None:
            pool.placement = event.placement

    def _pausable(self, event: QueuePaused | QueueResumed) -> PoolT | QueueT:
        return self.pool(event.pool) if event.queue is None else self.queue(event.pool, event.queue)
