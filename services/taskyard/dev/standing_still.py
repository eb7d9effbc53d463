"""A folder of `taskyard dev` on which nothing runs: its nats-server for a while, to put a log into it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taskyard.dev.errors import DirectoryInUse
from taskyard.dev.layout import Layout
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.nats_users import AGENTS_KEEPER, CONTROL_KEEPER
from taskyard.settings import Settings


@contextmanager
def nats_of(folder: Path) -> Iterator[Settings]:
    """Run the nats-server of a folder, and nothing else; the settings by which it is reached. Blocks while it starts.

    Raises:
        DirectoryInUse: a system runs on the folder, or one that was killed has left processes there.
        FormatTooNew: the folder was made by a newer version.
        EmbeddedError: the server does not start.
    """
    layout = Layout(folder)
    with layout.locked():
        if layout.processes():
            message = (
                f"{layout.directory}: the last run was killed; start `taskyard dev` on it and stop it, then try again"
            )
            raise DirectoryInUse(message)
        server = NatsServer(layout.nats, clients=[])
        server.start()
        try:
            yield Settings(
                nats_urls=[server.url],
                control_user=CONTROL_KEEPER,
                control_password=server.password(CONTROL_KEEPER),
                fleet_user=AGENTS_KEEPER,
                fleet_password=server.password(AGENTS_KEEPER),
                postgres_dsn="",
                log_archive=str(layout.archive),
            )
        finally:
            server.stop()
