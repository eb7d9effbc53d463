"""Two systems that scenarios share: one that stays whole, and one whose parts they freeze, kill and restart.

After each scenario nothing of it is left: no live task and no slot that is not idle.
"""

import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from log_checks import check
from system import System, running

SHARED = ("system", "pair")
SOON_LOST = {"TASKYARD_SUSPECT_SECONDS": "3", "TASKYARD_WORKER_LOST_SECONDS": "6"}
"""A silent worker is lost earlier than usual, so that scenarios need not wait for half a minute."""

WITHOUT_WORKERS = ("nobody", "nobody-here")
"""Pools that somebody has made and nobody works for."""

_failed = pytest.StashKey[bool]()


@pytest.fixture(scope="package")
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with one worker of three slots."""
    with running(tmp_path_factory.mktemp("system")) as running_system:
        for pool in WITHOUT_WORKERS:
            assert running_system.http.post(f"/pools/{pool}/configure", json={}).status_code == 202
        yield running_system
        _check_log(request, running_system)


@pytest.fixture(scope="package")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with two workers, whose parts may be broken as long as they are whole again afterwards."""
    with running(tmp_path_factory.mktemp("pair"), workers=2, environment=SOON_LOST) as running_system:
        yield running_system
        _check_log(request, running_system)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note which scenarios fail: what they leave has to be cleared away."""
    report = yield
    item.stash[_failed] = item.stash.get(_failed, False) or report.failed
    return report


@pytest.fixture(autouse=True)
def _idle(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each scenario on a shared system nothing is left."""
    with ExitStack() as leaving:
        for name in SHARED:
            if name in request.fixturenames:
                leaving.callback(_leave, request, request.getfixturevalue(name))
        yield


def _check_log(request: pytest.FixtureRequest, system: System) -> None:
    """What must be true of every run: no apply without a confirmation before it, no slot with two tasks, and so on."""
    if not request.session.testsfailed:
        check(system.data, system.http)


def _leave(request: pytest.FixtureRequest, system: System) -> None:
    while system.gates:
        system.gates.pop().open()
    if request.node.stash.get(_failed, False):
        for task in system.live():
            system.act(task["id"], "force-stop", reason="the scenario failed")
    system.until(lambda: not system.live(), lambda: f"every task has ended: {system.live()}")
    system.at_rest()
