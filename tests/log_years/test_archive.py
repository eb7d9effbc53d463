"""Archives: incremental, verified, resumed after whatever interrupts them; restored, they are the log that they were."""

import asyncio
import gzip
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from log_servers import (
    HISTORY,
    SPEC,
    STREAM,
    Server,
    append,
    folded,
    make_log,
    next_commit,
    no_progress,
    open_log,
    raw_commits,
)

from taskyard.cli import log_files
from taskyard.cli.errors import Broken, WrongUsage
from taskyard.contracts.subjects import log_subject
from taskyard.contracts.values import Instant
from taskyard.eventlog import archiving
from taskyard.eventlog.archive import MANIFEST, Archive
from taskyard.eventlog.archive_stores import FolderStore
from taskyard.eventlog.archiving import Archived, Restored, archive_log, restore_log
from taskyard.eventlog.commit import Commit
from taskyard.eventlog.copying import LogCopy
from taskyard.eventlog.errors import ArchiveDamaged, ArchiveMismatch, ArchiveUnreachable, CopyRefused
from taskyard.eventlog.jetstream_api import publish, stream_info

pytestmark = pytest.mark.anyio

COMMITS = len(raw_commits())
SEGMENT_COMMITS = 7


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "SEGMENT_COMMITS_MAX", SEGMENT_COMMITS)


async def archived(server: Server, folder: Path) -> Archived:
    async with server.connected() as nc:
        return await archive_log(nc, STREAM, await Archive.open(FolderStore(folder), "0"), no_progress)


async def restored(server: Server, folder: Path) -> Restored:
    async with server.connected() as nc:
        return await restore_log(await Archive.open(FolderStore(folder)), LogCopy(nc, SPEC), no_progress)


