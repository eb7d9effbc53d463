"""The next generation of a log: the server keeps its end, the archive has the rest, and nothing means anything else."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from folding import CODEC, machines, rows
from log_servers import (
    COMMITS,
    HISTORY,
    SPEC,
    STREAM,
    Server,
    append,
    make_log,
    next_commit,
    no_progress,
    open_log,
)

from taskyard.cli import log_files
from taskyard.cli.app import main
from taskyard.cli.log_reading import verify
from taskyard.contracts.events import DECIDERS
from taskyard.contracts.subjects import LEASES_BUCKET
from taskyard.contracts.values import Instant
from taskyard.eventlog import generation
from taskyard.eventlog.archive import Archive
from taskyard.eventlog.archive_stores import FolderStore
from taskyard.eventlog.archiving import archive_log, mirror_log
from taskyard.eventlog.commit import Commit
from taskyard.eventlog.copying import LogCopy
from taskyard.eventlog.errors import CopyRefused, FenceMoved, GenerationUnfinished, LeaseHeld, LogBegins
from taskyard.eventlog.generation import (
    Generation,
    close_generation,
    exchange,
    finish_exchange,
    read_marker,
    require_finished,
    require_nobody_leads,
)
from taskyard.eventlog.jetstream_api import stream_info
from taskyard.eventlog.leases import JetStreamLease, ensure_leases
from taskyard.eventlog.slices import SliceReader

pytestmark = pytest.mark.anyio

CLOSED = COMMITS + len(DECIDERS)


async def folded(nc: Any, archive: Path) -> dict[str, Any]:
    """What the log means to whoever folds it from its first commit."""
    log = open_log(nc, archive=str(archive))
    commits = [stored async for stored in log.read(1, await log.head())]
    return {
        "machines": machines(commits),
        "rows": rows(commits),
        "times": [stored.at for stored in commits],
        "hashes": [stored.hash for stored in commits],
    }


async def closed_and_archived(nc: Any, folder: Path) -> tuple[Archive, int]:
    """The archive of a log whose generation was closed, and where the next one begins."""
    first = await close_generation(open_log(nc), CODEC, Instant(0))
    archive = await Archive.open(FolderStore(folder), "0")
    await archive_log(nc, STREAM, archive, no_progress)
    return archive, first


async def exchanged(nc: Any, folder: Path) -> Generation:
    archive, first = await closed_and_archived(nc, folder)
    return await exchange(nc, SPEC, archive, first, no_progress, replicas=1)


async def test_the_new_stream_is_short_and_the_whole_log_means_what_it_meant(server: Server, tmp_path: Path) -> None:
    async with server.connected() as nc:
        await make_log(nc)
        original = await folded(nc, tmp_path)
        assert await exchanged(nc, tmp_path) == Generation(before=1, first=COMMITS + 1, last=CLOSED)
        state = (await stream_info(nc, STREAM)).state
        assert (state.first_seq, state.last_seq, state.messages) == (COMMITS + 1, CLOSED, len(DECIDERS))
        again = await folded(nc, tmp_path)
        assert (again["machines"], again["rows"]) == (original["machines"], original["rows"])
        for what in ("times", "hashes"):
            assert again[what][:COMMITS] == original[what]
        found = await verify(nc, "0", no_progress)
        assert (found.found, found.first, found.commits) == (0, COMMITS + 1, len(DECIDERS))
        assert await read_marker(nc, STREAM) is None


async def test_every_writer_goes_on_behind_its_last_commit(server: Server, tmp_path: Path) -> None:
    """Its fence is the sequence of that, which must be there, and its hash chain goes on."""
    async with server.connected() as nc:
        await make_log(nc)
        await exchanged(nc, tmp_path)
        log = open_log(nc, archive=str(tmp_path))
        for number, writer in enumerate(DECIDERS, 1):
            last = await log.last(writer)
            assert last is not None
            commit = Commit[Any](
                writer=writer, instance="b", epoch=last.commit.epoch + 1, at=Instant(0), previous=last.hash
            )
            data = CODEC.encode(commit)
            assert await log.append(data, writer=writer, expected=last.sequence) == CLOSED + number
            with pytest.raises(FenceMoved):
                await log.append(next_commit(writer), writer=writer, expected=last.sequence)
        # And the archive goes on with the new stream.
        archive = await Archive.open(FolderStore(tmp_path), "0")
        assert (await archive_log(nc, STREAM, archive, no_progress)).commits == len(DECIDERS)
        found = await log_files.verify(str(tmp_path), no_progress)
        assert (found.found, found.commits) == (0, CLOSED + len(DECIDERS))


async def test_generations_follow_one_another(server: Server, tmp_path: Path) -> None:
    async with server.connected() as nc:
        await make_log(nc)
        await exchanged(nc, tmp_path)
        await append(nc, HISTORY.with_name("not_delivered.taskyard.jsonl"))
        before = await folded(nc, tmp_path)
        second = await exchanged(nc, tmp_path)
        assert (second.before, second.first) == (COMMITS + 1, len(before["times"]) + 1)
        again = await folded(nc, tmp_path)
        assert (again["machines"], again["rows"]) == (before["machines"], before["rows"])


async def test_who_has_folded_so_far_needs_no_archive_and_who_has_not_is_told(server: Server, tmp_path: Path) -> None:
    async with server.connected() as nc:
        await make_log(nc)
        await exchanged(nc, tmp_path)
        log = open_log(nc)
        async with log.follow(COMMITS) as batches:
            assert [stored.sequence for stored in await anext(batches)] == list(range(COMMITS + 1, CLOSED + 1))
        async with log.follow(COMMITS - 1) as batches:
            with pytest.raises(LogBegins, match=f"begins with commit {COMMITS + 1}, commit {COMMITS} is in an archive"):
                await anext(batches)
        # From the middle of what is archived, into the stream, without a gap.
        log = open_log(nc, archive=str(tmp_path))
        for after in (0, 5, COMMITS - 1, COMMITS, CLOSED - 1):
            found = [stored.sequence async for stored in log.read(after + 1, CLOSED)]
            assert found == list(range(after + 1, CLOSED + 1))


async def test_a_mirror_goes_on_over_a_new_generation_and_one_that_fell_behind_is_told(
    server: Server, other: Server, start_server: Callable[[str], Server], tmp_path: Path
) -> None:
    late = start_server("late")
    async with server.connected() as nc, other.connected() as kept_up, late.connected() as behind:
        await make_log(nc)
        await mirror_log(nc, STREAM, LogCopy(kept_up, SPEC), no_progress, last=COMMITS)
        await mirror_log(nc, STREAM, LogCopy(behind, SPEC), no_progress, last=10)
        original = await folded(nc, tmp_path)
        await exchanged(nc, tmp_path / "archive")
        assert await mirror_log(nc, STREAM, LogCopy(kept_up, SPEC), no_progress, last=CLOSED) == CLOSED
        # The mirror has the whole log, and needs no archive.
        assert (await folded(kept_up, tmp_path / "none"))["times"][:COMMITS] == original["times"]
        with pytest.raises(CopyRefused, match=f"the next to be copied is {COMMITS + 1}"):
            await mirror_log(nc, STREAM, LogCopy(behind, SPEC), no_progress, last=CLOSED)


async def test_a_slice_knows_what_stood_before_a_generation_where_the_archive_is_known_and_else_says_that_it_does_not(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with server.connected() as nc:
        await make_log(nc)
        await exchanged(nc, tmp_path / "archive")
    file = tmp_path / "end.taskyard.jsonl"
    arguments = ("log", "export", "..", str(file), "--config", str(server.settings_file(tmp_path)))

    async def exported() -> bool:
        """Export what the server has; whether the slice knows what stood before it."""
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(main, arguments)
        assert not ended.value.code
        with file.open("rb") as opened:
            header = SliceReader(opened).header
        assert header.first == COMMITS + 1
        return header.has_snapshot

    assert not await exported()
    assert "it does not tell what stood before" in capfd.readouterr().err
    monkeypatch.setenv("TASKYARD_LOG_ARCHIVE", str(tmp_path / "archive"))
    assert await exported()
    assert "it does not tell" not in capfd.readouterr().err


class Died(Exception):
    """The command was killed here."""


@pytest.mark.parametrize("step", range(4))
async def test_an_exchange_that_dies_at_any_step_is_finished_by_the_next_run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before the marker is made, before the old stream is deleted, while the new one is filled, before the marker goes."""
    async with server.connected() as nc:
        await make_log(nc)
        original = await folded(nc, tmp_path)
        archive, first = await closed_and_archived(nc, tmp_path)
        _die_at(monkeypatch, step)
        with pytest.raises(Died):
            await exchange(nc, SPEC, archive, first, no_progress, replicas=1)
        monkeypatch.undo()
        begun = await read_marker(nc, STREAM)
        if step == 0:
            assert begun is None
            await require_finished(nc, STREAM)
            await exchange(nc, SPEC, archive, first, no_progress, replicas=1)
        else:
            assert begun is not None
            with pytest.raises(GenerationUnfinished, match="new-generation"):
                await require_finished(nc, STREAM)
            await finish_exchange(nc, SPEC, archive, begun, no_progress, replicas=1)
        await require_finished(nc, STREAM)
        state = (await stream_info(nc, STREAM)).state
        assert (state.first_seq, state.last_seq) == (COMMITS + 1, CLOSED)
        assert (await folded(nc, tmp_path))["rows"] == original["rows"]


