"""Where a reader is in an output of which some is missing."""

import pytest

from taskyard.contracts.output_marks import OutputPlace, missing_mark


@pytest.mark.parametrize("size", [1, 2, 7, 50, 1_000])
def test_a_place_counts_what_is_missing_and_not_the_marks_however_the_answer_is_cut(size: int) -> None:
    answer = missing_mark(7) + b"ab\n[taskyard: no mark]\n" + missing_mark(10**12) + missing_mark(3) + b"c" * 500
    place = OutputPlace()
    for first in range(0, len(answer), size):
        place.take(answer[first : first + size])
    assert place.place == 7 + 23 + 10**12 + 3 + 500
