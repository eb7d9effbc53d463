"""What is so for all tests: what several folders share can be imported, and what they start ends with them."""

import gc
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from guarding import guard_what_is_started
from sharing_out import pytest_collection_modifyitems, pytest_xdist_make_scheduler
from signals import pass_on_no_ignored_signals

__all__ = ["pytest_collection_modifyitems", "pytest_xdist_make_scheduler"]

# Containers often forbid byte code. Each of the hundreds of programs that tests start would compile all of ours anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

pass_on_no_ignored_signals()
_guard = guard_what_is_started()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Put aside what is imported and collected: it lives to the end, and no collection need look through it again."""
    gc.collect()
    gc.freeze()
