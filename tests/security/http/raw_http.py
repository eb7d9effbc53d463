"""HTTP as an attacker speaks it: bytes on sockets, and what comes back."""

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

ANSWER_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class Answer:
    """What came back before the connection ended: status 0 for nothing, and how long it took."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def problem(self) -> dict:
        assert self.headers["content-type"] == "application/problem+json", self
        told = json.loads(self.body)
        assert told["status"] == self.status, self
        return told


@dataclass(frozen=True)
class Target:
    """The address that is attacked."""

    url: str
    token: str

    async def connect(self) -> "Raw":
        address = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        return Raw(reader, writer)

    async def say(self, *parts: bytes, pause: float = 0.0) -> Answer:
        """Send the parts one after the other, and return the answer that ends the connection, or the first one."""
        async with await self.connect() as raw:
            return await raw.say(*parts, pause=pause)

    def head(self, line: str, **headers: str) -> bytes:
        """The head of a request with the token."""
        given = {"host": "x", "authorization": f"Bearer {self.token}", **headers}
        return "\r\n".join([f"{line} HTTP/1.1", *(f"{k}: {v}" for k, v in given.items()), "", ""]).encode()


class Raw:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.begun = time.monotonic()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def say(self, *parts: bytes, pause: float = 0.0) -> Answer:
        """Send the parts until an answer comes, and return it."""
        reading = asyncio.ensure_future(self.answer())
        with suppress(OSError):
            for part in parts:
                if reading.done():
                    break
                await self.send(part)
                if pause:
                    await asyncio.wait((reading,), timeout=pause)
        return await reading

    async def answer(self) -> Answer:
        """The next answer, or what there is of it when the connection ends."""
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            return Answer(int(first.split()[1]), headers, body, time.monotonic() - self.begun)
        return Answer(0, {}, b"", time.monotonic() - self.begun)

    async def ended(self) -> float:
        """When the other side ended the connection, whatever it says before."""
        with suppress(OSError):
            while await self.reader.read(1 << 16):
                pass
        return time.monotonic() - self.begun
