"""Where a task may work: below the folders that the agent's settings name, wherever links lead."""

from collections.abc import Sequence
from pathlib import Path


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
