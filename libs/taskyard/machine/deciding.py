"""How one decision is made: of as many inputs as fit a commit, and without the one that makes deciding raise.

No input ends a service: one that makes deciding raise, or a commit too large, is found by deciding on fewer and fewer, and
refused by itself. What raises without any input concerns no input, and ends the leadership: whose fault it is nobody here
can tell, and a commit that leaves it out could be wrong.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct

from taskyard.contracts.values import Instant
from taskyard.eventlog.commit import COMMIT_BYTES_AIM
from taskyard.machine.inputs import Inputs, Offered
from taskyard.machine.machine import Decision, Fault, Machine

InputT = TypeVar("InputT")

INPUTS_OFFERED_MAX = 512
"""Inputs shown to one decision."""


class Append(Struct, frozen=True):
    """A commit to append: its bytes, and the sequence that the writer's subject must end at."""

    data: bytes
    expected: int


Decided = tuple[Decision, Append | None]
"""A decision that stands, and its commit; None where it has no events."""


class Deciding(Generic[InputT]):
    """Asks a machine for decisions on `inputs`."""

    def __init__(self, machine: Machine[InputT, Any], inputs: Inputs[InputT]) -> None:
        self._machine = machine
        self._inputs = inputs
        self._shown_max = INPUTS_OFFERED_MAX

    def decide(self, now: Instant, encode: Callable[[Decision, Sequence[Offered[InputT]]], Append | None]) -> Decided:
        """The next decision; its inputs are taken. `encode` makes the commit of a decision on what it was shown.

        Raises:
            Exception: what deciding raises without any input.
        """
        offered = self._inputs.first(self._shown_max)
        one = _One(self._machine, now, encode)
        try:
            decided = self._on(one, offered)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the service: see `_on_fewer`
            decided = self._on_fewer(one, offered, error)
        self._inputs.take(offered[: decided[0].taken])
        return decided

    def _on(self, one: "_One[InputT]", offered: Sequence[Offered[InputT]]) -> Decided:
        """Decide on these inputs as long as they do not make a commit too large."""
        while True:
            decision, append = one.decide(offered)
            if append is None or len(append.data) <= COMMIT_BYTES_AIM or decision.taken <= 1:
                self._shown_max = min(INPUTS_OFFERED_MAX, 2 * self._shown_max)
                return decision, append
            one.look_again()
            self._shown_max = decision.taken // 2
            offered = offered[: self._shown_max]

    def _on_fewer(self, one: "_One[InputT]", offered: Sequence[Offered[InputT]], error: Exception) -> Decided:
        """Deciding on these inputs raised: half of them, then one, then none; only then is the one the cause."""
        while True:
            one.look_again()
            if not offered:
                raise error
            self._shown_max = max(1, len(offered) // 2)
            first, offered = offered[:1], offered[: len(offered) // 2]
            try:
                decision, append = self._on(one, offered)
            except Exception as again:  # noqa: BLE001 - as above
                error = again
                continue
            if offered or append is not None:
                return decision, append
            return one.refuse(first, error)


class _One(Generic[InputT]):
    """What the tries of one decision share."""

    def __init__(
        self,
        machine: Machine[InputT, Any],
        now: Instant,
        encode: Callable[[Decision, Sequence[Offered[InputT]]], Append | None],
    ) -> None:
        self._machine = machine
        self._now = now
        self._encode = encode

    def decide(self, offered: Sequence[Offered[InputT]]) -> Decided:
        decision = self._machine.decide(self._now, [each.input for each in offered])
        return decision, self._encode(decision, offered)

    def look_again(self) -> None:
        self._machine.look_again(self._now)

    def refuse(self, first: Sequence[Offered[InputT]], error: Exception) -> Decided:
        try:
            decision = self._machine.refuse(self._now, first[0].input, error)
            return decision, self._encode(decision, first)
        except Exception as again:  # noqa: BLE001 - one that cannot even be refused is passed over
            self.look_again()
            fault = Fault(f"{first[0].stream} {first[0].sequence}", again)
            return Decision(events=[], taken=1, faults=(fault,)), None
