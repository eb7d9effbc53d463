"""A supervisor's life as a process: its folder, lock and socket, and the signals that it heeds."""

import fcntl
import gc
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

from taskyard.agent.supervisor import keeper
from taskyard.agent.supervisor.app import Supervisor
from taskyard.agent.supervisor.protocol import socket_address
from taskyard.private_files import make_folder, open_private


def serve(folder: Path) -> int:
    """Serve the agent folder whose supervisor's folder this is, unless another supervisor does."""
    make_folder(folder)
    lock = open_private(folder / "lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    spool = folder / "spool"
    make_folder(spool)
    for left in spool.iterdir():  # of a supervisor that was killed
        left.unlink()
    keeper.become_subreaper()
    keeper.become_unreadable()
    (folder / "socket").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, socket_address(folder) as address:
        listener.bind(address)
        os.chmod(folder / "socket", 0o600)  # noqa: PTH101
        listener.listen(16)
        listener.setblocking(False)
        gc.freeze()  # a fork copies no page because something was collected
        supervisor = Supervisor(folder, listener)
        signal.signal(signal.SIGTERM, lambda *_: supervisor.ask_to_end())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        supervisor.run()
        with suppress(OSError):
            (folder / "socket").unlink()
    return 0
