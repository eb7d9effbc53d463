"""One system that the scenarios share; those that break it start their own."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from system import System, running


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with one worker of three slots."""
    with running(tmp_path_factory.mktemp("system")) as running_system:
        yield running_system


@pytest.fixture(autouse=True)
def _idle(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each scenario on the shared system nothing is left."""
    yield
    if "system" in request.fixturenames:
        request.getfixturevalue("system").all_idle()
