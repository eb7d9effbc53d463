"""Where instances keep snapshots: the newest few of each writer. What is found there may be old, torn, or nothing.

A snapshot only saves time, so whatever is found must lead to the same state as folding the whole log.
"""

from random import Random

from msgspec import Raw, Struct

from taskyard.machine.core import SavedLoop

SNAPSHOTS_KEPT = 3
MISSING_CHANCE = 0.3
UNREADABLE_CHANCE = 0.1


class Snapshot(Struct, frozen=True):
    """The stored form: see `taskyard.machine.loop`."""

    loop: SavedLoop
    machine: Raw


class Snapshots:
    """Snapshots by writer."""

    def __init__(self) -> None:
        self._kept: dict[str, list[bytes]] = {}

    def save(self, writer: str, data: bytes) -> None:
        """Keep one more; the oldest goes."""
        kept = self._kept.setdefault(writer, [])
        kept.append(data)
        del kept[:-SNAPSHOTS_KEPT]

    def load(self, writer: str, random: Random) -> bytes | None:
        """What an instance finds that starts."""
        kept = self._kept.get(writer)
        if not kept or random.random() < MISSING_CHANCE:
            return None
        found = kept[-1] if random.random() < 0.6 else random.choice(kept)
        return found[: random.randrange(len(found))] if random.random() < UNREADABLE_CHANCE else found
