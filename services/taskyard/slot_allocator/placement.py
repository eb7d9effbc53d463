"""Idle slots of each pool, and which of them a task gets.

A cache of the folded fleet that deciding uses up; a leader makes a new one when it begins. An entry is checked when it
is looked at, so that what became stale drops out by itself.
"""

from collections.abc import Collection
from heapq import heappop, heappush

from taskyard.contracts.fleet import Accepts, Fleet, Worker
from taskyard.contracts.values import Incarnation, Position

FIRST_FIT = "first-fit"
KEEP_SLOT_0 = "keep-slot-0"

Entry = tuple[Position, int, str, Incarnation]
"""When the worker joined, the slot, the worker's name and incarnation: first fit takes the smallest."""


class IdleSlots:
    """Heaps of idle slots by pool and by what they accept. A standby's is closed and keeps nothing."""

    def __init__(self, *, is_open: bool) -> None:
        self._is_open = is_open
        self._heaps: dict[str, dict[Accepts, list[Entry]]] = {}

    def add_worker(self, worker: Worker, joined: Position) -> None:
        """Every idle slot of a worker may be given."""
        for slot in range(len(worker.slots)):
            self.add(worker, slot, joined)

    def add(self, worker: Worker, slot: int, joined: Position) -> None:
        """A slot may be given, if it is idle and its worker takes tasks."""
        if not self._is_open or slot >= len(worker.slots) or slot in worker.busy or not worker.takes_tasks:
            return
        heaps = self._heaps.setdefault(worker.pool, {})
        heappush(heaps.setdefault(worker.accepts[slot], []), (joined, slot, worker.name, worker.incarnation))

    def forget(self, pool: str) -> None:
        """Nothing of the pool is idle, until it is added."""
        self._heaps.pop(pool, None)

    def take(
        self,
        pool: str,
        kind: str,
        policy: str,
        fleet: Fleet,
        taken: set[tuple[str, int]],
        *,
        avoid: Collection[str] = (),
    ) -> Entry | None:
        """The slot for a task of `kind`, taken off; None when no idle slot accepts it.

        First fit takes the oldest worker's lowest slot. `keep-slot-0` takes the most specialised slot first, so that
        slots that accept anything stay free for what fits nowhere else. Workers to `avoid` get it where no other can.
        """
        put_aside: list[tuple[list[Entry], Entry]] = []
        entry = self._first(pool, kind, policy, fleet, taken)
        while entry is not None and entry[2] in avoid:
            put_aside.append((self._heaps[pool][fleet.workers[entry[2]].accepts[entry[1]]], entry))
            entry = self._first(pool, kind, policy, fleet, taken)
        if entry is None and put_aside:
            entry = put_aside.pop(0)[1]
        for heap, other in put_aside:
            heappush(heap, other)
        if entry is not None:
            taken.add((entry[2], entry[1]))
        return entry

    def _first(self, pool: str, kind: str, policy: str, fleet: Fleet, taken: set[tuple[str, int]]) -> Entry | None:
        best: tuple[tuple[int, Entry], Accepts] | None = None
        for accepts, heap in self._heaps.get(pool, {}).items():
            if kind not in accepts:
                continue
            while heap and not _is_idle(heap[0], fleet, taken):
                heappop(heap)
            if not heap:
                continue
            rank = (len(accepts) if policy == KEEP_SLOT_0 else 0, heap[0])
            if best is None or rank < best[0]:
                best = (rank, accepts)
        if best is None:
            return None
        return heappop(self._heaps[pool][best[1]])


def _is_idle(entry: Entry, fleet: Fleet, taken: set[tuple[str, int]]) -> bool:
    _, slot, name, incarnation = entry
    worker = fleet.workers.get(name)
    return (
        worker is not None
        and worker.incarnation == incarnation
        and worker.takes_tasks
        and slot not in worker.busy
        and (name, slot) not in taken
    )
