"""A server among others in one process."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn

from taskyard.http_server import protocol
from taskyard.http_server.connections import ConnectionLimits, Connections
from taskyard.http_server.headers import App, with_headers
from taskyard.http_server.protocol import LimitedProtocol

BACKLOG = 1_024
KEEP_ALIVE_SECONDS = 30


class HttpServer(uvicorn.Server):
    """Serves an application within limits; signals are somebody else's."""

    def __init__(self, app: App, limits: ConnectionLimits, *, grace_seconds: int) -> None:
        self.connections = Connections(limits)
        # The class is asked for, and called as this is.
        connection: Any = partial(LimitedProtocol, self.connections)
        super().__init__(
            uvicorn.Config(
                with_headers(app),
                http=connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # Nothing here asks for the client's address but the limits, which mean that of the connection.
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=grace_seconds,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """A socket for a server, bound here since uvicorn would end the process where the address is taken.

    Raises:
        OSError: the address is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    # The kernel knows also of what is left of a few small writes; connections inherit it. Where the platform lacks it, its
    # own patience for acknowledgements that do not come has to do.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(protocol.UNREAD_SECONDS_MAX * 1000))
    return listening
