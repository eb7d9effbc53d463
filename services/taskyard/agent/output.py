"""The output of attempts on its way to JetStream: live, in bounded chunks, in bounded memory.

What cannot be stored in time is dropped and marked where it is missing; a program is never blocked for ever. Offsets
count what is stored, the marks among it, so that the chunks of a stream join without a gap.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from taskyard.agent.errors import NotStoredError
from taskyard.contracts.agent_protocol import (
    HEADER_ATTEMPT,
    HEADER_OFFSET,
    HEADER_STREAM,
    OUTPUT_CHUNK_BYTES_MAX,
)
from taskyard.contracts.subjects import output_subject
from taskyard.contracts.values import TaskId

OUTPUT_BYTES_MAX = 16 << 20
"""Of both streams of one attempt together; the rest is read and thrown away."""
OUTPUT_BUFFER_BYTES_MAX = 256 * 1024
OUTPUT_FLUSH_SECONDS = 0.1
OUTPUT_STALL_SECONDS = 2.0
"""How long a full buffer holds the program up while the server does not store; from then on output is dropped."""
OUTPUT_CLOSE_SECONDS = 15.0
"""How long the end of an attempt waits for its output to be stored; longer than an election of the broker."""
STORE_TIMEOUT_SECONDS = 2.0
RETRY_SECONDS = 0.2


class Sender(Protocol):
    """How a chunk is stored in JetStream."""

    async def store(self, subject: str, payload: bytes, *, headers: dict[str, str], timeout_seconds: float) -> None:
        """Store it, or raise `NotStoredError`."""
        ...


class AttemptOutput:
    """The output of one attempt, whose programs come one after another."""

    def __init__(self, *, agent: str, incarnation: int, task: TaskId, attempt: int, sender: Sender) -> None:
        self._subject = output_subject(agent, task)
        self._attempt = attempt
        self._id_prefix = f"{agent}-{incarnation}-{task}-{attempt}"
        self._sender = sender
        self._flow: Callable[[bool], None] | None = None
        self._segments: deque[tuple[str, bytearray]] = deque()
        self._buffered = 0
        self._total = 0
        self._dropped = {"stdout": 0, "stderr": 0}
        self._offsets = {"stdout": 0, "stderr": 0}
        self._lossy = False
        self._held = False
        self._closing = False
        self._something = asyncio.Event()
        self._hurry = asyncio.Event()

    def hold_by(self, flow: Callable[[bool], None] | None) -> None:
        """`flow` is how the program that writes now is held up (False) and let go on (True); None: there is none."""
        self._flow = flow
        if flow is not None and self._held:
            flow(False)

    def write(self, stream: str, data: bytes) -> None:
        """Take output in. Never blocks; holds the program up when the buffer is full."""
        room = OUTPUT_BYTES_MAX - self._total
        self._total += len(data)
        if len(data) <= room:
            self._take(stream, data)
        elif room >= 0:
            self._take(stream, data[:room])
            self._append(
                stream, b"\n[taskyard: more than %d bytes of output; the rest is not kept]\n" % OUTPUT_BYTES_MAX
            )
            self._total = OUTPUT_BYTES_MAX + 1

    async def run(self) -> None:
        """Store until `close`."""
        while not self._closing or self._segments:
            await self._something.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(OUTPUT_FLUSH_SECONDS):
                    await self._hurry.wait()
            while self._segments:
                stream, segment = self._segments[0]
                chunk = bytes(segment[:OUTPUT_CHUNK_BYTES_MAX])
                await self._store(stream, chunk)
                self._forget(len(chunk))
            if not self._closing:
                self._something.clear()
                self._hurry.clear()

    def close(self) -> None:
        """Nothing more comes: `run` returns when all is stored."""
        self._mark_dropped("stdout")
        self._mark_dropped("stderr")
        self._closing = True
        self._something.set()
        self._hurry.set()

    def _take(self, stream: str, data: bytes) -> None:
        if self._buffered + len(data) > OUTPUT_BUFFER_BYTES_MAX and self._lossy:
            self._dropped[stream] += len(data)
            return
        self._mark_dropped(stream)
        self._append(stream, data)
        if self._buffered > OUTPUT_BUFFER_BYTES_MAX and not self._lossy:
            self._hold(True)

    def _append(self, stream: str, data: bytes) -> None:
        if not data:
            return
        if self._segments and self._segments[-1][0] == stream:
            self._segments[-1][1].extend(data)
        else:
            self._segments.append((stream, bytearray(data)))
        self._buffered += len(data)
        self._something.set()
        if self._buffered >= OUTPUT_CHUNK_BYTES_MAX:
            self._hurry.set()

    def _mark_dropped(self, stream: str) -> None:
        dropped, self._dropped[stream] = self._dropped[stream], 0
        if dropped:
            self._append(stream, b"\n[taskyard: %d bytes of output were dropped: they could not be stored]\n" % dropped)

    def _forget(self, size: int) -> None:
        segment = self._segments[0][1]
        del segment[:size]
        if not segment:
            self._segments.popleft()
        self._buffered -= size
        if self._buffered < OUTPUT_BUFFER_BYTES_MAX // 2:
            self._hold(False)

    def _hold(self, held: bool) -> None:
        if held != self._held:
            self._held = held
            if self._flow is not None:
                self._flow(not held)

    async def _store(self, stream: str, chunk: bytes) -> None:
        """Store one chunk, however often it takes: an id makes it one."""
        offset = self._offsets[stream]
        headers = {
            HEADER_ATTEMPT: str(self._attempt),
            HEADER_STREAM: stream,
            HEADER_OFFSET: str(offset),
            "Nats-Msg-Id": f"{self._id_prefix}-{stream}-{offset}",
        }
        loop = asyncio.get_running_loop()
        give_up_holding = loop.time() + OUTPUT_STALL_SECONDS
        while True:
            try:
                await self._sender.store(self._subject, chunk, headers=headers, timeout_seconds=STORE_TIMEOUT_SECONDS)
            except NotStoredError:
                if loop.time() >= give_up_holding:
                    self._lossy = True
                    self._hold(False)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._lossy = False
                self._offsets[stream] = offset + len(chunk)
                return
