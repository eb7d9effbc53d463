"""Each rule that a mutant breaks is held by a test: run by name, it fails, and nothing else is broken by the change.

`.venv/bin/python tests/mutants/planting.py [NAME…]` does the same for one or all, and shows what the tests said.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from planter import ROOT, Mutant
from table import MUTANTS

SECONDS_MAX = 360


def test_mutants_have_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_what_a_mutant_changes_is_there_once(mutant: Mutant) -> None:
    assert mutant.changed()


@pytest.mark.slow
@pytest.mark.timeout(SECONDS_MAX + 10)
def test_every_mutant_is_killed_by_the_tests_that_it_names() -> None:
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("planting.py"))],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len([line for line in ran.stdout.splitlines() if line.startswith("killed ")]) == len(MUTANTS)
