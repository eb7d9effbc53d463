"""The golden histories and what folds them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
