"""`kill -9` of the dispatchers while one agent floods the stream of reports: the reports of others are lost to nobody."""

import asyncio
from pathlib import Path

import pytest

from taskyard.chaos.connecting import as_admin, as_service, over_http
from taskyard.chaos.gathering import read_log
from taskyard.chaos.hostile import SteadyLoad, _Flooder
from taskyard.chaos.system import System, instances_of
from taskyard.judge.evidence import Evidence
from taskyard.judge.verdict import judge

RATE, SECONDS = 50.0, 4.0
ENDED_SECONDS_MAX = 40.0


@pytest.mark.slow
@pytest.mark.timeout(110)
def test_a_dispatcher_that_is_killed_in_a_flood_of_reports_loses_nothing_of_others_and_all_ends_once(
    tmp_path: Path,
) -> None:
    system = System(tmp_path / "system")
    try:
        system.start()
        sent, flooded = asyncio.run(flooded_and_killed(system))
    finally:
        system.stop()
    assert len(sent) > RATE * SECONDS and flooded > 10_000


async def flooded_and_killed(system: System) -> tuple[list[str], int]:
    """Send, flood and kill each instance; the tasks that were sent have all ended once."""
    connection = system.connection
    async with (
        as_service(system.services) as control,
        over_http(connection.admin_token) as http,
        as_admin(connection) as door,
    ):
        load = SteadyLoad(http, door, system.http_urls)
        flooder = await _Flooder.begin("garbage reports", system)
        for process in instances_of("dispatcher"):
            sending = asyncio.create_task(load.run(RATE, SECONDS))
            await asyncio.sleep(SECONDS / 2)
            pid = system.kill(process)
            await asyncio.to_thread(system.restarted, process, pid)
            await sending
        await load.settle()
        flooded, _ = await flooder.end()
        assert load.refused == 0
        async with asyncio.timeout(ENDED_SECONDS_MAX):
            while True:
                verdict = judge(Evidence(log=await read_log(control, system.services.partition), is_over=False))
                ends = {task: verdict.types.get(task, []).count("AttemptSucceeded") for task in load.sent}
                if all(ends.values()):
                    break
                await asyncio.sleep(0.5)
        assert set(ends.values()) == {1}
        assert not verdict.faults
        return load.sent, flooded
