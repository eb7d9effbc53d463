"""The spool of a stream: every byte is counted once, and what is kept of the end survives a full disk."""

import errno
import os
from pathlib import Path

import pytest

from taskyard.agent.supervisor.protocol import Room
from taskyard.agent.supervisor.spool import LAST_BYTES, Spool, read_at

ROOM = Room(1_000, 100_000)
SAID = bytes(number % 251 for number in range(60_000))


def spool(folder: Path, room: Room = ROOM) -> Spool:
    return Spool(folder / "spool", room)


def test_a_stream_that_was_closed_keeps_its_last_words_when_its_spool_is_squeezed(tmp_path: Path) -> None:
    """A program may close its output, or hand it to nobody, and run on for hours."""
    one = spool(tmp_path)
    one.write(SAID)
    one.close()
    one.squeeze()
    kept = one.kept
    assert (kept.total, kept.head, kept.tail) == (len(SAID), ROOM.head, LAST_BYTES)
    assert kept.last == SAID[-LAST_BYTES:]
    assert (tmp_path / "spool").read_bytes() == SAID[: ROOM.head]


def test_a_stream_that_said_nothing_is_squeezed_to_nothing(tmp_path: Path) -> None:
    one = spool(tmp_path)
    one.squeeze()
    assert one.kept.total == len(one.kept.last) == 0
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize("room", [300, 1_000, 1_700], ids=["in the head", "at its end", "in the ring"])
def test_a_disk_that_is_full_in_the_middle_of_a_write_costs_no_byte_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    write, left = os.pwrite, room

    def full(file: int, data: memoryview, at: int) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "no space left")
        written = write(file, data[:left], at)
        left -= written
        return written

    monkeypatch.setattr(os, "pwrite", full)
    one = spool(tmp_path)
    one.write(SAID[:200])
    one.write(SAID[200:2_500])
    one.write(SAID[2_500:3_000])
    kept = one.kept
    assert (kept.total, kept.head) == (3_000, min(room, ROOM.head))
    assert kept.last == SAID[3_000 - kept.tail : 3_000]
    assert kept.head + kept.tail == 3_000


def test_a_stream_without_a_ring_keeps_its_beginning_and_counts_the_rest(tmp_path: Path) -> None:
    one = spool(tmp_path, Room(1_000, 0))
    one.write(SAID[:600])
    one.write(SAID[600:])
    assert (one.kept.total, one.kept.head, one.kept.tail) == (len(SAID), 1_000, 0)
    assert (tmp_path / "spool").read_bytes() == SAID[:1_000]


def test_a_ring_that_was_gone_around_gives_the_last_bytes_in_their_order(tmp_path: Path) -> None:
    one = spool(tmp_path, Room(10, 700))
    for begin in range(0, len(SAID), 333):
        one.write(SAID[begin : begin + 333])
    assert (tmp_path / "spool").stat().st_size == 710
    file = os.open(tmp_path / "spool", os.O_RDONLY)
    assert b"".join(read_at(file, Room(10, 700), len(SAID) - 700, len(SAID))) == SAID[-700:]
    os.close(file)
