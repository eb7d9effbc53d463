"""Begins a machine's fold with a snapshot, and saves one from time to time. A snapshot only saves time: none is waited for."""

import asyncio
import time
from typing import Any

import msgspec
import structlog
from msgspec import Raw, Struct

from taskyard.eventlog.snapshots import SnapshotStore
from taskyard.machine.core import LoopCore, SavedLoop

SNAPSHOT_EVENTS = 200_000
"""Events folded since the last snapshot after which a leader saves one: to fold so many takes about a second."""
SNAPSHOT_ON_STOP_EVENTS = 1_000


class Snapshot(Struct, frozen=True):
    """The stored form: the loop's own part and the machine's."""

    loop: SavedLoop
    machine: Raw


class SnapshotKeeper:
    """Snapshots of one machine. `saved` counts those that this instance has saved."""

    def __init__(self, core: LoopCore[Any, Any], store: SnapshotStore) -> None:
        self.saved = 0
        self._core = core
        self._store = store
        self._saved_events = 0
        self._is_there = False
        self._saving: asyncio.Task[None] | None = None
        self._logger = structlog.get_logger(service=core.machine.writer, instance=core.instance)

    async def recover(self) -> None:
        """Restore the newest snapshot that can be read; without one the fold begins at the first commit.

        Raises:
            LogUnavailable: the store did not answer in time.
        """
        machine = self._core.machine
        below: int | None = None
        while (found := await self._store.load(machine.writer, machine.snapshot_version, below=below)) is not None:
            below, data = found
            try:
                snapshot = msgspec.json.decode(data, type=Snapshot)
                machine.restore(bytes(snapshot.machine))
            except Exception:  # whatever is wrong with it: an older one, or the log, has it all
                self._logger.warning("skipped an unreadable snapshot", sequence=below, exc_info=True)
            else:
                self._core.restore(snapshot.loop, time.monotonic())
                self._is_there = True
                return

    def save_if_due(self, events: int = SNAPSHOT_EVENTS) -> None:
        """Begin to save the state as it is now, if so many events were folded since the last time."""
        if self._core.events_folded - self._saved_events < events or self._saving is not None:
            return
        self._saved_events = self._core.events_folded
        try:
            loop, machine = msgspec.json.encode(self._core.saved()), self._core.machine.snapshot()
        except Exception:  # the log has it all; it is tried again when as much has been folded once more
            self._logger.warning("a snapshot could not be made", exc_info=True)
            return
        data = b"".join((b'{"loop":', loop, b',"machine":', machine, b"}"))
        self._saving = asyncio.create_task(self._save(self._core.folded, data))

    async def save_last(self) -> None:
        """Save what was folded, before the end. May take as long as the store does.

        The first one is saved however short: who begins with one never asks for the beginning of the log, which may lie
        in an archive by then.
        """
        await self._until_saved()
        self.save_if_due(SNAPSHOT_ON_STOP_EVENTS if self._is_there or self.saved else 1)
        await self._until_saved()

    async def close(self) -> None:
        """Give up what is being saved."""
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.gather(self._saving, return_exceptions=True)

    async def _save(self, sequence: int, data: bytes) -> None:
        machine = self._core.machine
        try:
            await self._store.save(machine.writer, machine.snapshot_version, sequence, data)
        except Exception:  # without it the next start takes longer, and no more
            self._logger.warning("a snapshot was not saved", exc_info=True)
        else:
            self.saved += 1
        finally:
            self._saving = None

    async def _until_saved(self) -> None:
        if self._saving is not None:
            await self._saving
