"""The whole suite in its short form: each fault once, on real processes, and nothing is lost, doubled, stuck or leaked."""

import json
from random import Random

import pytest

from taskyard.chaos.app import main
from taskyard.chaos.plan import make_plan
from taskyard.dev.options import SERVICES


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_whatever_dies_or_stands_still_nothing_is_lost_doubled_stuck_or_leaked(
    capfd: pytest.CaptureFixture[str],
) -> None:
    status = main(["--rounds", "1", "--outage", "5", "--freeze", "9", "--json"])
    out, told = capfd.readouterr()
    assert out, told
    result = json.loads(out.splitlines()[-1])
    assert status == 0, told
    assert [result[name] for name in ("lost", "doubled", "stuck", "leaked", "healthy_ended")] == [0] * 5
    assert result["kills"] > len(SERVICES) + 2
    plan = make_plan(Random(1), rounds=1, outage_seconds=5, freeze_seconds=9, has_own_disk=not result["skipped"])
    assert {step.name for step in plan} <= {row["fault"] for row in result["faults"]}
    assert {f"kill -9 {service}" for service in SERVICES} <= {row["fault"] for row in result["faults"]}
    assert result["tasks"] > 1_000
    assert result["witnessed"] > 100
    assert result["longest_gap_seconds"] > 0


def test_wrong_usage_is_told_before_anything_starts(tmp_path_factory: pytest.TempPathFactory) -> None:
    used = tmp_path_factory.mktemp("used")
    (used / "something").touch()
    for arguments in (["--rounds", "0"], ["--rate", "-1"], ["--outage", "x"], ["--keep", str(used)], ["--nonsense"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
