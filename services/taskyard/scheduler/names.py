"""Which queues were ever named.

A queue comes to be when a task is first submitted to it, or when an admin says so. What is known of it otherwise is
forgotten when it is empty; its name stays, so that pausing what is misspelt is told from pausing what is empty.
"""

from collections.abc import Iterable

from taskyard.contracts.values import QUEUE_DEFAULT

NAMES_MAX = 100_000
"""Names of queues that are remembered; beyond it those named least recently are forgotten, and have to be made again."""


class QueueNames:
    """Names of queues by pool, the one named last at the end."""

    def __init__(self, names: Iterable[tuple[str, str]] = ()) -> None:
        self._names = dict.fromkeys(names)

    def add(self, pool: str, queue: str) -> None:
        """An event has named the queue."""
        self._names.pop((pool, queue), None)
        self._names[pool, queue] = None
        if len(self._names) > NAMES_MAX:
            del self._names[next(iter(self._names))]

    def has(self, pool: str, queue: str) -> bool:
        """Whether the queue is known; the one that a task is in by default always is."""
        return queue == QUEUE_DEFAULT or (pool, queue) in self._names

    def of_pool(self, pool: str) -> list[str]:
        """The known queues of a pool."""
        return [QUEUE_DEFAULT, *(queue for of, queue in self._names if of == pool)]

    def saved(self) -> list[tuple[str, str]]:
        """The names for a snapshot."""
        return list(self._names)
