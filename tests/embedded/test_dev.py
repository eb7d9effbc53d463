"""`taskyard dev` on real servers, with programs that do nothing in place of services and workers."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from real_servers import give_cluster

from taskyard.agent import app as agent
from taskyard.agent.stopping import GRACE_SECONDS
from taskyard.dev.app import WORKERS_STOP_SECONDS
from taskyard.dev.errors import PortInUse
from taskyard.dev.layout import Ports
from taskyard.dev.ports import choose_ports
from taskyard.dev.programs import WORKER_DRAIN_SECONDS
from taskyard.embedded import processes
from taskyard.embedded.postgres import SYSTEM_USER
from taskyard.embedded.processes import ProcessIdentity

SECONDS_MAX = 30.0
HERE = Path(__file__).parent
PYTHONPATH = os.pathsep.join(path for path in (str(HERE), os.environ.get("PYTHONPATH")) if path)
SERVICES = {"scheduler", "slot_allocator", "dispatcher", "state_projector", "api"}
SERVERS = {"nats-server", "postgres"}


class Dev:
    """One `taskyard dev` at a time on one folder; everything that it started is gone when the test ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.child: subprocess.Popen[str] | None = None
        self.begun: list[subprocess.Popen[str]] = []
        self.seen: list[ProcessIdentity] = []

    def begin(
        self, *, http_port: int = 0, workers: int = 1, separate: str = "together", api: str = "fake_api"
    ) -> "subprocess.Popen[str]":
        child = subprocess.Popen(
            [sys.executable, str(HERE / "fake_dev.py"), str(self.folder), str(http_port), str(workers), separate],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": PYTHONPATH, "FAKE_API": api},
        )
        self.begun.append(child)
        return child

    def start(self, *, workers: int = 1, separate: str = "together") -> None:
        if not self.folder.exists():
            give_cluster(self.folder / "postgres")
        self.child = self.begin(workers=workers, separate=separate)
        assert self.child.stdout
        if self.child.stdout.readline() != "ready\n":
            pytest.fail(self.child.communicate(timeout=SECONDS_MAX)[1])
        self.note()

    def fails(self, **options: Any) -> str:
        """Start in vain, and what it says."""
        child = self.begin(**options)
        output, errors = child.communicate(timeout=SECONDS_MAX)
        assert (child.returncode, output) == (1, "")
        assert "Traceback" not in errors
        return errors

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.child
        self.child.send_signal(number)
        self.child.communicate(timeout=SECONDS_MAX)
        return self.child.returncode

    @property
    def connection(self) -> dict[str, Any]:
        return json.loads((self.folder / "connection.json").read_text())

    @property
    def pids(self) -> dict[str, int]:
        return self.connection["processes"]

    def note(self) -> None:
        self.seen += [identity for pid in self.pids.values() if (identity := processes.identify(pid))]

    def alive(self) -> list[ProcessIdentity]:
        return [identity for identity in self.seen if processes.is_alive(identity)]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS_MAX
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            time.sleep(0.02)


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    dev = Dev(tmp_path / "data")
    yield dev
    for child in dev.begun:
        child.terminate()
        child.communicate(timeout=SECONDS_MAX)
    if (dev.folder / "processes.json").exists():
        with suppress(json.JSONDecodeError):  # one test has damaged it
            recorded = json.loads((dev.folder / "processes.json").read_text())
            dev.seen += [ProcessIdentity(**running["identity"]) for running in recorded.values()]
    processes.stop_all(dict.fromkeys(dev.seen, signal.SIGKILL), 5.0)


def test_it_tells_how_to_connect_and_stops_everything(dev: Dev) -> None:
    dev.start(workers=2)
    connection = dev.connection
    assert connection.keys() == {
        "http_url", "admin_token", "nats_url", "nats_user", "nats_password", "nats_inbox_prefix", "processes"
    }  # fmt: skip
    assert (connection["nats_user"], connection["nats_inbox_prefix"]) == ("admin", "_INBOX_admin")
    assert dev.pids.keys() == SERVICES | SERVERS | {"worker-1", "worker-2"}
    assert len({dev.pids[name] for name in SERVICES}) == 1
    assert httpx.get(f"{connection['http_url']}/readyz").is_success
    assert dev.stop() == 0
    assert dev.alive() == []
    for name in ("services", "worker-1"):
        assert (dev.folder / "logs" / f"{name}.log").read_text() == "ended in order\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupt_and_a_terminal_that_is_closed_stop_it_too(dev: Dev, number: int) -> None:
    dev.start()
    assert dev.stop(number) == 0
    assert dev.alive() == []


def test_what_is_secret_is_private(dev: Dev) -> None:
    dev.start()
    for path in (
        "connection.json",
        "credentials.json",
        "processes.json",
        "config/services.json",
        "config/worker-1.json",
    ):
        assert stat.S_IMODE((dev.folder / path).stat().st_mode) == 0o600
    for path in ("config", "logs", "nats", "workers"):
        assert stat.S_IMODE((dev.folder / path).stat().st_mode) == 0o700
    assert dev.connection["admin_token"] not in (dev.folder / "config/services.json").read_text()


