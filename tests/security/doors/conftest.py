"""A whole system as outside programs find it: who has credentials of their own, and sends through the doors what harms others."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scenarios"))

from system import System, running


@pytest.fixture(scope="package")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with one worker, whose services share one process and so one event loop."""
    with running(tmp_path_factory.mktemp("yard"), arguments=()) as system:
        yield system
