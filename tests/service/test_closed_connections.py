"""A service whose connection the server has closed for good ends, instead of living on deaf: it is started again."""

import asyncio
from pathlib import Path

import pytest
from real_servers import nats_running, service_settings

from taskyard.eventlog.errors import LogUnavailable
from taskyard.service import ended_when_closed, linked

SECONDS_MAX = 10.0


@pytest.mark.parametrize("account", ["control_client", "fleet_client"])
def test_a_service_on_which_the_server_hangs_up_for_good_ends_and_says_why(tmp_path: Path, account: str) -> None:
    async def live() -> None:
        async with asyncio.timeout(SECONDS_MAX), linked("api", service_settings(server, postgres_dsn="")) as links:
            client = getattr(links, account)
            # With its header longer than the server takes a message: nats-py counts the body only.
            await client.publish("x", bytes(client.max_payload), headers={"a": "b"})
            await asyncio.Event().wait()

    with nats_running(tmp_path) as server, pytest.raises(LogUnavailable, match="maximum payload"):
        asyncio.run(live())


def test_what_ends_by_itself_or_in_time_is_not_taken_for_a_closed_connection() -> None:
    async def live() -> None:
        with pytest.raises(TimeoutError):
            async with ended_when_closed(), asyncio.timeout(0):
                await asyncio.Event().wait()
        async with ended_when_closed():
            pass
        await asyncio.sleep(0)  # what watched has its turn to end
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(live())