def test_it_opens_no_folder_above_its_data_and_as_root_says_that_tasks_are_root_too(dev: Dev, tmp_path: Path) -> None:
    folders = [tmp_path, *tmp_path.parents]
    modes = [folder.stat().st_mode for folder in folders]
    dev.start()
    assert [folder.stat().st_mode for folder in folders] == modes
    assert dev.child
    dev.child.terminate()
    errors = dev.child.communicate(timeout=SECONDS_MAX)[1]
    assert ("tasks run as root" in errors) == (os.geteuid() == 0)


def test_separate_services_are_processes_of_their_own(dev: Dev) -> None:
    dev.start(separate="separate")
    assert len({dev.pids[name] for name in SERVICES}) == 5


def test_a_second_one_on_the_folder_is_refused(dev: Dev) -> None:
    dev.start()
    second = dev.begin()
    output, errors = second.communicate(timeout=SECONDS_MAX)
    assert (second.returncode, output) == (1, "")
    assert "is in use by another taskyard dev" in errors
    assert httpx.get(f"{dev.connection['http_url']}/readyz").is_success


def test_a_taken_port_is_refused(dev: Dev, tmp_path: Path) -> None:
    dev.start()
    port = httpx.URL(dev.connection["http_url"]).port
    assert port
    other = Dev(tmp_path / "other").begin(http_port=port)
    _, errors = other.communicate(timeout=SECONDS_MAX)
    assert other.returncode == 1
    assert f"port {port} is in use by python" in errors
    assert f"(pid {dev.pids['api']})" in errors


@pytest.mark.parametrize(("http", "nats"), [(4000, 4000), (4000, 0), (0, 4000), (0, 0)])
def test_both_servers_get_ports_of_their_own(http: int, nats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter((4000, 4000, 5000, 6000))
    monkeypatch.setattr("taskyard.embedded.processes.is_port_free", lambda _: True)
    monkeypatch.setattr("taskyard.embedded.processes.free_port", lambda: next(free))
    if http and http == nats:
        with pytest.raises(PortInUse, match="both have port 4000"):
            choose_ports(Ports(), http=http, nats=nats)
        return
    chosen = choose_ports(Ports(http=4000, nats=4000), http=http, nats=nats)
    assert chosen.http != chosen.nats
    assert http in {0, chosen.http}
    assert nats in {0, chosen.nats}


@pytest.mark.parametrize("name", ["worker-1", "scheduler", "nats-server", "postgres"])
def test_what_is_killed_is_started_again(dev: Dev, name: str) -> None:
    dev.start()
    killed = dev.pids[name]
    os.kill(killed, signal.SIGKILL)
    dev.wait_until(lambda: dev.pids[name] != killed)
    dev.note()
    assert dev.stop() == 0
    assert dev.alive() == []


def test_the_next_start_stops_what_was_left(dev: Dev) -> None:
    dev.start(workers=2)
    before, left = dev.connection, dev.alive()
    assert dev.child
    dev.stop(signal.SIGKILL)
    assert dev.alive() == left
    dev.start(workers=1)
    assert not [identity for identity in left if processes.is_alive(identity)]
    assert dev.pids.keys() == SERVICES | SERVERS | {"worker-1"}
    for name in ("admin_token", "nats_password", "http_url", "nats_url"):
        assert dev.connection[name] == before[name]


def test_it_starts_after_everything_was_killed(dev: Dev) -> None:
    dev.start()
    dev.stop(signal.SIGKILL)
    for identity in dev.alive():
        os.kill(identity.pid, signal.SIGKILL)
    dev.start()
    assert dev.stop() == 0
    assert dev.alive() == []


def test_it_starts_although_strangers_have_the_pids_of_what_was_killed(dev: Dev) -> None:
    """As in a container whose pids begin anew: PostgreSQL itself would not start beside one of its own user."""
    dev.start()
    dev.stop(signal.SIGKILL)
    for identity in dev.alive():
        os.kill(identity.pid, signal.SIGKILL)
    strangers = [subprocess.Popen(["sleep", "300"], user=SYSTEM_USER if os.geteuid() == 0 else None) for _ in "12"]
    try:
        for file in ("postgres/data/postmaster.pid", "nats/nats-server.pid"):
            path = dev.folder / file
            path.write_text("\n".join([str(strangers[0].pid), *path.read_text().splitlines()[1:], ""]))
        for path in (dev.folder / "postgres").rglob(".s.PGSQL.*.lock"):
            path.write_text("\n".join([str(strangers[0].pid), *path.read_text().splitlines()[1:], ""]))
        recorded = json.loads((dev.folder / "processes.json").read_text())
        for running in recorded.values():
            running["identity"]["pid"] = strangers[1].pid
        (dev.folder / "processes.json").write_text(json.dumps(recorded))
        dev.start()
        assert [stranger.poll() for stranger in strangers] == [None, None]
        assert dev.stop() == 0
        assert dev.alive() == []
    finally:
        for stranger in strangers:
            stranger.kill()
            stranger.wait()


def test_it_can_be_stopped_before_it_is_ready(dev: Dev) -> None:
    dev.child = dev.begin()
    dev.wait_until((dev.folder / "processes.json").exists)
    assert dev.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_leave_anything(dev: Dev, number: int) -> None:
    dev.start()
    assert dev.child
    dev.child.send_signal(number)
    dev.wait_until(lambda: processes.identify(dev.pids["worker-1"]) is None)
    assert dev.stop(number) == 0
    assert dev.alive() == []


@pytest.mark.parametrize("sign", ["lock", "postgres/data.new", "connection.json"])
def test_it_can_be_stopped_at_any_moment_of_its_start(dev: Dev, sign: str) -> None:
    dev.child = dev.begin()
    dev.wait_until((dev.folder / sign).exists)
    assert dev.stop() == 0
    assert not (dev.folder / "processes.json").exists()
    dev.start()
    assert dev.stop() == 0


def test_a_nats_server_that_cannot_start_is_given_up_with_its_reason(dev: Dev) -> None:
    (dev.folder / "nats").mkdir(parents=True)
    (dev.folder / "nats" / "store").write_text("a file where a folder should be")
    errors = dev.fails()
    assert "nats-server does not start" in errors
    assert "(Can't start JetStream" in errors.replace("[FTL] ", "")
    assert str(dev.folder / "nats" / "nats-server.log") in errors


def test_a_postgresql_that_cannot_start_is_given_up_with_its_reason(dev: Dev) -> None:
    (dev.folder / "postgres" / "data").mkdir(parents=True)
    errors = dev.fails()
    assert "postgres does not start" in errors
    assert str(dev.folder / "postgres" / "postgres.log") in errors


def test_services_that_cannot_start_are_given_up_with_their_reason(dev: Dev) -> None:
    errors = dev.fails(api="fake_failing")
    assert "services does not start (the fuse is blown)" in errors
    assert "services ended with 1: the fuse is blown; it starts again in 0.2 s" in errors
    assert not (dev.folder / "processes.json").exists()


@pytest.mark.parametrize("data", ["/proc/nowhere", "file/data", "file"])
def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, data: str) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / data  # an absolute one stays as it is
    assert str(folder) in Dev(folder).fails()


