"""A stream of output on disk: its first bytes, and a ring for its last ones, in one file that only its owner may read.

Byte x of the stream is at x of the file as long as x is below `room.head`, behind that in the ring. When the disk is full
the ring is given back and only a few last bytes are kept, in memory: the error that a program tells is at its end.
"""

import os
from pathlib import Path

from taskyard.agent.supervisor.protocol import Kept, Room
from taskyard.private_files import open_private

LAST_BYTES = 4096


class Spool:
    """Takes the bytes of one stream in. The file is made when the first one comes."""

    def __init__(self, path: Path, room: Room) -> None:
        self._path = path
        self._room = room
        self._file: int | None = None
        self._total = 0
        self._head = 0
        self._last: bytearray | None = None

    @property
    def kept(self) -> Kept:
        """What there is."""
        if self._last is not None:
            last = bytes(self._last)
            return Kept(total=self._total, head=self._head, tail=len(last), last=last)
        return Kept(total=self._total, head=self._head, tail=min(self._total - self._head, self._room.tail))

    def write(self, data: bytes) -> None:
        """Take more in. What there is no room for pushes out what was between beginning and end."""
        if self._last is None:
            try:
                self._write(memoryview(data))
            except OSError:  # no room on the disk, or none of it left: what is on it must be enough
                self.squeeze()
                # Some of it may be in the file: what was counted is, the rest goes on below.
                data = data[len(data) - self._missing :]
        if self._last is not None:
            self._total += len(data)
            self._last += data
            del self._last[:-LAST_BYTES]

    def squeeze(self) -> None:
        """Give the ring back; from now on only a few last bytes are kept besides the beginning."""
        if self._last is not None:
            return
        tail = min(self._total - self._head, self._room.tail, LAST_BYTES)
        last = bytearray()
        if self._total:
            # The program may have closed this stream long before it ends.
            file = self._file if self._file is not None else open_private(self._path, os.O_RDWR)
            try:
                if tail:
                    last += read_tail(file, self._room, self._total, tail)
                os.ftruncate(file, self._head)
            finally:
                if file is not self._file:
                    os.close(file)
        self._last = last

    def close(self) -> None:
        """No more comes. What is kept stays."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def remove(self) -> None:
        """Nobody will read it."""
        self.close()
        self._path.unlink(missing_ok=True)

    def _write(self, data: memoryview) -> None:
        self._missing = len(data)
        if self._file is None:
            self._file = open_private(self._path, os.O_RDWR | os.O_TRUNC)
        while data:
            at, room = _place(self._total, self._room)
            if room == 0:
                self._total += len(data)
                self._missing = 0
                return
            written = os.pwrite(self._file, data[:room], at)
            self._total += written
            self._missing -= written
            self._head = min(self._total, self._room.head)
            data = data[written:]


def _place(offset: int, room: Room) -> tuple[int, int]:
    """Where in the file a byte of the stream is, and how many more can follow it there."""
    if offset < room.head:
        return offset, room.head - offset
    if room.tail == 0:
        return room.head, 0
    in_ring = (offset - room.head) % room.tail
    return room.head + in_ring, room.tail - in_ring


def read_tail(file: int, room: Room, total: int, size: int) -> bytes:
    """The last bytes of a stream of `total` bytes from the ring of its file."""
    return b"".join(read_at(file, room, total - size, total))


def read_at(file: int, room: Room, begin: int, end: int) -> list[bytes]:
    """The bytes from `begin` to `end` of the stream, as far as the file still has them."""
    pieces: list[bytes] = []
    while begin < end:
        at, length = _place(begin, room)
        piece = os.pread(file, min(length, end - begin), at) if length else b""
        if not piece:
            break
        pieces.append(piece)
        begin += len(piece)
    return pieces