async def test_what_a_service_wrote_after_all_is_never_deleted(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had looked for the marker before that was there, and appends behind what is archived."""
    async with server.connected() as nc:
        await make_log(nc)
        archive, first = await closed_and_archived(nc, tmp_path)
        _die_at(monkeypatch, 1)
        with pytest.raises(Died):
            await exchange(nc, SPEC, archive, first, no_progress, replicas=1)
        monkeypatch.undo()
        begun = await read_marker(nc, STREAM)
        assert begun is not None
        await append(nc, HISTORY, first=COMMITS)
        with pytest.raises(
            CopyRefused, match=f"ends with commit {CLOSED + 1} and the archive with {CLOSED}: a service"
        ):
            await finish_exchange(nc, SPEC, archive, begun, no_progress, replicas=1)
        state = (await stream_info(nc, STREAM)).state
        assert (state.first_seq, state.last_seq) == (1, CLOSED + 1)
        # It is begun again, and leaves nothing out.
        assert await read_marker(nc, STREAM) is None
        done = await exchanged(nc, tmp_path)
        assert (done.first, done.last) == (CLOSED + 2, CLOSED + 1 + len(DECIDERS))


def _die_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    change = generation._change
    changes = 0

    async def dying_change(made: Coroutine[Any, Any, object]) -> None:
        nonlocal changes
        if changes == {0: 0, 1: 1, 3: 2}.get(step):
            made.close()
            raise Died
        changes += 1
        await change(made)

    async def dying_store(self: LogCopy, messages: Any) -> None:
        await LogCopy._store_all(self, messages[:1])
        raise Died

    monkeypatch.setattr(generation, "_change", dying_change)
    if step == 2:
        monkeypatch.setattr(LogCopy, "store", dying_store)


async def test_nothing_is_left_out_of_a_log_that_is_not_archived(server: Server, tmp_path: Path) -> None:
    async with server.connected() as nc:
        await make_log(nc)
        archive, first = await closed_and_archived(nc, tmp_path)
        await append(nc, HISTORY)
        with pytest.raises(CopyRefused, match=f"the archive holds 1 to {CLOSED}"):
            await exchange(nc, SPEC, archive, first, no_progress, replicas=1)
        with pytest.raises(CopyRefused, match="nothing to leave out"):
            await exchange(nc, SPEC, archive, 1, no_progress, replicas=1)
        assert (await stream_info(nc, STREAM)).state.first_seq == 1
        assert await read_marker(nc, STREAM) is None


async def test_a_service_that_leads_is_told_to_be_stopped_first(server: Server) -> None:
    async with server.connected() as nc:
        await require_nobody_leads(nc, LEASES_BUCKET)
        await ensure_leases(nc, LEASES_BUCKET, lease_seconds=30.0)
        lease = JetStreamLease(nc, LEASES_BUCKET, "dispatcher")
        assert await lease.try_acquire("somebody")
        with pytest.raises(LeaseHeld, match="dispatcher is led by somebody: stop the services first"):
            await require_nobody_leads(nc, LEASES_BUCKET)
        await lease.release()
        await require_nobody_leads(nc, LEASES_BUCKET)


@pytest.mark.parametrize(
    ("begins", "closed", "first"),
    [(1, 100_000, 98_000), (1, 101, 51), (50, 60, 55), (7, 7, 7), (7, 8, 8)],
    ids=["long", "short", "in a later generation", "nothing to leave out", "one"],
)
async def test_what_snapshots_and_rows_may_be_behind_stays_in_the_server(begins: int, closed: int, first: int) -> None:
    assert generation.first_kept(begins, closed) == first
