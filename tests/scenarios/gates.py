"""A gate that tasks wait at until the scenario opens it, so that nothing depends on how long something takes.

It is a named pipe: whoever reads it waits until nobody can write to it any more. A shell waits by `cat`, Terraform by
its function `file`. Opened, it is an empty file, so that who comes later passes at once and reads the same.
"""

import os
from pathlib import Path


class Gate:
    """A gate at `path`, closed at first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._writer: int | None = os.open(path, os.O_RDWR)

    @property
    def wait(self) -> str:
        """The shell command that waits here."""
        return f"cat {self.path}"

    def open(self) -> None:
        """Let everybody pass, from now on for ever."""
        if self._writer is None:
            return
        opened = self.path.with_suffix(".opened")
        opened.touch()
        opened.replace(self.path)
        os.close(self._writer)
        self._writer = None
