"""Whoever is connected to the supervisor: what they ask for, and what they are told."""

import selectors
import socket
from collections.abc import Callable
from contextlib import suppress

import msgspec

from taskyard.agent.supervisor.aside import by_itself
from taskyard.agent.supervisor.protocol import Command, Event, Frames, Hello, decode_command, encode_frame

READ_BYTES = 65536
UNSENT_BYTES_MAX = 64 << 20
"""An agent that reads nothing while so much is told is let go of: it connects again and is told everything anew."""


class _Connection:
    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.frames = Frames()
        self.unsent = bytearray()


class Connections:
    """All connections. `greet` makes the first message to each, `obey` is called with what they ask for."""

    def __init__(
        self,
        listener: socket.socket,
        selector: selectors.BaseSelector,
        *,
        greet: Callable[[], Hello],
        obey: Callable[[Command], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._selector = selector
        self._greet = greet
        self._obey = obey
        self._on_gone = on_gone
        self._all: list[_Connection] = []
        selector.register(listener, selectors.EVENT_READ, self._accept)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def is_behind(self) -> bool:
        """Whether somebody has yet to hear what was told before."""
        return any(one.unsent for one in self._all)

    def tell(self, event: Event) -> None:
        """Tell everybody."""
        for connection in list(self._all):
            self._send(connection, event)

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            peer, _ = self._listener.accept()
            peer.setblocking(False)
            connection = _Connection(peer)
            self._all.append(connection)
            self._selector.register(peer, selectors.EVENT_READ, lambda: self._hear(connection))
            self._send(connection, self._greet())

    def _hear(self, connection: _Connection) -> None:
        try:
            if connection.unsent:
                self._send_on(connection)
            data = connection.peer.recv(READ_BYTES)
            if not data:
                self._hang_up(connection)
            for body in connection.frames.add(data):
                by_itself(self._obey, decode_command(body))
        except BlockingIOError:
            return
        except (OSError, ValueError, msgspec.DecodeError):
            self._hang_up(connection)

    def _hang_up(self, connection: _Connection) -> None:
        if connection in self._all:
            self._all.remove(connection)
            self._selector.unregister(connection.peer)
            connection.peer.close()
            self._on_gone()

    def _send(self, connection: _Connection, event: Event) -> None:
        connection.unsent += encode_frame(event)
        if len(connection.unsent) > UNSENT_BYTES_MAX:
            self._hang_up(connection)
        else:
            self._send_on(connection)

    def _send_on(self, connection: _Connection) -> None:
        was_waiting = bool(self._selector.get_key(connection.peer).events & selectors.EVENT_WRITE)
        try:
            while connection.unsent:
                del connection.unsent[: connection.peer.send(connection.unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._hang_up(connection)
            return
        if bool(connection.unsent) != was_waiting:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
            self._selector.modify(connection.peer, events, self._selector.get_key(connection.peer).data)
