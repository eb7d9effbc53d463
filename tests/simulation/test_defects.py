"""The checks bite: each rule of the protocol, broken on purpose, is found by some seed of those that the suite runs."""

import pytest

from taskyard.simulation.defects import DEFECTS, defect
from taskyard.simulation.errors import UnknownDefect
from taskyard.simulation.run import run_seed

SEEDS = 1_050
"""As many as `test_seeds.py` runs."""
FIRST = {
    "clock-back-is-not-seen": 1013,
    "forgets-drains": 80,
    "reserves-what-is-gone": 833,
    "time-goes-back": 95,
    "trusts-any-silence": 421,
}
"""Where to begin, for what shows itself rarely."""


@pytest.mark.parametrize("name", sorted(DEFECTS))
def test_a_broken_rule_is_found(name: str) -> None:
    first = FIRST.get(name, 0)
    with defect(name):
        found = any(run_seed(seed % SEEDS).failures for seed in range(first, first + SEEDS))
    assert found, f"nobody noticed {name}"


def test_after_a_defect_everything_is_as_it_was() -> None:
    before = run_seed(0)
    with defect("forgets-ids"):
        assert run_seed(0).failures
    assert run_seed(0).digest == before.digest


def test_an_unknown_defect_is_refused() -> None:
    with pytest.raises(UnknownDefect, match="no-fence"), defect("nonsense"):
        pass
