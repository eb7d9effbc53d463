"""What is going to be done to a world, drawn before it begins: submissions, commands and faults, each with a number.

So a failing run can be told by its seed and the numbers that are left out of it: see `shrink.py`.
"""

from collections.abc import Iterable
from typing import NamedTuple

from taskyard.simulation.time import Step, World


class Act(NamedTuple):
    """One thing that is done: when, and what."""

    seconds: float
    what: str


class Acts:
    """The acts of one run. Those whose number is in `without` are left out."""

    def __init__(self, world: World, without: frozenset[int]) -> None:
        self.planned: list[Act] = []
        self._world = world
        self._without = without

    def plan(self, at_seconds: float, what: str, do: Step) -> None:
        """Do something at a time of the world, unless it is left out."""
        number = len(self.planned)
        self.planned.append(Act(at_seconds, what))
        if number not in self._without:
            self._world.later(at_seconds, do)


def format_numbers(numbers: Iterable[int]) -> str:
    """Numbers as a person may type them: `0-4,7`."""
    parts: list[str] = []
    first = last = None
    for number in [*sorted(numbers), None]:
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None:
            parts.append(f"{first}" if first == last else f"{first}-{last}")
        first = last = number
    return ",".join(parts)


def parse_numbers(text: str) -> frozenset[int]:
    """What `format_numbers` wrote.

    Raises:
        ValueError: it is something else.
    """
    numbers: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)
