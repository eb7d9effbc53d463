"""What a run of `taskyard dev` that was killed has left is found, also where it was killed before it recorded it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskyard.dev.layout import Layout
from taskyard.dev.left_over import stop_left_over
from taskyard.embedded import processes

SLEEPER = "import time\nprint('runs', flush=True)\ntime.sleep(600)\n"


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[processes.ProcessIdentity]:
    """A program that sleeps, `taskyard.left_over_sleeper`, started with these arguments."""
    module = folder / "modules" / "taskyard" / "left_over_sleeper.py"
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_text(SLEEPER)
    environment = {**os.environ, "PYTHONPATH": str(folder / "modules")}
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, env=environment) as child:
        try:
            assert child.stdout
            assert child.stdout.readline() == b"runs\n"
            identity = processes.identify(child.pid)
            assert identity
            yield identity
        finally:
            child.kill()


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(tmp_path / "data")
    with layout.locked():
        yield layout


def test_a_program_that_was_started_and_not_recorded_is_stopped(layout: Layout, tmp_path: Path) -> None:
    told: list[str] = []
    file = str(layout.configuration_file("services"))
    with running(tmp_path, "-m", "taskyard.left_over_sleeper", "--config", file) as left:
        stop_left_over(layout, told.append)
        assert not processes.is_alive(left)
        assert told == [f"stopped process {left.pid} of an earlier run, which had not recorded it yet"]


@pytest.mark.parametrize("whose", ["of another folder", "of a person"])
def test_a_program_of_another_is_left_alone(whose: str, layout: Layout, tmp_path: Path) -> None:
    file = str(layout.configuration_file("services"))
    arguments = {
        "of another folder": ("-m", "taskyard.left_over_sleeper", "--config", file.replace("/data/", "/other/")),
        "of a person": ("-c", SLEEPER, "log", "verify", "--config", file),
    }[whose]
    told: list[str] = []
    with running(tmp_path, *arguments) as other:
        stop_left_over(layout, told.append)
        assert processes.is_alive(other)
    assert told == []
