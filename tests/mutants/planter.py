"""A mutant, and how it is planted: its file is changed while it is imported. Nothing on disk changes."""

import importlib.machinery
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A rule that is broken: in `file`, `new` stands for the one `old`. `killers` are the tests that must not pass."""

    name: str
    file: str
    old: str
    new: str
    killers: tuple[str, ...]

    def changed(self) -> str:
        """The text of the file with the change in it."""
        text = (ROOT / self.file).read_text(encoding="utf-8")
        assert text.count(self.old) == 1, f"{self.name}: {self.file} has {text.count(self.old)} times {self.old!r}"
        return text.replace(self.old, self.new)


class _Planter(importlib.machinery.PathFinder):
    """Finds modules as ever, and gives the changed text for one file."""

    def __init__(self, mutant: Mutant) -> None:
        self._path = str(ROOT / mutant.file)
        self._text = mutant.changed()

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:  # type: ignore[override]
        """Called by the import system."""
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin == self._path:
            spec.loader = _Changed(fullname, self._path, self._text)
        return spec


class _Changed(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, text: str) -> None:
        super().__init__(fullname, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        return compile(self._text, self.path, "exec", dont_inherit=True)


def plant(mutant: Mutant) -> None:
    """From now on the file of a mutant is imported with the change in it."""
    sys.meta_path.insert(0, _Planter(mutant))
