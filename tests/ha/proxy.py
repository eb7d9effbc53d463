"""A TCP proxy between one program and a server, whose connections can be cut, and frozen as by a host that is gone."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

CONNECT_SECONDS_MAX = 2.0
CLOSE_SECONDS_MAX = 5.0
CHUNK_BYTES = 1 << 16


class Proxy:
    """Passes on what arrives at `port` of loopback to `target` there, in both directions."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._passing = threading.Event()
        self._passing.set()
        self._is_cut = False
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def cut(self) -> None:
        """End all connections and refuse new ones until `mend`."""
        self._is_cut = True
        for each in list(self._sockets):
            _shut(each)

    def freeze(self) -> None:
        """Pass nothing on until `mend`: what is sent is neither lost nor refused, it just does not arrive."""
        self._passing.clear()

    def mend(self) -> None:
        """Pass everything on again."""
        self._is_cut = False
        self._passing.set()

    def close(self) -> None:
        """End everything."""
        self.mend()
        _shut(self._listening)
        for each in list(self._sockets):
            _shut(each)
        for thread in self._threads:
            thread.join(CLOSE_SECONDS_MAX)
        self._listening.close()

    def _begin(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self._is_cut:
                    client.close()
                    continue
                self._begin(lambda client=client: self._connect(client))

    def _connect(self, client: socket.socket) -> None:
        self._passing.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self._target), CONNECT_SECONDS_MAX)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        self._sockets |= {client, server}
        answers = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
        answers.start()
        self._pass_on(client, server)
        answers.join()
        for each in (client, server):
            each.close()
            self._sockets.discard(each)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._passing.wait()
                sink.sendall(data)
        self._passing.wait()
        for each in (source, sink):
            _shut(each)


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
