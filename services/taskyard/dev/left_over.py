"""What an earlier run, which was killed, has left on a folder."""

from collections.abc import Callable

from taskyard.dev.layout import Layout
from taskyard.embedded import processes

STOP_SECONDS = 4.0
SERVERS = frozenset(("nats-server", "postgres"))


def stop_left_over(layout: Layout, report: Callable[[str], None]) -> None:
    """Stop what still runs: workers first and servers last, as in an orderly end. Blocks until it is gone."""
    left = layout.processes()
    servers = left.keys() & SERVERS
    workers = {name for name in left if name.startswith("worker-")}
    for names in (workers, left.keys() - servers - workers, servers):
        signals = {left[name].identity: left[name].stop_signal for name in names}
        for identity in processes.stop_all(signals, STOP_SECONDS):
            report(f"stopped process {identity.pid} of an earlier run")
    layout.write_processes({})
