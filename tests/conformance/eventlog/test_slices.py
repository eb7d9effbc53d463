"""Slices: what was written is read back to the byte, and a file that is cut off or mixed up is refused with its line."""

from io import BytesIO

import msgspec
import pytest

from taskyard.contracts.events import AnyEvent, TaskScheduled, decode_event
from taskyard.contracts.values import Instant, TaskId
from taskyard.eventlog.commit import Commit, CommitCodec, hash_commit
from taskyard.eventlog.errors import SliceUnreadable
from taskyard.eventlog.slices import SliceHeader, SliceReader, SliceWriter

codec: CommitCodec[AnyEvent] = CommitCodec(AnyEvent, decode_event)
AT = Instant(1_795_000_000_000_000)


def stored(number: int) -> bytes:
    return codec.encode(
        Commit(writer="scheduler", instance="a", epoch=1, at=AT, events=(TaskScheduled(task=TaskId(f"task {number}")),))
    )


def written(first: int = 5, last: int = 7, **header: object) -> bytes:
    file = BytesIO()
    writer = SliceWriter(file, SliceHeader(first=first, last=last, partition="0", **header))  # type: ignore[arg-type]
    for sequence in range(first, last + 1):
        writer.add(sequence=sequence, at=Instant(AT + sequence), data=stored(sequence))
    writer.finish()
    return file.getvalue()


def test_a_slice_gives_back_the_stored_bytes_of_every_commit() -> None:
    reader = SliceReader(BytesIO(written(snapshot=msgspec.Raw(b'{"tasks":[]}'))))
    assert (reader.header.first, reader.header.last, reader.header.partition) == (5, 7, "0")
    assert reader.header.has_snapshot
    assert bytes(reader.header.snapshot) == b'{"tasks":[]}'
    assert [(line.sequence, line.at, bytes(line.data)) for line in reader.lines()] == [
        (number, AT + number, stored(number)) for number in (5, 6, 7)
    ]


def test_decoded_commits_bear_the_hash_of_the_log_and_times_that_never_go_back() -> None:
    file = BytesIO()
    writer = SliceWriter(file, SliceHeader(first=1, last=2, partition="0"))
    writer.add(sequence=1, at=Instant(AT + 9), data=stored(1))
    writer.add(sequence=2, at=AT, data=stored(2))
    writer.finish()
    file.seek(0)
    one, two = SliceReader(file).commits(codec)
    assert (one.hash, two.hash) == (hash_commit(stored(1)), hash_commit(stored(2)))
    assert (one.at, two.at) == (AT + 9, AT + 9)
    assert two.commit.events == (TaskScheduled(task=TaskId("task 2")),)


def test_the_first_line_is_the_agreed_header_and_an_empty_slice_is_one() -> None:
    assert written(first=1, last=0) == b'{"format":1,"from":1,"to":0,"partition":"0"}\n'
    assert list(SliceReader(BytesIO(written(first=1, last=0))).lines()) == []


@pytest.mark.parametrize(
    ("change", "line", "says"),
    [
        (lambda lines: lines[:-1], 3, "ends before commit 7"),
        (lambda lines: [lines[0], *lines[2:]], 2, "commit 6 stands where 5 is expected"),
        (lambda lines: [*lines, lines[-1]], 5, "commit 7 stands where 8 is expected"),
        (lambda lines: [*lines, lines[-1].replace(b'"sequence":7', b'"sequence":8')], 5, "should end with commit 7"),
        (lambda lines: [*lines[:-1], lines[-1][:40]], 4, "not a stored commit"),
        (lambda lines: [lines[0].replace(b'"format":1', b'"format":2'), *lines[1:]], 1, "format 2 is not known"),
        (lambda lines: lines[1:], 1, "not the header"),
        (lambda lines: [], 1, "not the header"),
        (lambda lines: [b'{"format":1,"from":9,"to":2,"partition":"0"}\n'], 1, "claims to go from 9 to 2"),
    ],
)
def test_a_damaged_slice_is_refused_with_its_line(change: object, line: int, says: str) -> None:
    damaged = b"".join(change(written().splitlines(keepends=True)))  # type: ignore[operator]
    with pytest.raises(SliceUnreadable, match=says) as refused:
        list(SliceReader(BytesIO(damaged)).lines())
    assert refused.value.line == line


def test_a_commit_that_is_no_commit_is_refused_with_its_line() -> None:
    damaged = written().replace(b'"writer":"scheduler"', b'"writer":7')
    with pytest.raises(SliceUnreadable, match="line 2"):
        list(SliceReader(BytesIO(damaged)).commits(codec))


def test_a_commit_that_was_stored_with_line_breaks_still_is_one_line() -> None:
    file = BytesIO()
    writer = SliceWriter(file, SliceHeader(first=1, last=1, partition="0"))
    writer.add(sequence=1, at=AT, data=msgspec.json.format(stored(1), indent=2))
    writer.finish()
    assert file.getvalue().count(b"\n") == 2
    file.seek(0)
    assert next(SliceReader(file).commits(codec)).commit.writer == "scheduler"


def test_a_writer_that_skips_commits_or_stops_early_is_told() -> None:
    writer = SliceWriter(BytesIO(), SliceHeader(first=1, last=2, partition="0"))
    with pytest.raises(ValueError, match="not the next one"):
        writer.add(sequence=2, at=AT, data=stored(2))
    with pytest.raises(ValueError, match="ends before commit 1"):
        writer.finish()
