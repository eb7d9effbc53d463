"""What a leader was offered and has yet to decide on, and how far it has taken each stream of inputs. Without I/O."""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Generic, TypeVar

from msgspec import Struct

from taskyard.contracts.values import Instant

InputT = TypeVar("InputT")

INPUTS_WAITING_MAX = 20_000
"""Inputs that wait for a decision; whoever offers more has to wait."""


class Offered(Struct, Generic[InputT]):
    """An input that waits. `stream` and `sequence` say where it came from; an observation has none.

    Of observations that bear the same `key` only the newest waits.
    """

    input: InputT
    stream: str | None = None
    sequence: int = 0
    key: str | None = None


class Inputs(Generic[InputT]):
    """The inputs of one leadership. `taken` says how far each stream was decided on."""

    def __init__(self) -> None:
        self.taken: dict[str, int] = {}
        self._inputs: deque[Offered[InputT]] = deque()
        self._newest: dict[str, Offered[InputT]] = {}
        self._waiting: dict[str, int] = {}
        self._read: tuple[int, Instant] | None = None

    def __len__(self) -> int:
        """How many wait."""
        return len(self._inputs)

    def clear(self) -> None:
        """Forget everything."""
        self.taken.clear()
        self._waiting.clear()
        self._inputs.clear()
        self._newest.clear()
        self._read = None

    def forget_observations(self) -> None:
        """What was observed is worth nothing any more, nor is what is known of how far streams were read."""
        self._inputs = deque(each for each in self._inputs if each.stream is not None)
        self._newest.clear()
        self._read = None

    def offer(self, offered: Offered[InputT]) -> None:
        """Let an input wait. What was taken, or waits, is dropped.

        A reader that lost its place reads once more what waits here: decided twice, it would take the cursor back.
        """
        if offered.stream is not None:
            if offered.sequence <= max(self.taken.get(offered.stream, 0), self._waiting.get(offered.stream, 0)):
                return
            self._waiting[offered.stream] = offered.sequence
        if offered.key is not None:
            if (former := self._newest.get(offered.key)) is not None:
                # In the place of the former one: at the end it could be overtaken for ever by one that is newer still.
                former.input = offered.input
                return
            self._newest[offered.key] = offered
        self._inputs.append(offered)

    def read_again(self, stream: str) -> None:
        """The stream is read again from its start."""
        self.taken[stream] = self._waiting[stream] = 0

    def first(self, count: int) -> list[Offered[InputT]]:
        """The first ones that wait."""
        return list(islice(self._inputs, count))

    def take(self, taken: Sequence[Offered[InputT]]) -> None:
        """These, which are the first, were decided on."""
        for each in taken:
            self._inputs.popleft()
            if each.stream is not None:
                self.taken[each.stream] = each.sequence
            if each.key is not None:
                del self._newest[each.key]
        if self._read is not None:
            self._read = (self._read[0] - len(taken), self._read[1])

    def cursors_ahead(self, taken: Sequence[Offered[InputT]], folded: Mapping[str, int]) -> dict[str, int]:
        """How far each stream is taken with these, where the `folded` cursors say something else."""
        reached = dict(self.taken)
        for each in taken:
            if each.stream is not None:
                reached[each.stream] = each.sequence
        return {stream: sequence for stream, sequence in reached.items() if sequence != folded.get(stream, 0)}

    # -- how far the streams were read ---------------------------------------------------------------------------------

    @property
    def awaits_decisions(self) -> bool:
        """Whether it was told how far the streams were read, and not all of that was decided on yet."""
        return self._read is not None

    def read(self, until: Instant) -> None:
        """All that was stored until then has been offered."""
        if self._read is None:  # a later one must not put an earlier one off
            self._read = (len(self._inputs), until)

    def decided_until(self) -> Instant | None:
        """Until when all that was stored has been decided on, told once."""
        if self._read is None or self._read[0] > 0:
            return None
        _, until = self._read
        self._read = None
        return until
