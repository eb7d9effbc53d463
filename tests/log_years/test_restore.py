"""A restored log is the one that was archived, in an empty server only, and whatever interrupts the restore."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import log_servers as logs
import pytest
from log_servers import (
    COMMITS,
    SPEC,
    STREAM,
    Server,
    archived,
    folded,
    make_log,
    restored,
)

from taskyard.cli.app import main
from taskyard.contracts.subjects import SNAPSHOTS_BUCKET, log_subject
from taskyard.eventlog import archiving
from taskyard.eventlog.answers import find_stream
from taskyard.eventlog.archive import Archive
from taskyard.eventlog.archive_stores import FolderStore
from taskyard.eventlog.archiving import Restored, restore_log
from taskyard.eventlog.copying import LogCopy
from taskyard.eventlog.errors import CopyRefused
from taskyard.eventlog.jetstream_api import publish, stream_info
from taskyard.eventlog.snapshots import JetStreamSnapshots, ensure_snapshots

pytestmark = pytest.mark.anyio

SEGMENT_COMMITS = 7


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "SEGMENT_COMMITS_MAX", SEGMENT_COMMITS)


async def test_a_restore_refuses_a_log_that_lives(server: Server, tmp_path: Path) -> None:
    async with server.connected() as nc:
        await make_log(nc)
    await archived(server, tmp_path / "archive")
    with pytest.raises(CopyRefused, match="is not empty"):
        await restored(server, tmp_path / "archive")
    async with server.connected() as nc:
        await publish(nc, log_subject("0", "dispatcher"), logs.next_commit("dispatcher"))
        with pytest.raises(CopyRefused, match="is not empty"):
            await restored(server, tmp_path / "archive")
        assert (await stream_info(nc, STREAM)).state.last_seq == COMMITS + 1


async def test_snapshots_of_the_log_that_was_there_before_are_gone_once_another_is_restored(
    server: Server, other: Server, tmp_path: Path
) -> None:
    """A service that began with one would go on from what never happened in the log that was restored."""
    async with server.connected() as nc:
        await make_log(nc)
    await archived(server, tmp_path / "archive")
    async with other.connected() as nc:
        await ensure_snapshots(nc, SNAPSHOTS_BUCKET)
        await JetStreamSnapshots(nc, SNAPSHOTS_BUCKET).save("scheduler", 1, COMMITS + 5, b"of another log")
        arguments = (
            "log",
            "restore",
            "--from",
            str(tmp_path / "archive"),
            "--config",
            str(other.settings_file(tmp_path)),
        )
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(main, arguments)
        assert not ended.value.code
        assert (await stream_info(nc, STREAM)).state.last_seq == COMMITS
        assert await find_stream(nc, SNAPSHOTS_BUCKET) is None
        # What was saved since is kept by a restore that finds nothing to do.
        await ensure_snapshots(nc, SNAPSHOTS_BUCKET)
        with pytest.raises(SystemExit):
            await asyncio.to_thread(main, arguments)
        assert await find_stream(nc, SNAPSHOTS_BUCKET) is not None


async def test_a_restore_that_was_stopped_goes_on(server: Server, other: Server, tmp_path: Path) -> None:
    async with server.connected() as nc:
        await make_log(nc)
    await archived(server, tmp_path / "archive")
    stopped_at = 3 * SEGMENT_COMMITS

    def stop(sequence: int, _last: int) -> None:
        if sequence >= stopped_at:
            raise KeyboardInterrupt

    async with other.connected() as nc:
        source = await Archive.open(FolderStore(tmp_path / "archive"))
        with pytest.raises(KeyboardInterrupt):
            await restore_log(source, LogCopy(nc, SPEC), stop)
        assert (await stream_info(nc, STREAM)).state.last_seq == stopped_at
    done = await restored(other, tmp_path / "archive")
    assert (done.commits, done.last) == (COMMITS - stopped_at, COMMITS)
    # Once more, and there is nothing to do.
    assert await restored(other, tmp_path / "archive") == Restored(first=1, last=COMMITS, commits=0, digest=done.digest)


async def test_an_archive_is_restored_while_the_server_restarts(server: Server, other: Server, tmp_path: Path) -> None:
    async with server.connected() as nc:
        await make_log(nc)
        original = await folded(nc)
    await archived(server, tmp_path / "archive")
    restarts: list[Awaitable[None]] = []

    def restart(sequence: int, _last: int) -> None:
        if sequence == 2 * SEGMENT_COMMITS:
            other.nats.kill()
            restarts.append(asyncio.create_task(asyncio.to_thread(other.nats.start)))

    async with other.connected() as nc:
        source = await Archive.open(FolderStore(tmp_path / "archive"))
        await restore_log(source, LogCopy(nc, SPEC), restart)
        await asyncio.gather(*restarts)
        assert len(restarts) == 1 and await folded(nc) == original
