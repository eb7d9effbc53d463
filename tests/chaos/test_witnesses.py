"""Witnesses: what a script leaves is read as what ran, by whom and when."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from taskyard.chaos.witnesses import Witnesses

TASK = "01a3185c-52dd-7ce5-85c6-5b2fc1658618"


@pytest.fixture
def witnesses(tmp_path: Path) -> Witnesses:
    (tmp_path / "worker-1" / "work").mkdir(parents=True)
    return Witnesses(tmp_path, {"worker-1": tmp_path / "worker-1", "worker-2": tmp_path / "worker-2"})


def run(script: str, folder: Path, attempt: int = 1) -> int:
    env = {**os.environ, "TASKYARD_TASK": TASK, "TASKYARD_ATTEMPT": str(attempt)}
    return subprocess.run(["/bin/sh", "-c", script], cwd=folder, env=env, check=False, timeout=30).returncode


def test_a_run_is_seen_with_its_worker_and_its_times(witnesses: Witnesses, tmp_path: Path) -> None:
    before = time.time()
    assert run(witnesses.script("sleep 0.1"), tmp_path / "worker-1" / "work") == 0
    (seen,) = witnesses.runs()
    assert (seen.host, seen.task, seen.attempt, seen.kind, seen.apply) == ("worker-1", TASK, 1, "command", False)
    assert seen.ended is not None
    assert before <= seen.began <= seen.ended - 0.1 <= time.time()


def test_a_script_ends_as_its_work_does(witnesses: Witnesses, tmp_path: Path) -> None:
    assert run(witnesses.script("exit 3"), tmp_path / "worker-1" / "work") == 3
    assert len(witnesses.runs()) == 1


def test_a_run_that_was_killed_was_seen_at_its_begin_only(witnesses: Witnesses, tmp_path: Path) -> None:
    run(witnesses.script("kill -9 $$"), tmp_path / "worker-1" / "work")
    (seen,) = witnesses.runs()
    assert seen.ended == seen.began


def test_the_same_attempt_twice_is_seen_twice(witnesses: Witnesses, tmp_path: Path) -> None:
    for attempt in (1, 1, 2):
        run(witnesses.script(":"), tmp_path / "worker-1" / "work", attempt)
    assert [seen.attempt for seen in witnesses.runs()] == [1, 1, 2]
