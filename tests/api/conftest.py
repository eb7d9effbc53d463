"""Shared by the tests of the api: its fakes are importable from anywhere below."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
