"""The package in examples/own_kind, installed as users would: a kind, its function, and nothing of Taskyard changed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskyard.contracts.agent_protocol import Failed, Started, Succeeded

ROOT = Path(__file__).parents[2]
COMMAND_LINE = "from taskyard.cli.app import main; main()"
PICTURE = {"width": 1600, "height": 900, "most": 400}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the package and what tells that it is installed, on the path of every Python from now on."""
    folder = tmp_path / "site"
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *quiet, "--target", folder, ROOT / "examples/own_kind"], check=True
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=100, check=False, env=os.environ, cwd=ROOT
    )


@pytest.mark.usefixtures("installed")
def test_its_kind_passes_what_every_kind_must(tmp_path: Path) -> None:
    suite = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}"]
    names = (
        "test_a_kind_takes_its_own_example_and_shows_only_fields_that_its_input_has",
        "test_only_a_kind_that_asks_for_approval_can_be_told_to_confirm_itself",
    )
    done = python(*suite, *(f"tests/contracts/test_kinds.py::{name}[resize]" for name in names))

    assert done.returncode == 0, done.stdout


@pytest.mark.usefixtures("installed")
def test_the_schema_of_its_input_and_the_table_of_kinds_hold_it() -> None:
    shown = "from taskyard.contracts.generate_schema import schema; from taskyard.contracts.generate_page import page"
    done = python("-c", f"{shown}; assert 'Picture' in schema('kinds')['$defs']; assert '`resize`' in page()")

    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("installed")
def test_an_agent_that_is_started_with_it_runs_its_function(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        agent = harness.process(modules=["own_kind"])
        await harness.joined(d)
        assert "resize" in d.heartbeats[-1].kinds
        fits, wrong = d.assignment("resize", PICTURE), d.assignment("resize", {"width": 0, "height": 0}, slot=1)
        await d.assign(fits, wrong)

        ended = await d.report(fits.task, Succeeded, Failed)
        assert msgspec.json.decode(ended.result) == {"width": 400, "height": 225}
        assert [type(each) for each in await d.reports(fits.task)] == [Started, Succeeded]
        assert await d.output(fits.task) == b"fits 1600 x 900 into 400\n"
        assert (await d.report(wrong.task, Failed)).error.code == "no_picture"
        assert agent.terminate() == 0

    harness.run(scenario)


def test_an_agent_that_shall_run_functions_of_a_module_that_has_none_says_so_and_ends(harness: Any) -> None:
    agent = harness.process(modules=["json"])

    assert agent.process.wait(30) == 2
    assert "json holds no function with @task" in agent.log.read_text()


@pytest.mark.usefixtures("installed")
def test_the_command_line_says_that_there_is_the_kind_and_what_its_input_looks_like() -> None:
    shown = python("-c", COMMAND_LINE, "submit", "--help")
    refused = python("-c", COMMAND_LINE, "submit", "resize")

    assert "resize: Fit a picture into a square" in " ".join(shown.stdout.replace("│", " ").split())
    assert (refused.returncode, '\'{"width":1600,"height":900}\'' in refused.stderr) == (2, True)
