"""A whole system as an outside program finds it, begun with few open files allowed, and raw sockets to attack it with."""

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "scenarios"))
sys.path.insert(0, str(Path(__file__).parents[2] / "api"))

from raw_http import Target
from system import System, running

FILES_AT_START = 512


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="package")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with one worker. Its shell allowed fewer open files than the connections that it is to hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_AT_START, hard))
    try:
        context = running(tmp_path_factory.mktemp("yard"), arguments=())
        system = context.__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        yield system
    finally:
        context.__exit__(None, None, None)


@pytest.fixture(scope="package")
def target(yard: System) -> Target:
    return Target(yard.connection["http_url"], yard.connection["admin_token"])
