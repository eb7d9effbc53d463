"""Disks of their own, which can be made full: a file system in memory for each part of the system that is to have one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taskyard.chaos.errors import NotBroken
from taskyard.private_files import make_folder, write_private

RESIZE_TRIES_MAX = 10
ROOM_BYTES = 128 << 10
"""A full disk has so much room left, which is used up within a second."""
PROBE_BYTES = 1 << 20
DISK_BYTES = "64g"
"""The size of a disk while it is not full; memory is taken only for what is stored."""


def why_no_disks() -> str | None:
    """Why no disk can be made here; None where one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "mounting a small disk needs root on Linux"
    return None


class OwnDisk:
    """A folder that is a disk of its own, from `mount` to `unmount`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def mount(self) -> str | None:
        """Make it; why that is not possible, if it is not."""
        make_folder(self._folder)
        return _mount("-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "taskyard-chaos", str(self._folder))

    def unmount(self, *, is_kept: bool) -> None:
        """Take it away; what is on it is put in its place if it `is_kept`. Nothing may run on it any more."""
        kept = self._folder.with_name(f"{self._folder.name}.kept")
        if is_kept:
            shutil.copytree(self._folder, kept, ignore=_sockets)
        subprocess.run(["umount", "--lazy", str(self._folder)], check=False, capture_output=True)
        if is_kept:
            kept.rename(self._folder)

    @contextmanager
    def full(self) -> Iterator[None]:
        """It has next to no room for as long as the block lasts. Raises `NotBroken`."""
        tries = (self._shrink() for _ in range(RESIZE_TRIES_MAX))
        if all(failure is not None for failure in tries):
            raise NotBroken(f"{self._folder} could not be made full: {self._shrink()}")
        try:
            if self._has_room():
                raise NotBroken(f"{self._folder} takes {PROBE_BYTES} bytes although it should be full")
            yield
        finally:
            _mount("-o", f"remount,size={DISK_BYTES}", str(self._folder))

    def _shrink(self) -> str | None:
        """Make it as large as it is full, unless it has grown meanwhile; what the system said to that."""
        found = os.statvfs(self._folder)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        return _mount("-o", f"remount,size={used + ROOM_BYTES}", str(self._folder))

    def _has_room(self) -> bool:
        probe = self._folder / "probe"
        try:
            write_private(probe, bytes(PROBE_BYTES))
        except OSError:
            return False
        finally:
            probe.unlink(missing_ok=True)
        return True


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_socket()]


def _mount(*arguments: str) -> str | None:
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr.strip() or f"mount ended with {done.returncode}"
