"""One hostile client: `python -m taskyard.chaos.flooding FLOOD`, with real credentials as JSON on standard input.

It sends as much as it can for as long as it lives, comes again whenever it is cut off, and answers to nobody. What it has sent
is written to standard output once a second.
"""

import asyncio
import os
import random
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

import msgspec
import nats
import nats.errors
from nats.aio.client import Client

from taskyard.contracts.agent_protocol import Heartbeat
from taskyard.contracts.subjects import command_subject, heartbeat_subject, report_subject
from taskyard.contracts.values import POOL_DEFAULT

CHUNK = 200
"""Messages between two looks at the socket: only what is flushed was sent."""
GARBAGE_BYTES = 300
COMMAND_BYTES = 128 << 10
BODY_BYTES = 1 << 20
STREAMS = 300
SILENT = 1_200
HEAD_BYTES = 57 << 20
SENDERS = 4
COME_AGAIN_SECONDS = 0.2
REQUEST_SECONDS_MAX = 10.0


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """How the client connects: the NATS user is that of the agent or the operator, the token the operator's."""

    nats_url: str
    user: str
    password: str
    http_urls: tuple[str, ...]
    token: str


class Flood:
    """Sends one kind of it. `sent` counts messages, requests or connections."""

    def __init__(self, credentials: Credentials) -> None:
        self.sent = 0
        self._with = credentials
        self._random = random.Random()
        self._turn = 0

    async def heartbeats(self) -> None:
        """Heartbeats of one agent, each of another run of it."""
        async with await self._connect() as client:
            while True:
                for _ in range(CHUNK):
                    slots = (("noop",),) * 64
                    beat = Heartbeat(
                        incarnation=os.urandom(8).hex(), pool=self._with.user, slots=slots, kinds=("noop",)
                    )
                    await client.publish(heartbeat_subject(self._with.user), msgspec.json.encode(beat))
                await self._flush(client, CHUNK)

    async def garbage_reports(self) -> None:
        """What is no report, on the subject of reports."""
        async with await self._connect() as client:
            while True:
                for _ in range(CHUNK):
                    await client.publish(report_subject(self._with.user), self._garbage())
                await self._flush(client, CHUNK)

    async def garbage_commands(self) -> None:
        """Commands that are none, of verbs that there are and that there are not."""
        async with await self._connect() as client:
            while True:
                for _ in range(CHUNK):
                    verb = self._random.choice(("submit", "cancel", f"verb-{self._random.randrange(1_000)}"))
                    await client.publish(command_subject(self._with.user, POOL_DEFAULT, verb), self._garbage())
                await self._flush(client, CHUNK)

    async def batches_of_faults(self) -> None:
        """Bodies as large as they may be, of as many faults as they can hold, through both doors."""
        body = b'{"tasks":[' + b",".join([b"0"] * (BODY_BYTES // 2 - 10)) + b"]}"
        command = b'{"tasks":[' + b",".join([b"0"] * (COMMAND_BYTES // 2 - 10)) + b"]}"

        async def stored() -> None:
            async with await self._connect() as client:
                while True:
                    await client.publish(command_subject(self._with.user, POOL_DEFAULT, "submit"), command)
                    await self._flush(client, 1)

        async def posted() -> None:
            head = self._head("POST /api/v1/tasks", f"Content-Length: {len(body)}")
            while True:
                async with asyncio.timeout(REQUEST_SECONDS_MAX):
                    reader, writer = await self._open()
                    try:
                        writer.write(head + body)
                        await writer.drain()
                        await reader.readuntil(b"\r\n")
                        self.sent += 1
                    finally:
                        writer.close()

        await asyncio.gather(self._again(stored), *(self._again(posted) for _ in range(SENDERS)))

    async def open_streams(self) -> None:
        """Live streams that are opened, not read, and torn down, again and again."""

        async def stream() -> None:
            reader, writer = await self._open()
            try:
                writer.write(self._head("GET /api/v1/events"))
                await writer.drain()
                async with asyncio.timeout(REQUEST_SECONDS_MAX):
                    await reader.readuntil(b"\r\n")
                self.sent += 1
                await asyncio.sleep(self._random.random() * 5)
            finally:
                writer.transport.abort()

        await asyncio.gather(*(self._again(stream) for _ in range(STREAMS)))

    async def headers(self) -> None:
        """Before any token: heads of 57 MB, heads that do not end, and connections that say nothing."""

        async def silent() -> None:
            reader, writer = await self._open()
            try:
                self.sent += 1
                if self._random.random() < 0.5:
                    writer.write(b"GET / HTTP/1.1\r\nX: ")
                await reader.read()
            finally:
                writer.close()

        async def huge() -> None:
            _, writer = await self._open()
            try:
                writer.write(b"GET / HTTP/1.1\r\nX: ")
                for _ in range(HEAD_BYTES >> 16):
                    writer.write(b"x" * (1 << 16))
                    await writer.drain()
            finally:
                self.sent += 1
                writer.transport.abort()

        silences = (self._again(silent) for _ in range(SILENT))
        await asyncio.gather(*(self._again(huge) for _ in range(SENDERS)), *silences)

    async def run(self, flood: Callable[[], Awaitable[None]]) -> None:
        """Send, and tell once a second how much, until somebody ends this."""
        telling = asyncio.create_task(self._tell())
        try:
            await self._again(flood)
        finally:
            telling.cancel()

    async def _tell(self) -> None:
        while True:
            sys.stdout.write(f"{self.sent}\n")
            sys.stdout.flush()
            await asyncio.sleep(1)

    async def _again(self, send: Callable[[], Awaitable[None]]) -> None:
        while True:
            with suppress(OSError, EOFError, TimeoutError, nats.errors.Error, asyncio.LimitOverrunError):
                await send()
            await asyncio.sleep(COME_AGAIN_SECONDS)

    async def _flush(self, client: Client, count: int) -> None:
        await client.flush(timeout=int(REQUEST_SECONDS_MAX))
        self.sent += count

    async def _connect(self) -> Client:
        return await nats.connect(
            self._with.nats_url,
            user=self._with.user,
            password=self._with.password,
            inbox_prefix=f"_INBOX_{self._with.user}".encode(),
            allow_reconnect=False,
            error_cb=_ignore,
        )

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._turn += 1
        address = urlsplit(self._with.http_urls[self._turn % len(self._with.http_urls)])
        return await asyncio.open_connection(address.hostname, address.port)

    def _head(self, line: str, *more: str) -> bytes:
        given = (f"{line} HTTP/1.1", "Host: x", f"Authorization: Bearer {self._with.token}", *more)
        return "\r\n".join([*given, "", ""]).encode()

    def _garbage(self) -> bytes:
        size = self._random.randrange(GARBAGE_BYTES)
        return self._random.choice((b"", b"{", b'{"reports":[', b'{"tasks":0,"x":')) + self._random.randbytes(size)


FLOODS: Mapping[str, Callable[[Flood], Awaitable[None]]] = {
    "heartbeats": Flood.heartbeats,
    "garbage reports": Flood.garbage_reports,
    "garbage commands": Flood.garbage_commands,
    "batches of faults": Flood.batches_of_faults,
    "open streams": Flood.open_streams,
    "headers": Flood.headers,
}
OF_AGENT = frozenset(("heartbeats", "garbage reports"))
"""The others are the operator's."""


async def _ignore(error: Exception) -> None:
    """To be cut off, or refused, is what a flood is used to."""
    del error


def main(name: str) -> None:
    """Send until killed."""
    credentials = msgspec.json.decode(sys.stdin.buffer.read(), type=Credentials)
    flood = Flood(credentials)
    asyncio.run(flood.run(lambda: FLOODS[name](flood)))


if __name__ == "__main__":
    main(sys.argv[1])
