"""`taskyard replay`: what it shows of a slice, and what it refuses."""

from pathlib import Path

import pytest
from cli_server import Run

RECORDED = str(Path(__file__).parents[1] / "replay" / "recorded.taskyard.jsonl")


def test_a_slice_is_replayed_and_then_and_now_stand_side_by_side(run: Run) -> None:
    ran = run("replay", RECORDED, "--slots", "any,any,plan", "--policy", "keep-slot-0")
    lines = ran.out.splitlines()
    assert (ran.status, ran.err) == (0, "")
    assert lines[0].startswith("commits 1 to 276, 2026-11-21 15:11:32.517 to ")
    assert lines[1] == "replayed with the policy keep-slot-0, with slots any, any, plan"
    assert [line.split()[:3] for line in lines if line.startswith("completed")] == [["completed", "47", "47"]]
    assert any(line.startswith("WAITING") and "P95 THEN" in line for line in lines)
    assert any(line.startswith("order: ") for line in lines)
    assert "note: durations and outcomes of attempts are those of history, also on other slots" in lines


def test_it_fits_a_terminal_of_80_columns(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("replay", RECORDED, "--slots", "any,any,plan", "--policy", "keep-slot-0", "--workers", "3").out
    assert max(map(len, lines.splitlines())) <= 80


def test_json_has_everything(run: Run) -> None:
    [report] = run("replay", RECORDED, "--workers", "1", "--json").objects
    assert report["what_if"] == {"slots": None, "workers": 1, "policy": None}
    assert report["recorded"]["started"] == report["replayed"]["started"] == 48
    assert report["replayed"]["waiting"]["p95"] > report["recorded"]["waiting"]["p95"]
    assert len(report["replayed"]["order"]) == 49 and report["order"]["compared"] == 49


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((RECORDED, "--slots", "any,nope"), "'nope' is none of any, plan"),
        ((RECORDED, "--policy", "best"), "must be one of first-fit, keep-slot-0"),
        (("20",), "'20' is no file and no range"),
        (("yesterday..",), "'yesterday' must be a position of the log, or an RFC 3339 time"),
        (("gone.taskyard.jsonl",), "gone.taskyard.jsonl cannot be read: No such file"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_reason(arguments: tuple[str, ...], says: str, run: Run) -> None:
    ran = run("replay", *arguments)
    assert ran.status == 2 and says in ran.err, ran.err


def test_a_damaged_slice_says_where(run: Run, tmp_path: Path) -> None:
    damaged = tmp_path / "half.taskyard.jsonl"
    damaged.write_bytes(Path(RECORDED).read_bytes()[:5_000])
    ran = run("replay", str(damaged))
    assert ran.status == 1 and "line " in ran.err and ran.out == ""
