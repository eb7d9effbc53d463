"""Runs tests against changed code: a mutant is a file in which one piece of text stands instead of another.

Nothing on disk changes. The file is changed while it is imported, in a process of its own that is forked for each mutant
from one in which the tools are imported already, and nothing of Taskyard.
"""

import contextlib
import importlib.machinery
import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KILLED, SURVIVED = 1, 0
"""What pytest returns where a test failed, and where all passed."""


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


def run(mutant: Mutant) -> tuple[int, str]:
    """Run the killers of a mutant in a process of its own: what pytest returned, and what it printed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        status = 70
        try:
            status = _run_here(mutant, writing)
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as told:
        text = told.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def _run_here(mutant: Mutant, writing: int) -> int:
    sys.meta_path.insert(0, _Planter(mutant))  # type: ignore[arg-type]
    os.chdir(ROOT)
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        status = int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *mutant.killers]))
    with os.fdopen(writing, "w", encoding="utf-8") as out:
        out.write(told.getvalue())
    return status


def main(names: Sequence[str]) -> int:
    """Run these mutants, or all: a line for each; 1 if one survived or broke more than its rule."""
    from table import MUTANTS

    wrong = 0
    for mutant in MUTANTS:
        if names and mutant.name not in names:
            continue
        status, text = run(mutant)
        became = {KILLED: "killed", SURVIVED: "SURVIVED"}.get(status, f"could not be tried ({status})")
        print(f"{became:<10} {mutant.name}", flush=True)
        if status != KILLED:
            wrong = 1
            print(text, flush=True)
    return wrong


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main(sys.argv[1:]))
