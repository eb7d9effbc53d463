"""uvicorn's protocol of httptools, with a bound to everything that a client may send or withhold before it is recognised.

A client owes us something most of the time: the head of a request, or what is left of a body that nobody reads. A head has
HEAD_SECONDS_MAX from its first byte (or from the connection) to its end, and HEAD_BYTES_MAX; the body that a route reads has
the route's own time. What comes too late, or is too much, is answered by a problem, and the connection ends: the client may
read the answer for LINGER_SECONDS, while what it still sends is thrown away.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import httptools
import msgspec
from msgspec import Struct
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from taskyard.http_server.connections import Connections, Turn
from taskyard.http_server.headers import HEADERS

HEAD_BYTES_MAX = 32 << 10
HEAD_SECONDS_MAX = 10.0
"""From the first byte of a request, or from the connection, to the end of its headers."""
UNREAD_SECONDS_MAX = 60.0
"""A client that takes nothing of what it is sent for this long is cut off: each holds a place and a buffer."""
LINGER_SECONDS = 2.0
LINGER_BYTES_MAX = 16 << 20
"""So long, and with so much that it still sends, a refused client may read why: a reset would take the answer from it."""

_BREAK_OFF = "taskyard_break_off"


class _Problem(Struct, frozen=True, kw_only=True):
    type: str = "about:blank"
    title: str
    status: int
    detail: str
    error: str


class Fault(Struct, frozen=True):
    """What is wrong with a connection: the status that tells it, its name in the metrics, and the words for the client."""

    status: int
    name: str
    detail: str
    headers: Mapping[str, str] = {}


UNREADABLE = Fault(400, "unreadable", "this is no HTTP request")
HEAD_TOO_SLOW = Fault(408, "head_too_slow", f"the headers did not end within {HEAD_SECONDS_MAX:g} s")
HEAD_TOO_LARGE = Fault(431, "head_too_large", f"the address and the headers are larger than {HEAD_BYTES_MAX} bytes")
FULL = Fault(503, "full", "there are too many connections", {"Retry-After": "2"})
FAULTS = (UNREADABLE, HEAD_TOO_SLOW, HEAD_TOO_LARGE, FULL)


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        connections: Connections,
        *,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._all = connections
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._has_asked = False
        self._is_refused = False
        self._fault = UNREADABLE
        self._late_fault: Fault | None = None
        self._head_bytes = 0
        # Bytes since the parser last told of something whole: a header that never ends is kept by it until then.
        self._pending_bytes = 0
        self._has_told = False
        self._is_receiving = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Give the connection its place, or refuse it."""
        super().connection_made(transport)
        if self._all.admit(self, self.client[0] if self.client else None):
            self._await_head()
        else:
            self._refuse(FULL)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all requests of it, also those in front of the last one: who follows a stream would else go on for ever."""
        self._all.leave(self)
        self._forget_deadline()
        self._forget_unread()
        super().connection_lost(exc)
        for cycle in self._unanswered:
            _disconnect(cycle)
        self._unanswered.clear()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and end what is more than it may be."""
        if self._is_refused:
            self._pending_bytes += len(data)
            if self._pending_bytes > LINGER_BYTES_MAX:
                self.flow.pause_reading()  # no reset yet: the client may be about to read
            return
        if self._late_fault is not None:
            return
        self._unset_keepalive_if_required()
        self._has_told = False
        try:
            self.parser.feed_data(data)  # pyright: ignore[reportOptionalMemberAccess] - there is one until the connection is lost
        except httptools.HttpParserError:
            self._fail(self._fault)
            return
        except httptools.HttpParserUpgrade:
            pass  # we speak nothing else, and the request is answered as it is
        self._pending_bytes = 0 if self._has_told else self._pending_bytes + len(data)
        if self._pending_bytes > HEAD_BYTES_MAX:
            self._fail(HEAD_TOO_LARGE)
        elif not self._unanswered and not self._has_told:
            self._await_head()

    def on_message_begin(self) -> None:
        """Begin to count a head."""
        super().on_message_begin()
        self.scope.setdefault("state", {})[_BREAK_OFF] = self.transport.close
        self._head_bytes = 0
        self._await_head()

    def on_url(self, url: bytes) -> None:
        """Count a part of the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, of the head or behind the body."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole: from now on it is our turn, or that of the body."""
        self._has_told = self._has_asked = self._is_receiving = True
        super().on_headers_complete()
        self._unanswered.append(self.cycle)
        self._forget_deadline()
        self._all.turn(self, Turn.BODY)

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body."""
        self._has_told = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole: our turn, unless it was answered before."""
        self._has_told = True
        self._is_receiving = False
        super().on_message_complete()
        if self._unanswered:
            self._all.turn(self, Turn.OURS)
        else:
            self._forget_deadline()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """One request more is answered; of a body that nobody wanted the rest has no longer than a head."""
        if self._unanswered:
            self._unanswered.popleft()
        super().on_response_complete()
        if not self._unanswered:
            self._all.turn(self, Turn.NEXT_REQUEST)
            if self._late_fault is not None:
                self._refuse(self._late_fault)
            elif self._is_receiving:
                self._await_head()

    def pause_writing(self) -> None:
        """The client does not take what it is sent: it has so long to begin again."""
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_SECONDS_MAX, self.drop)

    def resume_writing(self) -> None:
        """The client takes it again."""
        super().resume_writing()
        self._forget_unread()

    def make_room(self) -> None:
        """End: another connection needs the place."""
        if self._has_asked and not self._unanswered:
            self._forget_deadline()
            self.transport.close()  # between two requests that is what a client expects
        else:
            self._refuse(FULL)

    def drop(self) -> None:
        """End at once."""
        self._forget_deadline()
        self.transport.abort()

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _count(self, size: int) -> None:
        self._head_bytes += size + len(": \r\n")
        if self._head_bytes > HEAD_BYTES_MAX:
            self._fault = HEAD_TOO_LARGE
            raise httptools.HttpParserCallbackError(HEAD_TOO_LARGE.detail)

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS_MAX, self._fail, HEAD_TOO_SLOW)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _fail(self, fault: Fault) -> None:
        """Refuse what cannot be read; behind a whole request that has no answer yet, once it has: they come in order."""
        if self._unanswered and not self._is_receiving and not self._is_speaking:
            self._late_fault = fault
            self.flow.pause_reading()
        else:
            self._refuse(fault)

    @property
    def _is_speaking(self) -> bool:
        return any(cycle.response_started for cycle in self._unanswered)

    def _refuse(self, fault: Fault) -> None:
        """Say what is wrong, if nothing else is being said, and end."""
        if self._is_refused:
            return
        self._is_refused = True
        self._pending_bytes = 0
        self._all.refused[fault.name] += 1
        self._forget_deadline()
        self._unset_keepalive_if_required()
        is_speaking = self._is_speaking
        for cycle in self._unanswered:
            _disconnect(cycle)
        self.pipeline.clear()
        if is_speaking or self.transport.is_closing():
            self.drop()
            return
        self.flow.resume_reading()
        self._all.linger(self)
        self.transport.write(_answer(fault))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._deadline = self.loop.call_later(LINGER_SECONDS, self.drop)


def break_off(state: Mapping[str, Any]) -> None:
    """End the connection in the middle of an answer, which the client can tell from its end. `state` is the request's."""
    state[_BREAK_OFF]()


def _disconnect(cycle: RequestResponseCycle) -> None:
    cycle.disconnected = True
    cycle.message_event.set()


def _answer(fault: Fault) -> bytes:
    body = msgspec.json.encode(
        _Problem(title=HTTPStatus(fault.status).phrase, status=fault.status, detail=fault.detail, error=fault.name)
    )
    headers = {name.decode(): value.decode() for name, value in HEADERS} | {
        "content-type": "application/problem+json",
        "content-length": str(len(body)),
        "connection": "close",
        **fault.headers,
    }
    lines = [
        f"HTTP/1.1 {fault.status} {HTTPStatus(fault.status).phrase}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
