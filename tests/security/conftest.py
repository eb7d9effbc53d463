"""The world is beside the tests: they are no package. Those of the whole system are driven as the scenarios are."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "scenarios"))
