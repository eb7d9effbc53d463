"""The world and the given/when/then helpers are beside the tests: they are no package."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent / "world"), str(Path(__file__).parent)]
