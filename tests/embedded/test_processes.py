"""Telling processes apart, stopping them for sure, ports, and private files."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from taskyard.embedded import processes
from taskyard.embedded.processes import Program

SLEEPS = "import time; print('up', flush=True); time.sleep(60)"
IGNORES_TERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEPS


@pytest.fixture
def running() -> Iterator[list["subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for child in started:
        child.kill()
        child.communicate()


def begin(running: list["subprocess.Popen[str]"], code: str) -> processes.ProcessIdentity:
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    running.append(child)
    assert child.stdout
    assert child.stdout.readline() == "up\n"
    identity = processes.identify(child.pid)
    assert identity
    return identity


def test_a_process_is_stopped_by_its_signal(running: list["subprocess.Popen[str]"]) -> None:
    identity = begin(running, SLEEPS)
    assert processes.is_alive(identity)
    assert processes.stop(identity, grace_seconds=5, stop_signal=signal.SIGINT)
    assert not processes.is_alive(identity)
    assert running[0].wait() == -signal.SIGINT
    assert not processes.stop(identity, grace_seconds=5)


def test_a_process_that_ignores_the_signal_is_killed(running: list["subprocess.Popen[str]"]) -> None:
    identity = begin(running, IGNORES_TERM)
    assert processes.stop(identity, grace_seconds=0.1)
    assert running[0].wait() == -signal.SIGKILL


@pytest.mark.parametrize("other", [{"start_ticks": 1}, {"boot_id": "another boot"}])
def test_a_process_with_a_reused_pid_is_left_alone(
    running: list["subprocess.Popen[str]"], other: dict[str, object]
) -> None:
    identity = begin(running, SLEEPS)
    assert not processes.stop(msgspec.structs.replace(identity, **other), grace_seconds=0.1)
    assert processes.is_alive(identity)


def test_a_zombie_is_no_process(running: list["subprocess.Popen[str]"]) -> None:
    identity = begin(running, SLEEPS)
    running[0].kill()
    os.waitid(os.P_PID, running[0].pid, os.WEXITED | os.WNOWAIT)
    assert processes.identify(identity.pid) is None


def test_a_name_with_parentheses_does_not_confuse(tmp_path: Path, running: list["subprocess.Popen[str]"]) -> None:
    script = tmp_path / "a) R (1"
    script.write_text(f"#!{sys.executable}\n{SLEEPS}\n")
    script.chmod(0o700)
    child = subprocess.Popen([script], stdout=subprocess.PIPE, text=True)
    running.append(child)
    assert child.stdout
    child.stdout.readline()
    ours = processes.identify(os.getpid())
    identity = processes.identify(child.pid)
    assert ours
    assert identity
    assert identity.start_ticks >= ours.start_ticks


def test_a_program_has_a_session_and_a_log_of_its_own(tmp_path: Path) -> None:
    print_facts = "import os, sys; print(os.getsid(0) == os.getpid(), os.environ['GREETING'], file=sys.stderr)"
    program = Program(
        name="facts",
        argv=(sys.executable, "-c", print_facts),
        log_file=tmp_path / "logs" / "facts.log",
        environment={"GREETING": "hello"},
    )
    assert processes.spawn(program).wait() == 0
    assert processes.spawn(program).wait() == 0
    assert program.log_file.read_text() == "True hello\n" * 2


def test_a_program_is_recognised_by_an_argument(running: list["subprocess.Popen[str]"]) -> None:
    identity = begin(running, SLEEPS)
    assert processes.has_argument(identity, SLEEPS)
    assert not processes.has_argument(identity, SLEEPS[:-1])


def test_a_free_port_is_free_and_outside_the_range_of_outgoing_connections() -> None:
    lowest, highest = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    for _ in range(50):
        port = processes.free_port()
        assert not lowest <= port <= highest
        assert processes.is_port_free(port)


def test_a_port_that_someone_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not processes.is_port_free(server.getsockname()[1])
