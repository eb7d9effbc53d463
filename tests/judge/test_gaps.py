"""The longest time in which nothing began although something waited."""

from taskyard.contracts.values import SECOND, Instant
from taskyard.judge.gaps import find_gaps, longest


def gap_of(*waits: tuple[float, float]) -> float:
    return longest(find_gaps((Instant(round(a * SECOND)), Instant(round(b * SECOND))) for a, b in waits)).seconds


def test_nothing_that_waited_is_no_gap() -> None:
    assert gap_of() == 0


def test_a_task_that_waited_alone_is_a_gap_from_its_acceptance() -> None:
    assert gap_of((10, 13)) == 3


def test_a_time_without_work_is_no_gap() -> None:
    assert gap_of((10, 11), (500, 502)) == 2


def test_while_others_start_a_task_that_waits_long_makes_no_gap() -> None:
    assert gap_of((0, 9.5), *((second, second + 1) for second in range(10))) == 1


def test_a_stop_of_everything_is_measured_from_the_last_start_before_it() -> None:
    assert gap_of((0, 1), (0.5, 2), (1.5, 9), (3, 9.1)) == 7
