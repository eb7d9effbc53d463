"""The output of attempts on its way from the spools of the supervisor to JetStream: live, in bounded chunks.

Nothing is held in memory: what cannot be stored now is read again later. Offsets count what is stored, the marks of
what is missing among it, so that the chunks of a stream join without a gap. What is about to be stored is told to the
supervisor before: an agent that takes over sends that chunk again, under the same id, and goes on behind it.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from taskyard.agent.errors import NotStoredError, SupervisorLostError
from taskyard.agent.programs import Gap, Program, SpoolReader
from taskyard.agent.supervisor.protocol import STREAMS
from taskyard.contracts.agent_protocol import (
    HEADER_ATTEMPT,
    HEADER_OFFSET,
    HEADER_STREAM,
    OUTPUT_CHUNK_BYTES_MAX,
    Assignment,
)
from taskyard.contracts.subjects import output_subject

OUTPUT_CLOSE_SECONDS = 15.0
"""How long the end of an attempt waits for its output to be stored; longer than an election of the broker."""
STORE_TIMEOUT_SECONDS = 2.0
RETRY_SECONDS = 0.2
NONCE_BYTES = 16

_log = logging.getLogger(__name__)


class Sender(Protocol):
    """How a chunk is stored in JetStream."""

    async def store(self, subject: str, payload: bytes, *, headers: dict[str, str], timeout_seconds: float) -> None:
        """Store it, or raise `NotStoredError`."""
        ...


class Progress(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How far the output of an attempt was sent: of the program `step` up to `read`, in JetStream up to `offsets`.

    `pending` bytes of the stream `stream` may be stored as one chunk behind that. `nonce` is random and stands in the ids of
    chunks: who could guess one could have the chunk dropped as a copy of his own.
    """

    step: str = ""
    read: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    offsets: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    stream: int = 0
    pending: int = 0
    nonce: str = msgspec.field(default_factory=lambda: secrets.token_hex(NONCE_BYTES))


class AttemptOutput:
    """The output of one attempt, whose programs come one after another. `tell` leaves word of the progress."""

    def __init__(
        self,
        *,
        agent: str,
        assignment: Assignment,
        sender: Sender,
        tell: Callable[[bytes], Awaitable[None]],
        sent: bytes = b"",
    ) -> None:
        self._subject = output_subject(agent, assignment.task)
        self._attempt = assignment.attempt
        self._sender = sender
        self._tell = tell
        self._progress = _progress_of(sent)
        self._is_behind = bool(self._progress.step)
        self._programs: asyncio.Queue[Program | None] = asyncio.Queue()

    def show(self, program: Program) -> None:
        """Send what this program says, behind what those before it said."""
        self._programs.put_nowait(program)

    def close(self) -> None:
        """No more programs come: `run` returns when all is stored."""
        self._programs.put_nowait(None)

    async def run(self) -> None:
        """Store until `close`."""
        while (program := await self._programs.get()) is not None:
            step = program.state.step
            if self._is_behind and step != self._progress.step:
                continue  # an earlier run of the agent has sent all of it
            if not self._is_behind:
                self._progress = Progress(step=step, offsets=self._progress.offsets, nonce=self._progress.nonce)
            readers = [program.reader(stream) for stream in STREAMS]
            for reader, position in zip(readers, self._progress.read, strict=True):
                reader.position = position
            try:
                if self._is_behind and self._progress.pending:
                    number = self._progress.stream
                    await self._send(number, readers[number], self._progress.pending)
                self._is_behind = False
                await self._follow(program, readers)
            finally:
                for reader in readers:
                    reader.close()

    async def _follow(self, program: Program, readers: list[SpoolReader]) -> None:
        while True:
            is_over = program.is_over
            change = program.next_change()
            did_send = [
                await self._send(number, reader, OUTPUT_CHUNK_BYTES_MAX) for number, reader in enumerate(readers)
            ]
            if any(did_send):
                continue
            if is_over:
                return
            with suppress(SupervisorLostError):
                await change.wait()

    async def _send(self, number: int, reader: SpoolReader, bytes_max: int) -> bool:
        """Store what comes next of a stream, if there is anything."""
        piece = reader.next(bytes_max)
        if not piece:
            return False
        if isinstance(piece, Gap):
            chunk = (
                b"\n[taskyard: %d bytes of output are missing here: only the beginning and the end are kept]\n" % piece
            )
        else:
            chunk = piece
        progress = self._progress
        progress.stream, progress.pending = number, 0 if isinstance(piece, Gap) else len(piece)
        await self._tell(msgspec.msgpack.encode(progress))
        await self._store(STREAMS[number], progress.offsets[number], chunk)
        reader.moved(piece)
        progress.read[number] = reader.position
        progress.offsets[number] += len(chunk)
        progress.pending = 0
        return True

    async def _store(self, stream: str, offset: int, chunk: bytes) -> None:
        """Store one chunk, however often it takes: an id makes it one."""
        headers = {
            HEADER_ATTEMPT: str(self._attempt),
            HEADER_STREAM: stream,
            HEADER_OFFSET: str(offset),
            "Nats-Msg-Id": f"{self._progress.nonce}-{stream}-{offset}",
        }
        while True:
            try:
                await self._sender.store(self._subject, chunk, headers=headers, timeout_seconds=STORE_TIMEOUT_SECONDS)
            except NotStoredError:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return


def _progress_of(sent: bytes) -> Progress:
    """The word that an earlier run has left. Output that is told twice is better than an attempt that cannot go on."""
    try:
        return msgspec.msgpack.decode(sent, type=Progress) if sent else Progress()
    except msgspec.DecodeError:
        _log.exception("how far an output was sent is not known: it is sent again")
        return Progress()
