"""Starting and stopping as it is promised: the connection file, `kill -9` and the next start, readers at the end."""

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from forms import is_history, is_name, is_task
from host_processes import is_running
from system import System
from test_streams import stuck_reader

SERVICES = {"scheduler", "slot_allocator", "dispatcher", "state_projector", "api"}
SERVERS = {"nats-server", "postgres"}
READERS = 10


def test_the_connection_file_has_its_form(yard: System) -> None:
    connection = yard.connection
    assert stat.S_IMODE((yard.data / "connection.json").stat().st_mode) == 0o600
    assert connection["http_url"].startswith("http://127.0.0.1:")
    assert connection["nats_url"].startswith("nats://127.0.0.1:")
    assert connection["nats_inbox_prefix"] == f"_INBOX_{connection['nats_user']}"
    assert is_name(connection["nats_user"])
    assert len(connection["admin_token"]) >= 32
    assert connection["processes"].keys() == SERVICES | SERVERS | {"worker-1"}
    assert all(is_running(pid) for pid in connection["processes"].values())
    assert len({connection["processes"][name] for name in SERVICES}) == 1  # without --separate one process


@pytest.fixture
def own(tmp_path: Path) -> Iterator[System]:
    """A system that this test kills and starts."""
    system = System(tmp_path, arguments=())
    system.start()
    yield system
    assert system.stop() == 0


def test_everything_killed_at_once_goes_on_and_a_stop_cuts_off_readers(own: System) -> None:
    gate = own.gate("killed")
    before = own.connection
    ended = own.command("echo kept")
    own.wait(ended, "completed")
    kept, output, history = own.task(ended), own.output(ended), own.history(ended)
    running = own.command(f"{gate.wait}; echo done", max_attempts=2)
    own.wait(running, "running")
    assert own.http.post("/pools/nobody/configure", json={}).status_code == 202
    waiting = own.submit("noop", pool="nobody", input={})
    own.wait(waiting, "pending")
    plan = own.terraform("plan_and_apply", own.configuration("killed"), "killed")
    own.kill_everything()
    gate.open()
    own.start()
    after = own.connection
    for name in ("admin_token", "nats_password", "nats_user", "http_url", "nats_url"):
        assert after[name] == before[name], name
    assert (own.task(ended), own.output(ended), own.history(ended)) == (kept, output, history)
    own.wait(plan, "apply_pending")  # it has the one slot that the command needs too, and is answered for below
    own.wait(waiting, "pending")
    for id in (ended, running, waiting, plan):
        is_task(own.task(id))
        is_history(own.history(id))
    assert own.act(plan, "confirm").status_code == 202
    own.wait(plan, "completed")
    assert own.wait(running, "completed")["attempt"] == 1  # its program outlived everything, and was taken over
    # Whoever reads must not hold up the end, neither by reading nor by not reading.
    with ExitStack() as readers:
        for _ in range(READERS):
            readers.enter_context(stuck_reader(own, "/events"))
        stream = readers.enter_context(own.http.stream("GET", "/events"))
        assert own._child is not None
        own._child.send_signal(signal.SIGTERM)
        assert b"retry" in stream.read()
        assert own.stop() == 0  # told twice
    assert not [name for name, pid in after["processes"].items() if is_running(pid)]
    assert not _left_by_tasks(str(own.data))
    own.start()
    own.wait(own.command("true"), "completed")


def _left_by_tasks(folder: str) -> list[str]:
    """Processes of tasks that still live in a worker's folder, by what the agent puts into their environment."""
    left: list[str] = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                if b"TASKYARD_TASK=" in (process / "environ").read_bytes() and folder in str(
                    (process / "cwd").readlink()
                ):
                    left.append((process / "cmdline").read_bytes().decode(errors="replace"))
            except OSError:
                continue
    return left
