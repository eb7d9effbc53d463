"""Runs tests against changed code: a mutant is a file in which one piece of text stands instead of another.

Nothing on disk changes. The file is changed while it is imported, in a process of its own that is forked for each mutant
from one in which the tools are imported already, and nothing of Taskyard. Programs that a test starts are changed too.
"""

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from planter import ROOT, Mutant, plant

CHILDREN = Path(__file__).parent / "children"
KILLED, SURVIVED = 1, 0
"""What pytest returns where a test failed, and where all passed."""


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
    plant(mutant)
    os.environ |= {"MUTANT": mutant.name, "PYTHONPATH": str(CHILDREN)}
    sys.path.insert(0, str(CHILDREN))  # whoever hands its own path on, hands this on too
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
