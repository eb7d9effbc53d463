"""What differs between the order in which tasks got their slots and the order in which they would have. Pure."""

from bisect import bisect_right, insort
from collections.abc import Sequence

from msgspec import Struct

from taskyard.contracts.values import TaskId

MOVES_TOLD_MAX = 10


class Move(Struct, frozen=True, kw_only=True):
    """A task that came earlier or later: its places, counted from 1."""

    task: TaskId
    recorded: int
    replayed: int


class OrderDifference(Struct, frozen=True, kw_only=True):
    """How two orders of the same tasks differ.

    `swapped` is the share of pairs that stand the other way round: 0 is the same order, 1 the reverse. `moves` are the
    largest ones.
    """

    compared: int
    moved: int
    swapped: float
    moves: list[Move]


def compare_orders(recorded: Sequence[TaskId], replayed: Sequence[TaskId]) -> OrderDifference:
    """Compare the places of the tasks that both orders have."""
    common = set(recorded) & set(replayed)
    before = {task: place for place, task in enumerate((task for task in recorded if task in common), 1)}
    after = {task: place for place, task in enumerate((task for task in replayed if task in common), 1)}
    moves = [
        Move(task=task, recorded=place, replayed=after[task]) for task, place in before.items() if after[task] != place
    ]
    moves.sort(key=lambda move: (-abs(move.recorded - move.replayed), move.recorded))
    pairs = len(common) * (len(common) - 1) // 2
    return OrderDifference(
        compared=len(common),
        moved=len(moves),
        swapped=_inversions([before[task] for task in after]) / pairs if pairs else 0.0,
        moves=moves[:MOVES_TOLD_MAX],
    )


def _inversions(places: Sequence[int]) -> int:
    """How many pairs stand the wrong way round."""
    seen: list[int] = []
    found = 0
    for place in places:
        found += len(seen) - bisect_right(seen, place)
        insort(seen, place)
    return found
