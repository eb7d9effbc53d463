"""The checks bite: each rule of the protocol, broken on purpose, is found within some seeds."""

import pytest

from taskyard.simulation.defects import DEFECTS, defect
from taskyard.simulation.errors import UnknownDefect
from taskyard.simulation.run import run_seed

SEEDS_MAX = 600
FIRST = {"forgets-to-ask": 2040, "reserves-what-is-gone": 127}
"""Where to begin, for what shows itself too rarely."""


@pytest.mark.parametrize("name", sorted(DEFECTS))
def test_a_broken_rule_is_found(name: str) -> None:
    with defect(name):
        first = FIRST.get(name, 0)
        assert any(run_seed(seed).failures for seed in range(first, first + SEEDS_MAX)), f"nobody noticed {name}"


def test_after_a_defect_everything_is_as_it_was() -> None:
    before = run_seed(0)
    with defect("forgets-ids"):
        assert run_seed(0).failures
    assert run_seed(0).digest == before.digest


def test_an_unknown_defect_is_refused() -> None:
    with pytest.raises(UnknownDefect, match="no-fence"), defect("nonsense"):
        pass
