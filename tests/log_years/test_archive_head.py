"""The head of an archive, kept apart from it, tells what its own digests cannot: that another stands in its place."""

import stat
from pathlib import Path

import log_servers as logs
import msgspec
import pytest

from taskyard.cli import log_files
from taskyard.cli.errors import Broken, WrongUsage
from taskyard.contracts.subjects import log_subject
from taskyard.contracts.values import Instant
from taskyard.eventlog.archive import MANIFEST, Archive
from taskyard.eventlog.archive_head import head_of, write_head
from taskyard.eventlog.archive_stores import FolderStore
from taskyard.eventlog.commit import hash_commit
from taskyard.eventlog.log import StreamMessage

pytestmark = pytest.mark.anyio

PART = 10


def messages(until: int) -> list[StreamMessage]:
    return [
        StreamMessage(sequence=n, at=Instant(n), subject=log_subject("0", log_files.writer_of(data)), data=data)
        for n, data in enumerate(logs.raw_commits()[:until], 1)
    ]


async def archive_in(folder: Path, until: int) -> Archive:
    """An archive of the first commits, in segments."""
    archive = await Archive.open(FolderStore(folder), "0")
    found = messages(until)
    for begin in range(archive.last, until, PART):
        await archive.add(found[begin : begin + PART])
    return archive


async def verify(folder: Path, head: Path | None = None) -> bool:
    return not (await log_files.verify(str(folder), logs.no_progress, head)).found


async def test_an_archive_whose_end_was_cut_off_is_whole_but_not_by_its_head(tmp_path: Path) -> None:
    folder, head = tmp_path / "archive", tmp_path / "head"
    archive = await archive_in(folder, 3 * PART)
    write_head(head, archive.manifest)
    assert stat.S_IMODE(head.stat().st_mode) == 0o600
    assert await verify(folder, head)
    cut = msgspec.structs.replace(
        archive.manifest, segments=archive.manifest.segments[:2], last_hash=hash_commit(messages(2 * PART)[-1].data)
    )
    (folder / MANIFEST).write_bytes(msgspec.json.encode(cut))
    assert await verify(folder)
    with pytest.raises(Broken, match="ends with commit 20, its head names 30: the end was cut off"):
        await verify(folder, head)


async def test_an_archive_that_was_made_anew_with_other_times_is_whole_but_not_by_its_head(tmp_path: Path) -> None:
    folder, head, forged = tmp_path / "archive", tmp_path / "head", tmp_path / "forged"
    write_head(head, (await archive_in(folder, 2 * PART)).manifest)
    other = await Archive.open(FolderStore(forged), "0")
    later = [msgspec.structs.replace(one, at=Instant(one.at + 5)) for one in messages(2 * PART)]
    await other.add(later[:PART])
    await other.add(later[PART:])
    assert await verify(forged)
    with pytest.raises(Broken, match="is another one up to commit 20 than its head says: it was changed"):
        await verify(forged, head)


async def test_an_archive_that_has_grown_since_is_known_by_its_head(tmp_path: Path) -> None:
    folder, head = tmp_path / "archive", tmp_path / "head"
    write_head(head, (await archive_in(folder, 2 * PART)).manifest)
    grown = await archive_in(folder, 3 * PART)
    assert await verify(folder, head)
    assert head_of(grown.manifest) != head_of(grown.manifest, 2)
    assert (await log_files.open_archive(str(folder), head=head)).last == 3 * PART


async def test_a_file_that_is_no_head_is_refused(tmp_path: Path) -> None:
    await archive_in(tmp_path / "archive", PART)
    (tmp_path / "head").write_text("{}")
    for name in ("head", "missing"):
        with pytest.raises(WrongUsage, match="is no head of an archive"):
            await verify(tmp_path / "archive", tmp_path / name)
