"""The checks bite: each rule of the protocol, broken on purpose, is found by some seed of those that the suite runs."""

import pytest

from taskyard.simulation.defects import DEFECTS, defect
from taskyard.simulation.errors import UnknownDefect
from taskyard.simulation.run import run_seed

SEEDS = 1_050
"""As many as `test_seeds.py` runs, beside some single ones."""
FIRST = {
    "acts-before-it-is-durable": 908,
    "answers-for-what-it-never-had": 103,
    "begins-behind-versions": 386,
    "believes-a-journal-that-was-put-back": 103,
    "believes-anybody": 33,
    "confirms-what-is-shown-now": 1_046,
    "fills-what-it-closes": 25,
    "forgets-drains": 255,
    "log-is-not-believed": 1440,
    "memory-is-not-on-disk": 127,
    "never-fences-itself": 534,
    "passes-over-versions": 27,
    "reserves-what-is-gone": 485,
    "sends-once": 41,
    "takes-work-on-a-full-disk": 38,
    "time-goes-back": 1_023,
    "trusts-any-silence": 1_216,
    "trusts-silence-to-others": 108,
}
"""Where to begin, for what shows itself rarely."""


@pytest.mark.parametrize("name", sorted(DEFECTS))
def test_a_broken_rule_is_found(name: str) -> None:
    first = FIRST.get(name, 0)
    with defect(name):
        found = any(
            run_seed(seed).failures for seed in (first, *(number % SEEDS for number in range(first, first + SEEDS)))
        )
    assert found, f"nobody noticed {name}"


def test_after_a_defect_everything_is_as_it_was() -> None:
    before = run_seed(0)
    with defect("forgets-ids"):
        assert run_seed(0).failures
    assert run_seed(0).digest == before.digest


def test_an_unknown_defect_is_refused() -> None:
    with pytest.raises(UnknownDefect, match="no-fence"), defect("nonsense"):
        pass
