"""A run that fails is made smaller, and still fails in the same way."""

import pytest

from taskyard.simulation.acts import format_numbers, parse_numbers
from taskyard.simulation.defects import defect
from taskyard.simulation.run import run_seed
from taskyard.simulation.shrink import shrink


@pytest.mark.parametrize(
    ("numbers", "text"), [(set[int](), ""), ({3}, "3"), ({0, 1, 2}, "0-2"), ({9, 0, 1, 5, 6}, "0-1,5-6,9")]
)
def test_numbers_are_written_short_and_read_again(numbers: set[int], text: str) -> None:
    assert format_numbers(numbers) == text
    assert parse_numbers(text) == numbers


def test_what_is_left_out_does_not_happen() -> None:
    planned = run_seed(2).acts
    nothing = run_seed(2, frozenset(range(len(planned))))
    assert not nothing.failures
    assert nothing.tasks == 0
    assert nothing.acts == planned


def test_few_acts_show_what_many_did() -> None:
    with defect("applies-unasked"):
        whole = run_seed(0)
        small = shrink(whole)
        assert small.failures
        assert len(small.without) > len(whole.acts) * 3 // 4
        assert run_seed(0, small.without).digest == small.digest


def test_the_search_ends_after_so_many_runs() -> None:
    with defect("applies-unasked"):
        whole = run_seed(0)
        assert len(shrink(whole, runs_max=1).without) == 0
