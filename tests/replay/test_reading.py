"""Where a replay reads from: stretches of a log by position and by time, slices with and without what was before."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from recorded_log import START, a_task, before, ran, record

from taskyard.api.past.checkpoints import Checkpoints
from taskyard.api.past.moments import parse_moment
from taskyard.api.past.state import PastState
from taskyard.contracts.events import AnyEvent, decode_event
from taskyard.contracts.values import SECOND, Instant, format_instant
from taskyard.eventlog.commit import CommitCodec
from taskyard.eventlog.errors import SliceUnreadable
from taskyard.eventlog.memory import MemoryLog, MemoryStream
from taskyard.eventlog.slices import SliceHeader, SliceWriter
from taskyard.eventlog.snapshots import MemorySnapshots
from taskyard.replay.errors import NothingToReplay
from taskyard.replay.reading import Commits, read_slice, read_stretch, snapshot_before

codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
COMMITS = record([a_task(number, at=10.0 * number, kind="command", runs=[ran(3.0)]) for number in range(3)])
LAST = COMMITS[-1].sequence


def a_log() -> MemoryLog[Any]:
    times = iter([stored.at for stored in COMMITS])
    stream = MemoryStream("log", lambda: next(times))
    for stored in COMMITS:
        stream.store(f"log.{stored.commit.writer}", codec.encode(stored.commit))
    return MemoryLog(stream, "log", codec)


def read(first: str, last: str) -> tuple[PastState, Commits]:
    moments = [parse_moment(text) if text else None for text in (first, last)]
    told: list[int] = []
    log = a_log()
    reading = read_stretch(log, Checkpoints(MemorySnapshots(), log), *moments, lambda at, _: told.append(at))
    found = asyncio.run(reading)
    assert told[-1] == LAST
    return found


def test_without_ends_it_is_the_whole_log() -> None:
    state, commits = read("", "")
    assert [stored.sequence for stored in commits] == list(range(1, LAST + 1)) and state.events == 0


def test_positions_name_whole_commits_and_both_are_included() -> None:
    state, commits = read("5.0", "9")
    assert [stored.sequence for stored in commits] == [5, 6, 7, 8, 9]
    assert state.save() == before(COMMITS, 5).save()


def test_times_name_what_was_stored_between_them() -> None:
    first, last = (format_instant(Instant(START + seconds * SECOND)) for seconds in (9, 15))
    state, commits = read(first, last)
    assert all(START + 9 * SECOND <= stored.at <= START + 15 * SECOND for stored in commits)
    assert commits[0].sequence == state.sequence + 1
    assert commits[-1].sequence + 1 == next(s.sequence for s in COMMITS if s.at > START + 15 * SECOND)


def test_a_stretch_behind_the_end_is_refused() -> None:
    with pytest.raises(NothingToReplay, match=f"ends with commit {LAST}, has nothing there"):
        read(str(LAST + 1), "")


def a_slice(path: Path, first: int, snapshot: bytes = b"null") -> Path:
    with path.open("wb") as file:
        writer = SliceWriter(file, SliceHeader(first=first, last=LAST, partition="0", snapshot=msgspec.Raw(snapshot)))
        for stored in COMMITS[first - 1 :]:
            writer.add(sequence=stored.sequence, at=stored.at, data=codec.encode(stored.commit))
        writer.finish()
    return path


def test_a_slice_with_a_snapshot_knows_what_was_before(tmp_path: Path) -> None:
    saved = before(COMMITS, 6).save()
    state, commits, _ = read_slice(a_slice(tmp_path / "s", 6, saved))
    assert state.save() == saved and commits[0].sequence == 6
    state, _, _ = read_slice(a_slice(tmp_path / "s", 6))
    assert state.save() == PastState().save()


def test_a_snapshot_that_is_not_understood_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SliceUnreadable, match="its snapshot is not understood"):
        read_slice(a_slice(tmp_path / "s", 6, b'{"format":99}'))


def test_an_empty_slice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NothingToReplay, match="empty"):
        read_slice(a_slice(tmp_path / "s", LAST + 1))


def test_the_snapshot_of_a_slice_is_what_stood_before_it() -> None:
    def snapshot(first: int) -> bytes:
        log = a_log()
        return bytes(asyncio.run(snapshot_before(log, Checkpoints(MemorySnapshots(), log), first)))

    assert snapshot(6) == before(COMMITS, 6).save()
    assert snapshot(1) == b"null", "nothing stands before the beginning"
