"""A slice of a recorded log is run in simulated time, and judged."""

import json
from pathlib import Path

import pytest

from taskyard.simulation.app import UNREADABLE, main

RECORDED = Path(__file__).parents[1] / "replay" / "recorded.taskyard.jsonl"
"""Some minutes of a real system, anonymised."""


def test_what_a_slice_recorded_runs_to_its_end_and_breaks_no_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--slice", str(RECORDED), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["seeds"], said["failed"], said["tasks"]) == (0, 0, 49)
    assert said["events"] > 6 * 47


@pytest.mark.parametrize("name", ["slots-take-anything", "limits-are-passed", "attempts-begin-again"])
def test_a_rule_that_is_broken_shows_in_a_slice(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--slice", str(RECORDED), "--defect", name]) == 1
    assert " 0 failures" not in capsys.readouterr().out


def test_a_file_that_is_no_slice_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text"
    text.write_text("no slice", encoding="utf-8")
    for file, told in ((text, "not the header of a slice"), (tmp_path / "none", "No such file")):
        assert main(["--slice", str(file)]) == UNREADABLE
        assert f"{file}: " in (error := capsys.readouterr().err) and told in error
