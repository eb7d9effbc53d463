"""Programs that the supervisor runs, as the agent sees them: their state, and readers of what is kept of their output."""

import asyncio
import os
from pathlib import Path

from taskyard.agent.supervisor.protocol import STREAMS, Kept, ProgramState, Room, spool_file
from taskyard.agent.supervisor.spool import read_at


class Gap(int):
    """So many bytes of a stream are not kept."""


class Program:
    """One program that the supervisor runs. `rooms` is how much of its two streams is kept."""

    def __init__(self, attempt: int, step: str, rooms: tuple[Room, Room], folder: Path) -> None:
        self.attempt = attempt
        self.state = ProgramState(step=step)
        self.rooms = rooms
        self._folder = folder
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state.status is not None or self._error is not None

    def become(self, state: ProgramState) -> None:
        """The supervisor told of it."""
        self.state = state
        self._wake()

    def fail(self, error: Exception) -> None:
        """It will never be heard of again."""
        self._error = error
        self._wake()

    def next_change(self) -> asyncio.Event:
        """What is set at the next change: to be taken before one looks, and awaited after."""
        return self._changed

    async def made(self) -> ProgramState:
        """Wait until its process exists. Raises `OSError` or `SupervisorLostError`: it never will."""
        while not self.state.pid:
            await self._wait()
        return self.state

    async def changed(self) -> None:
        """Wait for the next change. Raises `SupervisorLostError`: there will be none."""
        await self._wait()

    def reader(self, stream: str) -> "SpoolReader":
        """Reads one of its streams from the beginning."""
        number = STREAMS.index(stream)
        return SpoolReader(
            spool_file(self._folder, self.attempt, self.state.step, stream), self.rooms[number], self, number
        )

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        await self._changed.wait()
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class SpoolReader:
    """Reads a stream: its beginning as it comes, what is kept of its end when the program is over."""

    def __init__(self, path: Path, room: Room, program: Program, number: int) -> None:
        self._path = path
        self._room = room
        self._program = program
        self._number = number
        self._file: int | None = None
        self.position = 0

    @property
    def _kept(self) -> Kept:
        return self._program.state.kept[self._number]

    def next(self, bytes_max: int) -> bytes | Gap:
        """What comes next: some bytes, a gap, or nothing now. `moved` is to be called with it."""
        kept = self._kept
        if self.position < kept.head:
            return self._read(min(kept.head, self.position + bytes_max))
        if self._program.state.status is None or self.position >= kept.total:
            return b""
        tail = kept.total - kept.tail
        if self.position < tail:
            return Gap(tail - self.position)
        if kept.last:
            return kept.last[self.position - tail :][:bytes_max]
        return self._read(min(kept.total, self.position + bytes_max)) or Gap(kept.total - self.position)

    def moved(self, piece: bytes | Gap) -> None:
        """This is taken."""
        self.position += piece if isinstance(piece, Gap) else len(piece)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _read(self, end: int) -> bytes:
        if self._file is None:
            try:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:  # the supervisor that wrote it is gone
                return b""
        return b"".join(read_at(self._file, self._room, self.position, end))
