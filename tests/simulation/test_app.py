"""The command line of the simulator."""

import json

import pytest

from taskyard.simulation.app import main


def test_the_last_line_of_json_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "3", "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["seeds"], last["failed"]) == (3, 0)
    assert last["events"] > 0


def test_one_seed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["seeds"] == 1


def test_a_failure_is_shown_with_its_history_and_how_to_see_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "3", "--defect", "applies-unasked", "--json"]) == 1
    shown = capsys.readouterr().out
    assert json.loads(shown.splitlines()[-1])["failed"] > 0
    assert "python -m taskyard.simulation --seed" in shown
    assert "--defect applies-unasked" in shown
    assert "SlotAssigned" in shown
    assert "FAULT" in shown
