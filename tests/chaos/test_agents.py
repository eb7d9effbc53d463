"""What is done to agents is really done: processes stand still, a journal goes back, what an apply left is read."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from taskyard.chaos.agents import (
    copy_journal,
    end_all_of,
    find_state_faults,
    is_standing_still,
    put_journal_back,
    stand_still,
)
from taskyard.chaos.disks import OwnDisk, why_no_disks
from taskyard.chaos.errors import NotBroken


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield child
    child.kill()
    child.wait()


def test_what_is_stopped_stands_still_until_it_is_told_to_go_on(process: subprocess.Popen[bytes]) -> None:
    stand_still(iter((process.pid,)))
    assert is_standing_still(process.pid)
    process.send_signal(signal.SIGCONT)
    os.waitid(os.P_PID, process.pid, os.WCONTINUED)
    assert not is_standing_still(process.pid)


def test_a_process_that_is_gone_does_not_stand_still(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert not is_standing_still(process.pid)


def slots(folder: Path) -> list[int]:
    with closing(sqlite3.connect(folder / "journal.sqlite")) as database:
        return [slot for (slot,) in database.execute("SELECT slot FROM slots")]


def test_a_journal_goes_back_to_what_it_was_and_its_agent_is_killed(
    process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "worker"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "journal.sqlite", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE slots (slot INTEGER)")
        database.execute("INSERT INTO slots VALUES (1)")
        copy_journal(folder, tmp_path / "copy", process.pid)
        assert not is_standing_still(process.pid)
        database.execute("INSERT INTO slots VALUES (2)")
        put_journal_back(folder, tmp_path / "copy", process.pid)
        assert process.wait() == -signal.SIGKILL
        assert slots(folder) == [1]


def test_a_journal_that_nothing_was_written_to_since_proves_nothing(
    process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "worker"
    folder.mkdir()
    (folder / "journal.sqlite").write_bytes(b"as it was")
    copy_journal(folder, tmp_path / "copy", process.pid)
    with pytest.raises(NotBroken):
        put_journal_back(folder, tmp_path / "copy", process.pid)


def test_what_a_host_had_is_found_by_its_folder_and_ended(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], env={**os.environ, "HOME": f"{tmp_path}/twin/work"}
    )
    assert end_all_of(tmp_path / "another") == 0
    while not end_all_of(tmp_path / "twin"):  # what it is started with shows only once it runs
        assert child.poll() is None
    assert child.wait() == -signal.SIGKILL


def state_of(folder: Path, value: str) -> None:
    instance = {"attributes": {"triggers_replace": value}}
    (folder / "terraform.tfstate").write_text(json.dumps({"resources": [{"instances": [instance]}]}))


def test_a_state_that_is_whole_and_free_is_well(tmp_path: Path) -> None:
    state_of(tmp_path, "the-task")
    assert find_state_faults(tmp_path, "the-task") == []


def test_a_state_that_is_missing_torn_old_or_locked_is_told(tmp_path: Path) -> None:
    assert find_state_faults(tmp_path, "the-task")
    (tmp_path / "terraform.tfstate").write_text('{"resources": [')
    assert find_state_faults(tmp_path, "the-task")
    state_of(tmp_path, "another")
    assert find_state_faults(tmp_path, "the-task")
    state_of(tmp_path, "the-task")
    (tmp_path / ".terraform.tfstate.lock.info").touch()
    assert find_state_faults(tmp_path, "the-task") == [".terraform.tfstate.lock.info is still there"]


@pytest.mark.skipif(why_no_disks() is not None, reason="a disk can be made as root on Linux only")
def test_a_full_disk_takes_nothing_and_has_room_again_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    disk = OwnDisk(folder)
    assert disk.mount() is None
    try:
        (folder / "before").write_bytes(b"kept")
        with disk.full(), pytest.raises(OSError, match="No space left"):
            (folder / "more").write_bytes(bytes(1 << 20))
        (folder / "more").write_bytes(bytes(1 << 20))
    finally:
        disk.unmount(is_kept=True)
    assert (folder / "before").read_bytes() == b"kept"
    assert not folder.is_mount()