async def test_a_restored_log_means_what_the_original_means_and_goes_on(
    server: Server, other: Server, tmp_path: Path
) -> None:
    async with server.connected() as nc:
        await make_log(nc)
        original = await folded(nc)
    done = await archived(server, tmp_path / "archive")
    assert (done.commits, done.last, done.segments) == (COMMITS, COMMITS, -(-COMMITS // SEGMENT_COMMITS))
    copied = await restored(other, tmp_path / "archive")
    assert (copied.first, copied.last, copied.commits) == (1, COMMITS, COMMITS)
    async with other.connected() as nc:
        # State, rows and times are the same, although the other server stored it all later.
        assert await folded(nc) == original
        log = open_log(nc)
        last = await log.last("scheduler")
        assert last is not None and last.at == original["times"][last.sequence - 1]
        # The fence and the hash chain go on where they were.
        epoch = Commit(writer="scheduler", instance="b", epoch=9, at=Instant(0), previous=last.hash)
        data = msgspec.json.encode(epoch)
        assert await log.append(data, writer="scheduler", expected=last.sequence) == COMMITS + 1
        times = (await folded(nc))["times"]
        assert times[:-1] == original["times"] and times[-1] > times[-2]


async def test_the_next_run_adds_only_what_is_new(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with server.connected() as nc:
        await make_log(nc)
        await archived(server, folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}
        assert (await archived(server, folder)).commits == 0
        await publish(nc, log_subject("0", "dispatcher"), next_commit("dispatcher"))
    assert await archived(server, folder) == Archived(
        commits=1, segments=1, bytes=_size_of_last(folder), last=COMMITS + 1
    )
    # Segments are never written again.
    assert before.items() <= {path.name: path.read_bytes() for path in folder.iterdir()}.items()
    found = await log_files.verify(str(folder), no_progress)
    assert (found.found, found.commits) == (0, COMMITS + 1)


class _Dies(FolderStore):
    """A folder that is lost after so many steps of writing, each of which may be half done."""

    def __init__(self, folder: Path, steps: int) -> None:
        super().__init__(folder)
        self._folder_there = folder
        self._steps = steps

    async def write(self, name: str, data: bytes) -> None:
        if self._steps == 0:
            self._folder_there.mkdir(exist_ok=True)
            (self._folder_there / f"{name}.partial").write_bytes(data[: len(data) // 2])
            raise ArchiveUnreachable("killed")
        self._steps -= 1
        await super().write(name, data)


@pytest.mark.parametrize("steps", range(5))
async def test_a_run_that_dies_at_any_step_is_gone_on_with(server: Server, tmp_path: Path, steps: int) -> None:
    folder = tmp_path / "archive"
    async with server.connected() as nc:
        await make_log(nc)
        with pytest.raises(ArchiveUnreachable):
            await archive_log(nc, STREAM, await Archive.open(_Dies(folder, steps), "0"), no_progress)
    done = await archived(server, folder)
    assert done.commits == COMMITS - steps // 2 * SEGMENT_COMMITS
    found = await log_files.verify(str(folder), no_progress)
    assert (found.found, found.commits) == (0, COMMITS)
    assert not list(folder.glob("*.partial"))


async def test_kill_9_of_the_command_leaves_an_archive_that_is_gone_on_with(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with server.connected() as nc:
        await make_log(nc)
    settings = server.settings_file(tmp_path)
    # A segment of one commit each, so that it is killed in the middle of many.
    program = (
        "import sys; import taskyard.eventlog.archiving as a; from taskyard.cli.app import main; "
        "a.SEGMENT_COMMITS_MAX = 1; main(sys.argv[1:])"
    )
    process = _start("-c", program, "log", "archive", "--to", str(folder), "--config", str(settings))
    async with asyncio.timeout(30):
        while not (folder / MANIFEST).exists() and process.poll() is None:
            await asyncio.sleep(0.005)
    process.kill()
    process.wait()
    known = (await Archive.open(FolderStore(folder))).last
    assert known >= 1
    assert (await archived(server, folder)).commits == COMMITS - known
    assert (await log_files.verify(str(folder), no_progress)).found == 0


async def test_what_is_no_json_is_archived_and_restored_byte_by_byte(
    server: Server, other: Server, tmp_path: Path
) -> None:
    odd = (b"no commit", b'{"writer":\n"x"}', b'  {"a": 1} ', b"\xff\x00", b'{"a":1}\r', b"")
    async with server.connected() as nc:
        await make_log(nc)
        for data in odd:
            await publish(nc, log_subject("0", "dispatcher"), data)
    await archived(server, tmp_path / "archive")
    await restored(other, tmp_path / "archive")
    async with other.connected() as nc:
        batches = [b async for b in LogCopy(nc, SPEC).read(COMMITS + 1, COMMITS + len(odd))]
    assert tuple(message.data for batch in batches for message in batch) == odd
    found = await log_files.verify(str(tmp_path / "archive"), no_progress)
    assert found.breaks[0].sequence == COMMITS + 1


def _alter(path: Path) -> None:
    lines = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(lines.replace(b'"epoch":1', b'"epoch":0', 1), mtime=0))


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (_alter, "another digest"),
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "another digest"),
    ],
)
async def test_a_damaged_segment_is_named_and_never_restored(
    server: Server, other: Server, tmp_path: Path, damage: Callable[[Path], None], what: str
) -> None:
    folder = tmp_path / "archive"
    async with server.connected() as nc:
        await make_log(nc)
    await archived(server, folder)
    second = sorted(folder.glob("*.gz"))[1]
    damage(second)
    with pytest.raises(Broken, match=f"behind commit {SEGMENT_COMMITS}: {second.name}: .*{what}"):
        await log_files.verify(str(folder), no_progress)
    with pytest.raises(ArchiveDamaged, match=second.name):
        await restored(other, folder)


async def test_a_manifest_of_a_later_format_and_a_folder_without_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match="is no archive"):
        await log_files.open_archive(str(tmp_path))
    (tmp_path / MANIFEST).write_text('{"format":2,"everything":"new"}')
    with pytest.raises(Broken, match="format 2 is not known here, only 1"):
        await log_files.open_archive(str(tmp_path))
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(Broken, match="is no manifest"):
        await log_files.open_archive(str(tmp_path))


async def test_the_archive_of_another_log_is_not_gone_on_with(server: Server, other: Server, tmp_path: Path) -> None:
    async with server.connected() as nc, other.connected() as nc2:
        await make_log(nc)
        await make_log(nc2, HISTORY.with_name("retries.taskyard.jsonl"))
        await append(nc2, HISTORY)
    await archived(server, tmp_path / "archive")
    with pytest.raises(ArchiveMismatch, match=f"commit {COMMITS} is another one"):
        await archived(other, tmp_path / "archive")
    with pytest.raises(ArchiveMismatch, match="partition 0, not of 1"):
        await Archive.open(FolderStore(tmp_path / "archive"), "1")


async def test_a_restore_refuses_a_log_that_lives(server: Server, tmp_path: Path) -> None:
    async with server.connected() as nc:
        await make_log(nc)
    await archived(server, tmp_path / "archive")
    with pytest.raises(CopyRefused, match="is not empty"):
        await restored(server, tmp_path / "archive")
    async with server.connected() as nc:
        await publish(nc, log_subject("0", "dispatcher"), next_commit("dispatcher"))
        with pytest.raises(CopyRefused, match="is not empty"):
            await restored(server, tmp_path / "archive")
        assert (await stream_info(nc, STREAM)).state.last_seq == COMMITS + 1


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


def _size_of_last(folder: Path) -> int:
    return max(folder.glob("*.gz")).stat().st_size


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
