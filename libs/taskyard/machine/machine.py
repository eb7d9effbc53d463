"""What a machine is: plain code without I/O, clock or randomness, folded from the log and asked what should be true now.

`apply` changes state and never fails or decides; `decide` looks at the state and chooses events; `effects` says what
should be done in the world. All are deterministic. Deciding is level-triggered (an empty list means "already so") and
incremental: folding marks what it touched, and deciding looks only there, at what is due, and at its inputs.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from taskyard.contracts.values import Instant, Position
from taskyard.machine.deadlines import Deadlines

InputT = TypeVar("InputT", contravariant=True)
EffectT = TypeVar("EffectT", covariant=True)


class Fault(Struct, frozen=True):
    """Something that could not be decided on as it should, since deciding raised `error`, and that stands aside.

    `reference` names it in the log of the program, where the error is told, and to whoever is told of the fault.
    """

    reference: str
    error: Exception


class Decision(Struct, frozen=True, kw_only=True):
    """Events to append as one commit, and how many of the offered inputs they account for (always the first ones).

    A machine takes no more inputs and chooses no more events than fit a commit; what is left it is asked again.
    `faults` are told and counted once the decision stands.
    """

    events: list[Any]
    taken: int = 0
    faults: Sequence[Fault] = ()


class Machine(Protocol[InputT, EffectT]):
    """One writer of the log."""

    writer: str
    snapshot_version: int
    deadlines: Deadlines
    """Kept by the loop, also in its snapshots; for a machine that judges by it."""

    def apply(self, event: Any, at: Instant, position: Position) -> None:
        """Fold one event of any writer, stored at log time `at`. Never fails."""
        ...

    def lead(self, now: Instant) -> None:
        """This instance decides from now on: look at everything once, remember nothing of an earlier leadership."""
        ...

    def stand_by(self) -> None:
        """This instance only folds from now on, as it does at first: remember nothing to decide or do."""
        ...

    def decide(self, now: Instant, inputs: Sequence[InputT]) -> Decision:
        """What should be appended now. Called again until it chooses nothing and takes nothing."""
        ...

    def look_again(self, now: Instant) -> None:
        """What was decided last is not appended: look at everything once more. What is known beside the log stays."""
        ...

    def refuse(self, now: Instant, culprit: InputT, error: Exception) -> Decision:
        """What to do with an input that makes every decision raise `error`, or too large: pass it over, with its fault.

        Only the input is looked at, and the events are few and short.
        """
        ...

    def effects(self, now: Instant) -> Sequence[EffectT | Fault]:
        """What should be done now, given only what is in the log. Idempotent at its receiver, repeated until the log shows it.

        A fault stands for an effect that could not be made, and costs no other one.
        """
        ...

    def next_deadline(self) -> Instant | None:
        """When to ask again though nothing happened; None for never."""
        ...

    def snapshot(self) -> bytes:
        """The folded state."""
        ...

    def restore(self, data: bytes) -> None:
        """Replace the state by one that `snapshot` of the same version made."""
        ...
