"""A system as an outside program finds it: services in one process, driven by HTTP and NATS and nothing of ours."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "scenarios"))

from system import System, running


@pytest.fixture(scope="package")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with one worker of three slots."""
    with running(tmp_path_factory.mktemp("yard"), arguments=()) as system:
        assert system.http.post("/pools/nobody/configure", json={}).status_code == 202
        yield system


@pytest.fixture(autouse=True)
def _gates_open(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test nothing waits at a gate any more."""
    yield
    if "yard" in request.fixturenames:
        system: System = request.getfixturevalue("yard")
        while system.gates:
            system.gates.pop().open()
