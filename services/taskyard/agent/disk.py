"""The disk of the agent's folder: a reserve for the journal, and whether there is room for new work."""

import os
import threading
from contextlib import suppress
from pathlib import Path

from taskyard.private_files import open_private, own_folder

RESERVE_BYTES = 4 << 20
"""Kept as a file and given back when the journal finds the disk full: ends of what runs must be written."""
LOW_BYTES = 8 << 20
"""With less free than that nothing new begins."""


class Disk:
    """The disk that `directory` is on. `release` may be called from any thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._reserve = directory / "reserve"
        self._lock = threading.Lock()
        self._is_reserved = False
        self.is_full = False
        with suppress(OSError):  # a folder that cannot be used is told of by the journal
            own_folder(directory)
            self._is_reserved = self._reserve.exists() and self._reserve.stat().st_blocks * 512 >= RESERVE_BYTES
            if self.free_bytes() < RESERVE_BYTES:
                self.release()  # the journal is opened next, which writes
            self.check()

    def free_bytes(self) -> int:
        """What is free for us."""
        found = os.statvfs(self._directory)
        return found.f_bavail * found.f_frsize

    def release(self) -> None:
        """The disk is full: give the reserve back, for the journal to go on."""
        with self._lock:
            self.is_full = True
            self._is_reserved = False
            with suppress(OSError):  # the journal, which calls this, tells what is wrong with the disk
                self._reserve.unlink(missing_ok=True)

    def check(self) -> None:
        """Look how much room there is; keep a reserve again where it was given back and there is."""
        with self._lock:
            free = self.free_bytes()
            if not self._is_reserved and free >= RESERVE_BYTES + LOW_BYTES:
                self._is_reserved = self._make_reserve()
            self.is_full = not self._is_reserved or self.free_bytes() < LOW_BYTES

    def _make_reserve(self) -> bool:
        try:
            descriptor = open_private(self._reserve, os.O_WRONLY)
        except OSError:
            return False
        try:
            os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True
