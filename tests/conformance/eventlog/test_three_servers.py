"""Three servers that keep every stream three times: what is made and appended survives the one that leads."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from taskyard.contracts.subjects import streams
from taskyard.embedded.nats_cluster import NatsCluster
from taskyard.embedded.nats_users import CONTROL_KEEPER
from taskyard.eventlog.jetstream import JetStreamInput, JetStreamLog
from taskyard.eventlog.jetstream_api import stream_info
from taskyard.eventlog.leases import JetStreamLease, ensure_leases
from taskyard.eventlog.snapshots import JetStreamSnapshots, ensure_snapshots
from taskyard.eventlog.streams import ensure_streams

pytestmark = pytest.mark.anyio

SECONDS_MAX = 60.0
LOG, COMMANDS = "TASKYARD_LOG_0", "TASKYARD_COMMANDS"
APPENDS = 60


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[NatsCluster]:
    """Servers that are just starting: nobody has waited for them."""
    cluster = NatsCluster(tmp_path)
    for server in cluster.servers:
        server.spawn()
    yield cluster
    await asyncio.to_thread(cluster.stop)


@pytest.fixture
async def nc(cluster: NatsCluster) -> AsyncIterator[Client]:
    async def ignore(_: Exception) -> None:
        """Servers start and are killed here."""

    client = Client()
    async with asyncio.timeout(SECONDS_MAX):
        await client.connect(
            cluster.urls,
            user=CONTROL_KEEPER,
            password=cluster.password(CONTROL_KEEPER),
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,
            error_cb=ignore,
        )
    yield client
    await client.close()


async def leader_of(nc: Client, stream: str) -> str:
    answer = await nc.jetstream().stream_info(stream)
    assert answer.cluster and answer.cluster.leader
    return answer.cluster.leader


async def test_appends_go_on_behind_a_leader_that_is_killed_and_none_is_stored_twice(cluster, nc, kit):
    specs = [spec for spec in streams() if spec.account == "control"]
    for replicas in (1, 3):  # also those that were made for one server
        await ensure_streams({"control": nc}, specs, replicas=replicas)
        await ensure_leases(nc, "leases", lease_seconds=60, replicas=replicas)
        await ensure_snapshots(nc, "snapshots", replicas=replicas)
    for stream in (LOG, COMMANDS, "KV_leases", "snapshots"):
        assert (await stream_info(nc, stream)).config["num_replicas"] == 3
    await kit.until_whole(nc, (LOG, COMMANDS, "KV_leases", "snapshots"))
    made = await JetStreamInput(nc, COMMANDS).cursor_name()
    lease = JetStreamLease(nc, "leases", "w")
    assert await lease.try_acquire("one")
    await JetStreamSnapshots(nc, "snapshots").save("w", 1, 7, b"state")
    log = JetStreamLog(nc, LOG, "taskyard.log.0", kit.codec)

    sequence = 0
    async with asyncio.timeout(SECONDS_MAX):
        for number in range(APPENDS):
            if number == APPENDS // 3:
                cluster.named(await leader_of(nc, LOG)).kill()
            data = kit.make_commit("w", kit.Opened(str(number)))
            sequence = await log.append(data, writer="w", expected=sequence)
            assert sequence == number + 1

    async with asyncio.timeout(SECONDS_MAX):
        found = [stored async for stored in log.read(1, APPENDS)]
        assert [stored.commit.events[0].door for stored in found] == [str(number) for number in range(APPENDS)]
        assert await JetStreamInput(nc, COMMANDS).cursor_name() == made
        assert await JetStreamSnapshots(nc, "snapshots").load("w", 1) == (7, b"state")
        while not await JetStreamLease(nc, "leases", "w").try_acquire("one"):
            await asyncio.sleep(0.05)
        assert not await JetStreamLease(nc, "leases", "w").try_acquire("two")
        # A service that starts now finds what it needs.
        await ensure_streams({"control": nc}, specs, replicas=3)
