"""The command line of the simulator."""

import json
import re

import pytest

from taskyard.simulation.app import main
from taskyard.simulation.defects import DEFECTS


def test_the_last_line_of_json_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "3", "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["seeds"], last["failed"]) == (3, 0)
    assert last["events"] > 0


def test_one_seed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["seeds"] == 1


def test_a_failure_is_shown_made_small_and_can_be_seen_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "0", "--defect", "applies-unasked", "--json"]) == 1
    shown = capsys.readouterr().out
    assert json.loads(shown.splitlines()[-1])["failed"] == 1
    assert "acts are enough" in shown
    assert "SlotAssigned" in shown
    assert "FAULT" in shown
    again = re.search(r"see it again: \./dev simulate (.*)", shown)
    assert again is not None
    assert "--without" in again[1]
    assert main(again[1].split()) == 1


def test_help_tells_what_can_be_broken(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    told = capsys.readouterr().out
    assert stopped.value.code == 0
    assert all(f"  {name} " in told for name in DEFECTS)
    assert "A plan is applied without a confirmation." in told


def test_numbers_that_are_none_are_refused_with_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--seed", "0", "--without", "all"])
    assert stopped.value.code == 2
    assert "--without" in capsys.readouterr().err