@pytest.mark.parametrize("name", ["ports.json", "credentials.json", "processes.json"])
def test_a_damaged_file_is_named(dev: Dev, name: str) -> None:
    dev.folder.mkdir()
    (dev.folder / name).write_text('{"half": ')
    assert f"{dev.folder / name} cannot be read" in dev.fails()


def test_a_worker_gets_as_long_to_leave_as_it_may_need() -> None:
    leaving_seconds = WORKER_DRAIN_SECONDS + agent.APPLY_DRAIN_SECONDS + GRACE_SECONDS + agent.FLUSH_SECONDS
    assert leaving_seconds < WORKERS_STOP_SECONDS


def test_it_tells_what_it_does_and_where_to_go(dev: Dev) -> None:
    child = dev.child = dev.begin()
    assert child.stdout
    assert child.stderr
    assert child.stdout.readline() == "ready\n"
    dev.note()
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=SECONDS_MAX)
    assert "starts nats-server, PostgreSQL, 5 services, 1 worker\n" in errors
    assert f"{dev.connection['http_url']}/docs" in errors
    assert str(dev.folder / "connection.json") in errors
    assert "stops" in errors.splitlines()[-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_lets_go_of_nothing_that_runs(dev: Dev) -> None:
    """What is killed meanwhile comes back when there is room again, and a stop is as clean as any."""
    dev.folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256m,mode=700", "taskyard-test", str(dev.folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting is not permitted here")
    try:
        dev.start()
        before = dev.pids
        ballast = dev.folder / "ballast"
        fill(ballast)
        for name in ("worker-1", "scheduler"):
            os.kill(before[name], signal.SIGKILL)
        assert dev.child and dev.child.stderr
        told = iter(dev.child.stderr.readline, "")
        assert any("nobody could record that it runs: No space left on device" in line for line in told)
        ballast.unlink()
        dev.wait_until(lambda: all(dev.pids[name] != before[name] for name in ("worker-1", "scheduler")))
        dev.note()
        fill(ballast)
        assert dev.stop() == 0
        assert dev.alive() == []
    finally:
        subprocess.run(["umount", "--lazy", str(dev.folder)], check=True)


def fill(file: Path) -> None:
    """Take all room that the disk has left."""
    with file.open("wb", buffering=0) as taken, suppress(OSError):
        for size in (1 << 16, 1 << 9):
            with suppress(OSError):
                while taken.write(b"x" * size) == size:
                    pass
