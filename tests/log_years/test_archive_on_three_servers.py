"""A log that is kept three times is archived, mirrored, verified, restored and exchanged while its leaders are killed."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from log_servers import CODEC, SPEC, STREAM, Server, no_progress, open_log
from nats.aio.client import Client

from taskyard.cli import log_files, log_reading
from taskyard.contracts.events import DECIDERS
from taskyard.contracts.subjects import LEASES_BUCKET, log_subject
from taskyard.contracts.values import Instant
from taskyard.embedded.nats_cluster import NatsCluster
from taskyard.embedded.nats_users import CONTROL_KEEPER
from taskyard.eventlog import archiving
from taskyard.eventlog.answers import state_of
from taskyard.eventlog.archive import Archive
from taskyard.eventlog.archive_stores import FolderStore
from taskyard.eventlog.archiving import archive_log, mirror_log, restore_log
from taskyard.eventlog.commit import Commit, hash_commit
from taskyard.eventlog.copying import LogCopy, LogDigest
from taskyard.eventlog.generation import close_generation, exchange, read_marker, require_nobody_leads
from taskyard.eventlog.jetstream_api import api_request
from taskyard.eventlog.leases import ensure_leases
from taskyard.eventlog.log import StreamMessage

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(180)]

COMMITS = 3_000
LAST = COMMITS + len(DECIDERS)
SEGMENT_COMMITS = 250
REPLICAS = 3
BEGAN = 1_795_000_000_000_000
WHOLE_SECONDS_MAX = 60.0


class Trio:
    """Three servers, and a connection that outlasts any one of them."""

    def __init__(self, cluster: NatsCluster, nc: Client) -> None:
        self.cluster = cluster
        self.nc = nc

    async def kill_leader(self) -> None:
        """Kill the server that leads the log; it is started again at once, and comes back empty-handed."""
        server = self.cluster.named((await self._log())["leader"])
        await asyncio.to_thread(server.kill)
        server.spawn()

    async def until_whole(self) -> None:
        """Wait until the log has a leader and two followers that have all that it has."""
        async with asyncio.timeout(WHOLE_SECONDS_MAX):
            while True:
                found = await self._log()
                if found.get("leader") and sum(bool(each.get("current")) for each in found.get("replicas", ())) == 2:
                    return
                await asyncio.sleep(0.05)

    async def _log(self) -> dict[str, Any]:
        try:
            return msgspec.json.decode(await api_request(self.nc, f"STREAM.INFO.{STREAM}"))["cluster"]
        except Exception:  # noqa: BLE001 - an election, or no stream
            return {}


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncIterator[Trio]:
    cluster = NatsCluster(tmp_path / "trio")
    await asyncio.to_thread(cluster.start)
    async with connected(cluster) as nc:
        yield Trio(cluster, nc)
    await asyncio.to_thread(cluster.stop)


@asynccontextmanager
async def connected(cluster: NatsCluster) -> AsyncIterator[Client]:
    async def ignore(_: Exception) -> None:
        """Servers are killed here."""

    nc = Client()
    await nc.connect(
        cluster.urls,
        user=CONTROL_KEEPER,
        password=cluster.password(CONTROL_KEEPER),
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,
        error_cb=ignore,
    )
    try:
        yield nc
    finally:
        await nc.close()


def a_log() -> list[StreamMessage]:
    """Commits of all writers by turns, chained as services chain them."""
    hashes = dict.fromkeys(DECIDERS, "")
    messages: list[StreamMessage] = []
    for number in range(COMMITS):
        writer = DECIDERS[number % len(DECIDERS)]
        at = Instant(BEGAN + number)
        commit = Commit[Any](writer=writer, instance="a" * 500, epoch=1, at=at, previous=hashes[writer])
        data = CODEC.encode(commit)
        hashes[writer] = hash_commit(data)
        messages.append(StreamMessage(sequence=number + 1, at=at, subject=log_subject("0", writer), data=data))
    return messages


async def digest(copy: LogCopy, last: int) -> str:
    return digest_of([message async for batch in copy.read(1, last) for message in batch])


def digest_of(messages: Sequence[StreamMessage]) -> str:
    found = LogDigest()
    found.add(messages)
    return str(found)


async def test_what_is_done_with_a_log_over_years_outlasts_the_leaders_of_its_stream(
    trio: Trio, other: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "SEGMENT_COMMITS_MAX", SEGMENT_COMMITS)
    nc, folder, messages = trio.nc, tmp_path / "archive", a_log()
    log = LogCopy(nc, SPEC, replicas=REPLICAS)
    await log.prepare(1)
    await log.store(messages)
    await ensure_leases(nc, LEASES_BUCKET, lease_seconds=3.0, replicas=REPLICAS)
    archive = await Archive.open(FolderStore(folder), "0")

    began = time.monotonic()
    await trio.kill_leader()
    async with other.connected() as nc2:
        mirror = LogCopy(nc2, SPEC)
        mirrored, found, generation = await asyncio.gather(
            mirror_log(nc, STREAM, mirror, no_progress, last=COMMITS),
            log_reading.verify(nc, "0", no_progress),
            closed_and_archived(nc, archive),
        )
        assert (mirrored, found.found, archive.last) == (COMMITS, 0, LAST)
        assert await digest(mirror, COMMITS) == digest_of(messages)
    told("archived, mirrored and verified", began)

    began = time.monotonic()
    # The settings of who does it may name one server only; the log is kept as often as it was.
    await exchange(nc, SPEC, archive, generation, no_progress, replicas=1)
    state = await state_of(nc, STREAM)
    assert (state.first_seq, state.last_seq) == (COMMITS + 1, LAST)
    await trio.until_whole()
    whole = open_log(nc, archive=str(folder))
    assert [stored.sequence async for stored in whole.read(1, LAST)] == list(range(1, LAST + 1))
    assert (await log_files.verify(str(folder), no_progress)).found == 0
    told("a next generation was made", began)

    began = time.monotonic()
    await api_request(nc, f"STREAM.DELETE.{STREAM}")
    kills: list[asyncio.Task[None]] = []

    def kill_in_the_middle(sequence: int, _last: int) -> None:
        if sequence == COMMITS // 2:
            kills.append(asyncio.create_task(trio.kill_leader()))

    restored = await restore_log(archive, log, kill_in_the_middle)
    await asyncio.gather(*kills)
    assert (restored.first, restored.last, restored.commits) == (1, LAST, LAST) and len(kills) == 1
    assert await digest(log, COMMITS) == digest_of(messages)
    told("restored", began)


async def closed_and_archived(nc: Client, archive: Archive) -> int:
    """Do what comes before the exchange; where the next generation begins."""
    assert await read_marker(nc, STREAM) is None
    await require_nobody_leads(nc, LEASES_BUCKET)
    first = await close_generation(open_log(nc), CODEC, Instant(0))
    await archive_log(nc, STREAM, archive, no_progress)
    return first


def told(what: str, began: float) -> None:
    """Say how long something took, to whoever reads along."""
    print(f"{what} in {time.monotonic() - began:.1f} s")
