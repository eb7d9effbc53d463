"""Requests as bytes on connections that stay, and the answers."""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

from msgspec import Struct

from taskyard.fuzz.making import Request

ANSWER_SECONDS_MAX = 20.0
"""Longer than the API waits for a position (10 s) or a verdict (5 s). What takes longer hangs."""
HEAD_BYTES_MAX = 1 << 17


class Answer(Struct, frozen=True, kw_only=True):
    """What came back: `status` is 0 where the connection ended without an answer, -1 where none came in time."""

    status: int
    body: bytes = b""


NOTHING, HANG = Answer(status=0), Answer(status=-1)


class Wire:
    """One connection at a time to the API."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: Request) -> Answer:
        """Send it, on a new connection if there is none, and return what comes back."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                if self._open is None:
                    self._open = await asyncio.open_connection(self._host, self._port, limit=HEAD_BYTES_MAX)
                reader, writer = self._open
                with suppress(OSError):  # who refuses may say so while we still speak
                    writer.write(request.encode())
                    await writer.drain()
                return await self._read(reader, request.method)
        except TimeoutError:
            self.close()
            return HANG
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            self.close()
            return NOTHING

    def close(self) -> None:
        """Begin anew with the next request."""
        if self._open is not None:
            self._open[1].transport.abort()
            self._open = None

    async def _read(self, reader: asyncio.StreamReader, method: bytes) -> Answer:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        status = int(first.split()[1])
        is_without_body = method == b"HEAD" or status in {204, 304}
        if is_without_body:
            body = b""
        elif b"content-length" in headers:
            body = await reader.readexactly(int(headers[b"content-length"]))
        else:  # a stream, of which its begin is enough
            self.close()
            return Answer(status=status)
        if headers.get(b"connection") == b"close":
            self.close()
        return Answer(status=status, body=body)
