"""An answer that comes piece by piece, and how it ends: at its end, broken off, or since its client has gone.

However it ends, what makes the pieces is closed before the request is over: it may hold a consumer on the server. So it
runs in a task of its own, which is cancelled once: a scope that cancels again at each await, as the framework's own
answer has one, would cancel the closing as well.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from litestar import Litestar, Request
from litestar.response import Stream
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from taskyard.http_server.protocol import break_off

NO_BUFFERING = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

Pieces = AsyncGenerator[bytes, None]


class BrokenOff(Exception):
    """The pieces do not end here, and no more can be made. The reader is not told that this was all."""


class Live(Stream):
    """The answer of a route: sends the pieces as they are made. `give_back` is called once it is over."""

    def __init__(self, pieces: Pieces, *, media_type: str, give_back: Callable[[], None]) -> None:
        super().__init__(pieces, media_type=media_type, headers=NO_BUFFERING)
        self._pieces = pieces
        self._give_back = give_back

    def to_asgi_response(self, app: Litestar | None, request: Request[Any, Any, Any], **given: Any) -> ASGIResponse:
        """The answer as it is sent."""
        head = super().to_asgi_response(app, request, **given)
        return _LiveResponse(self._pieces, head, request.scope, self._give_back)


class _LiveResponse(ASGIResponse):
    """Takes its head from the answer that the framework has made, and sends the body by itself."""

    def __init__(self, pieces: Pieces, head: ASGIResponse, scope: Scope, give_back: Callable[[], None]) -> None:
        super().__init__()
        self._pieces = pieces
        self._head = head
        self._scope = scope
        self._give_back = give_back

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._give_back()

    async def start_response(self, send: Send) -> None:
        """Send the head."""
        await self._head.start_response(send)

    async def send_body(self, send: Send, receive: Receive) -> None:
        """Send the pieces, until there are no more or the client has gone."""
        sending = asyncio.create_task(self._send(send), name="http sends live")
        gone = asyncio.create_task(_until_gone(receive), name="http waits for a client to go")
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not sending.done():
                sending.cancel()
            await asyncio.wait((sending, gone))
        if not sending.cancelled():
            sending.result()

    async def _send(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            try:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except BrokenOff:
                break_off(self._scope["state"])
                await asyncio.Event().wait()  # until the connection is gone, which ends this
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
