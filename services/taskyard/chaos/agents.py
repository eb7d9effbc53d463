"""What is done to agents and their folders: a second one of the same name, a journal put back, what a kill must leave whole."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from taskyard.chaos.errors import NotBroken
from taskyard.private_files import make_folder, open_to_append, write_private
from taskyard.settings import AgentSettings, load

JOURNAL = "journal.sqlite"
TWIN_STOP_SECONDS_MAX = 45.0
STOPPED_SECONDS_MAX = 5.0
LEFT_SECONDS_MAX = 5.0
POLL_SECONDS = 0.02
CONNECTED = "connected to NATS"
"""What an agent says in its log."""


class Twin:
    """A second agent with the settings of another, its name too, and a `folder` of its own."""

    def __init__(self, configuration: Path, folder: Path) -> None:
        make_folder(folder)
        settings = msgspec.structs.replace(load(AgentSettings, configuration, {}), directory=str(folder))
        file = folder.with_suffix(".json")
        write_private(file, msgspec.json.encode(settings))
        self._folder = folder
        self._log = folder.with_suffix(".log")
        with open_to_append(self._log) as log:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "taskyard.agent", "--config", str(file)), stdout=log, stderr=log
            )

    def is_connected(self, timeout_seconds: float) -> bool:
        """Wait until it has said that it is connected; False if that took too long."""
        deadline = time.monotonic() + timeout_seconds
        while CONNECTED not in self._log.read_text():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def incarnation(self) -> str:
        """What it calls this run of itself; `""` before it has said so."""
        told = (msgspec.json.decode(line) for line in self._log.read_bytes().splitlines() if line.startswith(b"{"))
        return next((line["incarnation"] for line in told if "incarnation" in line), "")

    def stop(self) -> None:
        """End it in order, and then whatever it has left: its host is gone with it."""
        self._process.terminate()
        try:
            self._process.wait(TWIN_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        end_all_of(self._folder)


def end_all_of(folder: Path) -> int:
    """Kill whatever names a place in the folder in its command line or environment; how many processes that were."""
    pids = _all_of(folder)
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


def left_of(folder: Path) -> int:
    """How many processes do not go by themselves, though their agent has: a supervisor that was told to goes after it."""
    deadline = time.monotonic() + LEFT_SECONDS_MAX
    while _all_of(folder) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return end_all_of(folder)


def _all_of(folder: Path) -> list[int]:
    mark, found = f"{folder}/".encode(), list[int]()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            if mark in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def copy_journal(directory: Path, copy: Path, pid: int) -> None:
    """Copy the journal of an agent as it is on disk now: the agent stands still meanwhile."""
    make_folder(copy)
    with _standing_still(pid):
        for file in directory.glob(f"{JOURNAL}*"):
            shutil.copy2(file, copy)


def put_journal_back(directory: Path, copy: Path, pid: int) -> None:
    """Stop an agent, put its journal back to the copy, and kill it: as when a disk is restored from a snapshot.

    Raises:
        NotBroken: the journal has not changed since it was copied.
    """
    with _standing_still(pid):
        now = {file.name: file.read_bytes() for file in directory.glob(f"{JOURNAL}*")}
        before = {file.name: file.read_bytes() for file in copy.iterdir()}
        if now == before:
            raise NotBroken(f"the journal in {directory} is what it was when it was copied")
        for name in now:
            (directory / name).unlink()
        for name in before:
            shutil.copy2(copy / name, directory)
        os.kill(pid, signal.SIGKILL)


def is_standing_still(pid: int) -> bool:
    """Whether a process was stopped by a signal."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"
    return False


def stand_still(pids: Iterator[int]) -> None:
    """Stop processes until they are sent SIGCONT. Raises `NotBroken` where one goes on."""
    stopped = list(pids)
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + STOPPED_SECONDS_MAX
    while not all(map(is_standing_still, stopped)):
        if time.monotonic() > deadline:
            raise NotBroken("a process that was stopped does not stand still")
        time.sleep(POLL_SECONDS)


@contextmanager
def _standing_still(pid: int) -> Iterator[None]:
    try:
        stand_still(iter((pid,)))
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def find_state_faults(configuration: Path, variable: str) -> list[str]:
    """What is wrong with the Terraform state of a configuration after an apply with this value of `run`."""
    state = configuration / "terraform.tfstate"
    faults = [f"{file.name} is still there" for file in configuration.glob(".*.lock.info")]
    try:
        found = msgspec.json.decode(state.read_bytes(), type=_State)
    except (OSError, msgspec.DecodeError) as error:
        return [*faults, f"the state of {configuration} cannot be read: {error}"]
    values = [instance.attributes.get("triggers_replace") for one in found.resources for instance in one.instances]
    if not any(variable in str(value) for value in values):
        faults.append(f"the state of {configuration} does not have what was applied last")
    return faults


class _Instance(msgspec.Struct):
    attributes: dict[str, object] = {}


class _Resource(msgspec.Struct):
    instances: list[_Instance] = []


class _State(msgspec.Struct):
    resources: list[_Resource] = []
