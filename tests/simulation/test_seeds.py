"""Whole systems under faults, from seeds: nothing may be wrong in any of them."""

from collections.abc import Sequence

import pytest

from taskyard.contracts.commands import COMMAND_BYTES_MAX
from taskyard.simulation.history import replay_options, shortened_history
from taskyard.simulation.run import run_seed
from taskyard.simulation.shrink import shrink

SEEDS = 1_050
CHUNK = 50
BESIDE = (1_216, 2_071, 2_514, 100_378, 101_062)
"""Single ones that show what is rare, or once found something."""


@pytest.mark.parametrize(
    "seeds", [*(range(first, first + CHUNK) for first in range(0, SEEDS, CHUNK)), BESIDE], ids=lambda seeds: seeds[0]
)
def test_whatever_fails_nothing_is_lost_or_doubled_and_everything_ends(seeds: Sequence[int]) -> None:
    for seed in seeds:
        outcome = run_seed(seed)
        if outcome.failures:
            small = shrink(outcome)
            pytest.fail(f"{shortened_history(small)}\nsee it again: ./dev simulate {replay_options(small)}")


@pytest.mark.parametrize("seed", [3, 58, 175])
def test_a_seed_gives_the_same_log_every_time(seed: int) -> None:
    first, second = run_seed(seed), run_seed(seed)
    assert first.digest == second.digest
    assert first.faults == second.faults
    assert first.runs == second.runs


def test_seeds_differ() -> None:
    assert run_seed(1).digest != run_seed(2).digest


def test_the_seeds_contain_what_they_should() -> None:
    """Faults, applies, and tasks of every kind: a world in which nothing happens would find nothing."""
    outcomes = [run_seed(seed) for seed in range(90)]
    runs = [run for outcome in outcomes for run in outcome.runs]
    assert {run.kind for run in runs} == {"plan", "plan_and_apply", "command", "noop"}
    assert sum(run.apply for run in runs) > 60
    assert sum(outcome.events for outcome in outcomes) > 6_000
    assert any("self_fenced" in logged.data.decode() for outcome in outcomes for logged in outcome.log)
    assert any(len(logged.data) > COMMAND_BYTES_MAX // 2 for outcome in outcomes for logged in outcome.log)
    noted = " ".join(what for outcome in outcomes for _, what in outcome.faults)
    for what in (
        "crashes", "frozen", "is stopped", "an hour passes", "given to everybody", "hears no heartbeat",
        "do not answer", "is full", "does not hear of the log", "steps by", "reads its inputs again",
        "with its journal", "has no network", "leaves", "lies", "made anew", "is upgraded", "is activated",
        "does not know the version", "everything stands still", "all of ", "burst of commands", "with 24 slots",
        "the archive is away", "is put back", "is full for", "takes the name of",
        "is told to go from",
    ):  # fmt: skip
        assert what in noted
