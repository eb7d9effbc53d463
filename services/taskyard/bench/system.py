"""The system under measurement: `taskyard dev --separate` with many slots, as a child of the bench.

Run as a program, `python -m taskyard.bench.system DIR`, it is that child.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from taskyard.bench.command_line import uninterrupted
from taskyard.bench.errors import SystemNotStarted
from taskyard.dev.app import run_to_end
from taskyard.dev.layout import Layout
from taskyard.dev.options import Options
from taskyard.settings import Settings, load

WORKERS = 2
SLOTS_PER_WORKER = 256
STOP_SECONDS_MAX = 40.0
"""Longer than `taskyard dev` takes for an orderly end."""


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """What of `connection.json` is needed besides what the client reads itself."""

    http_url: str
    admin_token: str
    nats_url: str
    processes: dict[str, int]


class System(msgspec.Struct, frozen=True, kw_only=True):
    """A system that is ready. `services` are the settings of its services: they open the log."""

    connection_file: Path
    connection: Connection
    services: Settings


@contextmanager
def running(directory: Path) -> Iterator[System]:
    """Run the system in `directory` as long as the context lasts. Raises `SystemNotStarted`."""
    argv = (sys.executable, "-m", "taskyard.bench.system", str(directory))
    # Ctrl-C reaches the bench alone, which then stops the system.
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert child.stdout is not None
        if child.stdout.readline() != "ready\n":
            message = f"the system ended with {child.wait(STOP_SECONDS_MAX)} before it was ready"
            raise SystemNotStarted(message)
        layout = Layout(directory)
        yield System(
            connection_file=layout.connection_file,
            connection=msgspec.json.decode(layout.connection_file.read_bytes(), type=Connection),
            services=load(Settings, layout.configuration_file("services"), {}),
        )
    finally:
        with uninterrupted():
            child.send_signal(signal.SIGTERM)
            child.wait(STOP_SECONDS_MAX)


if __name__ == "__main__":
    slots = (("any",),) * SLOTS_PER_WORKER
    sys.exit(run_to_end(Options(data=Path(sys.argv[1]), workers=WORKERS, separate=True, slots=slots)))
