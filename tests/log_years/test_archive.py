"""Archives: incremental, verified, resumed after whatever interrupts them; restored, they are the log that they were."""

import asyncio
import gzip
from collections.abc import Callable
from pathlib import Path

import log_servers as logs
import msgspec
import pytest
from log_servers import (
    COMMITS,
    HISTORY,
    SPEC,
    STREAM,
    Server,
    append,
    archived,
    folded,
    make_log,
    no_progress,
    restored,
)

from taskyard.cli import log_files, log_reading
from taskyard.cli.errors import Broken, WrongUsage
from taskyard.contracts.subjects import log_subject
from taskyard.contracts.values import Instant
from taskyard.eventlog import archiving, copying
from taskyard.eventlog.archive import MANIFEST, Archive
from taskyard.eventlog.archive_stores import FolderStore
from taskyard.eventlog.archiving import Archived, archive_log
from taskyard.eventlog.commit import Commit
from taskyard.eventlog.copying import LogCopy
from taskyard.eventlog.errors import ArchiveDamaged, ArchiveMismatch, ArchiveUnreachable, LogGap
from taskyard.eventlog.jetstream_api import api_request, publish
from taskyard.eventlog.log import StreamMessage
from taskyard.eventlog.streams import stream_config

pytestmark = pytest.mark.anyio

SEGMENT_COMMITS = 7
DEADLINE_SECONDS = 60.0


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "SEGMENT_COMMITS_MAX", SEGMENT_COMMITS)


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
        log = logs.open_log(nc)
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
        await publish(nc, log_subject("0", "dispatcher"), logs.next_commit("dispatcher"))
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
    process = logs.start_program("-c", program, "log", "archive", "--to", str(folder), "--config", str(settings))
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not (folder / MANIFEST).exists() and process.poll() is None:
                await asyncio.sleep(0.005)
    finally:
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


async def test_a_segment_that_is_not_read_back_as_it_was_is_never_named_by_the_manifest(tmp_path: Path) -> None:
    archive = await Archive.open(FolderStore(tmp_path), "0")
    foreign = StreamMessage(sequence=1, at=Instant(1), subject=log_subject("1", "scheduler"), data=b"{}")
    with pytest.raises(ArchiveDamaged, match="does not say what was written"):
        await archive.add([foreign])
    assert archive.last == 0 and not (tmp_path / MANIFEST).exists()


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


async def test_a_log_that_lost_its_end_is_told_and_not_archived_as_if_it_were_whole(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "SILENCE_SECONDS_MAX", 0.5)
    async with server.connected() as nc:
        await api_request(nc, f"STREAM.CREATE.{STREAM}", {**stream_config(SPEC, 1), "deny_delete": False})
        await append(nc, HISTORY)
        await api_request(nc, f"STREAM.MSG.DELETE.{STREAM}", {"seq": COMMITS})
        with pytest.raises(LogGap, match=f"went on at {COMMITS + 1} where {COMMITS} was expected"):
            await archived(server, tmp_path / "archive")
        found = await log_reading.verify(nc, "0", no_progress)
        assert [b.what for b in found.breaks] == [f"commits {COMMITS} to {COMMITS} are missing at the end"]


def _size_of_last(folder: Path) -> int:
    return max(folder.glob("*.gz")).stat().st_size
