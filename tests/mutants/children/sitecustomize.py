"""Imported by every Python that a test starts while a mutant is tried: the program is changed as its test is."""

import os
import sys
from pathlib import Path

if name := os.environ.get("MUTANT"):
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from planter import plant
    from table import MUTANTS

    plant(next(mutant for mutant in MUTANTS if mutant.name == name))
