"""What is handed to a program is whole, whenever the agent that wrote it was killed."""

from pathlib import Path
from typing import Any

import pytest

from taskyard.agent.executors import work_folders
from taskyard.agent.executors.work_folders import WorkFolders
from taskyard.contracts.values import Position

SCRIPT = b"echo it ran"


class Context:
    user = None

    def __init__(self, *, is_resumed: bool) -> None:
        self.is_resumed = is_resumed


class Killed(BaseException):
    pass


def hand(folders: WorkFolders, *, is_resumed: bool, data: bytes = SCRIPT) -> Path:
    return folders.hand(Position(7), "script", data, Context(is_resumed=is_resumed))  # type: ignore[arg-type]


def test_a_script_of_which_a_killed_agent_had_written_half_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = WorkFolders(tmp_path / "work")

    def half(file: Path, content: bytes) -> Any:
        file.write_bytes(content[: len(content) // 2])
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(work_folders, "write_passing", half)
        with pytest.raises(Killed):
            hand(folders, is_resumed=False)

    assert hand(folders, is_resumed=True).read_bytes() == SCRIPT


def test_a_script_that_is_whole_stays_as_it_is_for_the_program_that_reads_it(tmp_path: Path) -> None:
    folders = WorkFolders(tmp_path / "work")
    first = hand(folders, is_resumed=False).stat().st_ino

    assert hand(folders, is_resumed=True, data=b"other").stat().st_ino == first
