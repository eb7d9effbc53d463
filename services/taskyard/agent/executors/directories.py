"""Folders of tasks: which of the host's they may work in, and the agent's own that theirs lie in."""

from collections.abc import Sequence
from pathlib import Path

from taskyard.private_files import make_folder


class Roots:
    """The folders that directories of tasks must lie below, or be."""

    def __init__(self, roots: Sequence[str]) -> None:
        self._roots = [Path(one) for one in roots]

    def find(self, directory: str) -> Path | None:
        """The directory itself, without any link on its way; None where it does not lie below a root."""
        found = Path(directory).resolve()
        return found if any(found.is_relative_to(root.resolve()) for root in self._roots) else None

    def __str__(self) -> str:
        return ", ".join(map(str, self._roots)) or "none"


def make_passable(folder: Path) -> None:
    """Make a folder of ours that users of tasks may walk through to what is theirs, where they may through the one above."""
    make_folder(folder)
    folder.chmod(0o700 | folder.parent.stat().st_mode & 0o011)
