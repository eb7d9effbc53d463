"""The mark of a journal: how many commits it has seen, in a file of its own.

A journal that was put back to what it was before, from a backup or by a disk that lost its end, has seen fewer than its
mark tells. The mark need not survive a loss of power, and so costs no flush: one that is behind proves nothing.
"""

import os
from contextlib import suppress
from pathlib import Path

from taskyard.private_files import open_private

_WIDTH = 20


def confirms(mark: bytes, commits: int) -> bool:
    """Whether a journal with so many commits may be the one whose mark this is. A new one always may."""
    if not commits:
        return True
    found = mark.strip()
    return found.isdigit() and int(found) <= commits


class Mark:
    """The mark in `file`."""

    def __init__(self, file: Path) -> None:
        self._descriptor = open_private(file, os.O_RDWR)

    def confirms(self, commits: int) -> bool:
        """Whether a journal with so many commits may be the one that was marked last."""
        return confirms(os.pread(self._descriptor, _WIDTH, 0), commits)

    def write(self, commits: int) -> None:
        """The journal has so many commits. Where that cannot be written the mark stays behind."""
        with suppress(OSError):
            os.pwrite(self._descriptor, str(commits).rjust(_WIDTH).encode(), 0)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)
