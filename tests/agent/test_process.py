"""Processes: which programs are there, and which bear the mark of an agent's folder."""

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from taskyard.agent import process
from taskyard.agent.errors import ProgramNotFoundError
from taskyard.agent.process import ENV_DIRECTORY, ENV_STOP_SIGNAL, ENV_TASK, check_found, end_marked, marked

ENV = {"PATH": os.environ["PATH"]}


@pytest.mark.parametrize("program", ["no-such-program", "./main.tf", ""])
def test_what_cannot_be_run_is_not_found(tmp_path: Path, program: str) -> None:
    (tmp_path / "main.tf").touch()
    with pytest.raises(ProgramNotFoundError):
        check_found(program, tmp_path, ENV)


def test_what_can_be_run_is_found(tmp_path: Path) -> None:
    check_found("sh", tmp_path, ENV)


def test_what_bears_the_mark_gets_the_signal_of_its_kind_once_and_its_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "KEEPERS_SECONDS", 0.0)
    save = f"echo x >> {tmp_path}/caught; sleep 0.5; touch {tmp_path}/saved; exit 0"
    script = f"trap '{save}' INT; touch {tmp_path}/ready; while :; do sleep 0.02; done"
    mark = {ENV_DIRECTORY: str(tmp_path.resolve()), ENV_STOP_SIGNAL: str(int(signal.SIGINT))}
    with subprocess.Popen(["sh", "-c", script], env=ENV | mark, start_new_session=True) as child:
        while not (tmp_path / "ready").exists():
            assert child.poll() is None
            time.sleep(0.01)

        async def end() -> None:
            async with asyncio.timeout(15):
                await end_marked(tmp_path)

        asyncio.run(end())
        assert child.wait(5) == 0
    assert (tmp_path / "caught").read_text() == "x\n"
    assert (tmp_path / "saved").exists()


def test_what_bears_the_mark_is_ended_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "KEEPERS_SECONDS", 0.0)
    mark = {ENV_DIRECTORY: str(tmp_path.resolve())}
    mine, other_task, other_folder = (
        subprocess.Popen(["sleep", "300"], env=ENV | more)
        for more in (
            mark | {ENV_TASK: "a"},
            mark | {ENV_TASK: "b"},
            {ENV_TASK: "a", ENV_DIRECTORY: str(tmp_path / "other")},
        )
    )
    try:

        async def end() -> None:
            async with asyncio.timeout(15):
                await end_marked(tmp_path, "a")

        asyncio.run(end())
        assert mine.wait(5) == -15
        assert marked(tmp_path) == [other_task.pid]
        assert other_folder.poll() is None
    finally:
        for one in (mine, other_task, other_folder):
            one.kill()
            one.wait()
