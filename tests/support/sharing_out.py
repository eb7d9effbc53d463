"""How pytest-xdist shares the tests out to its workers where it is told `--dist loadfile`.

Files that use one running system go to one worker, which starts it once; and what takes longest begins first. Left to
itself pytest-xdist begins with the files that have the most tests, which are the quickest, and in the end one worker
waits for the other's longest file.
"""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

TOGETHER = {
    "tests/contract_client": frozenset[str](),
    "tests/ha": frozenset({"test_cluster"}),
    "tests/scenarios": frozenset({"test_kill_everything", "test_kill_processes", "test_nothing_left", "test_outage"}),
}
"""Folders whose files share a system, each with the files that start systems of their own instead."""

LONGEST_FIRST = (
    "tests/ha",
    "tests/simulation/test_seeds.py",  # early, since nothing else leaves so much of the machine to those that are timed
    "tests/scenarios",
    "tests/ha/test_cluster.py",
    "tests/chaos/test_chaos.py",
    "tests/chaos/test_hostile.py",
    "tests/fuzz/test_fuzz.py",
    "tests/security/http/test_before_a_token.py",
    "tests/scenarios/test_outage.py",
    "tests/scenarios/test_kill_processes.py",
    "tests/log_years/test_data_folder.py",
    "tests/embedded/test_dev.py",
    "tests/scenarios/test_kill_everything.py",
    "tests/contract_client",
    "tests/bench/test_recovery_and_soak.py",
    "tests/bench/test_bench.py",
    "tests/simulation/test_defects.py",
    "tests/log_years/test_archive.py",
    "tests/log_years/test_archive_on_three_servers.py",
    "tests/log_years/test_rolling_upgrade.py",
    "tests/state_projector/test_away.py",
    "tests/telemetry/test_system.py",
    "tests/conformance/loop/test_loop.py",
    "tests/conformance/eventlog/test_three_servers.py",
    "tests/agent/test_agent_work.py",
    "tests/agent/test_agent_restarts.py",
    "tests/agent/test_agent_terraform.py",
    "tests/machines/test_invariants.py",
)
"""What takes more than about ten seconds. What is not named comes last."""


def share_of(nodeid: str) -> str:
    """What goes to one worker: a file, or the files of a folder that share a system."""
    file = nodeid.partition("::")[0]
    folder, _, name = file.removesuffix(".py").rpartition("/")
    return folder if folder in TOGETHER and name not in TOGETHER[folder] else file


class SharingOut(LoadFileScheduling):
    """Gives shares out in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return share_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SharingOut | None:
    """Take the place of `loadfile`."""
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return SharingOut(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put what takes longest first, in a worker of pytest-xdist; elsewhere all stays in the order of the folders."""
    if hasattr(config, "workerinput"):
        ranks = {share: rank for rank, share in enumerate(LONGEST_FIRST)}
        items.sort(key=lambda item: ranks.get(share_of(item.nodeid), len(ranks)))
