"""A worker whose disk is full: what runs goes on, nothing new begins, and all is well when there is room again."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskyard.agent import journal as journal_module
from taskyard.agent.disk import RESERVE_BYTES, Disk
from taskyard.agent.journal import Journal
from taskyard.agent.refusing import REASON_FULL
from taskyard.agent.supervised import Supervised
from taskyard.contracts.agent_protocol import Failed, Started, Succeeded


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The agent's folder on a disk of its own."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root on Linux")
    folder = tmp_path / "agent"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m,mode=700", "taskyard-test", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_command_that_fills_the_disk_harms_nothing_that_runs_and_all_heals_when_there_is_room(
    small_disk: Path, harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeezed: list[bool] = []
    squeeze = Supervised.squeeze

    def note_and_squeeze(self: Supervised) -> None:
        squeezed.append(True)
        squeeze(self)

    monkeypatch.setattr(Supervised, "squeeze", note_and_squeeze)

    async def scenario(d: Any) -> None:
        def until_exists(name: str) -> str:
            return f"while [ ! -e {tmp_path}/{name} ]; do sleep 0.05; done"

        flood = "head -c 3000000 /dev/zero"
        neighbour = d.assignment("command", {"script": f"{flood}; {until_exists('go')}; echo the end"})
        filler = d.assignment(
            "command", {"script": f"cat /dev/zero > fill; touch {tmp_path}/full; {until_exists('over')}"}, slot=1
        )
        await d.assign(neighbour, filler)
        for one in (neighbour, filler):
            await d.report(one.task, Started)

        async def full() -> bool:
            return (tmp_path / "full").exists()

        await harness.until(full)

        async def declined() -> bool:
            (answer,) = await d.assign(d.assignment("noop", slot=2))
            return (answer.outcome, answer.reason) == ("declined", REASON_FULL)

        await harness.until(declined)

        async def spools_shrank() -> bool:
            return bool(squeezed)

        await harness.until(spools_shrank)
        (tmp_path / "go").touch()
        end = await d.report(neighbour.task, Succeeded, Failed)
        assert isinstance(end, Succeeded), end
        assert (await d.output(neighbour.task)).endswith(b"the end\n")
        (tmp_path / "over").touch()
        await d.report(filler.task, Succeeded)

        async def accepted() -> bool:
            (answer,) = await d.assign(d.assignment("noop", slot=3))
            return answer.outcome == "accepted"

        await harness.until(accepted)
        assert (small_disk / "reserve").stat().st_size == RESERVE_BYTES

    harness.run_with_agent(scenario)


def test_a_reserve_is_kept_and_given_back_when_the_journal_finds_the_disk_full(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    assert not disk.is_full
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES
    disk.release()
    assert disk.is_full
    assert not (tmp_path / "reserve").exists()
    disk.check()
    assert not disk.is_full
    assert (tmp_path / "reserve").exists()


def test_a_journal_that_finds_the_disk_full_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "FULL_RETRY_SECONDS", 0.0)
    tries = 0
    commit = Journal._commit

    def full_at_first(self: Journal, transactions: Any) -> None:
        nonlocal tries
        tries += 1
        if tries <= 3:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        commit(self, transactions)

    async def scenario() -> None:
        journal = Journal(tmp_path, incarnation="r1")
        released: list[int] = []
        journal.on_full = lambda: released.append(tries)
        monkeypatch.setattr(Journal, "_commit", full_at_first)
        journal.write_batches([("r1", 1, b"x")])
        async with asyncio.timeout(10):
            await journal.sync()
        assert released == [1, 2, 3]
        journal.close()
        journal = Journal(tmp_path, incarnation="r2")
        assert journal.left.batches == [("r1", 1, b"x")]
        journal.close()

    asyncio.run(scenario())
