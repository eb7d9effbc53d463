"""What the log made of commands about tasks, so that it can be compared with what doors were told."""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from taskyard.contracts.events import (
    AnyEvent,
    ApplyConfirmed,
    ApplyDiscarded,
    AttemptReleased,
    ForceStopped,
    TaskReprioritised,
    TaskStopRequested,
    UnknownEvent,
)
from taskyard.contracts.values import Position, format_position
from taskyard.judge.evidence import Asked, Told
from taskyard.judge.faults import Faults, Rule
from taskyard.judge.life import Life, Stage

_OF_COMMANDS = (ApplyConfirmed, ApplyDiscarded, AttemptReleased, ForceStopped, TaskReprioritised, TaskStopRequested)


class _Answer(Struct):
    id: str | None = None
    attempt: int | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class Verdicts:
    """Which events about tasks took effect or asked for what already held, and which were refused.

    An answer to a plan that names no attempt is for the plan that was shown when it was stored, and for no later one.
    """

    def __init__(self, faults: Faults, asked: Sequence[Asked]) -> None:
        self._faults = faults
        self._unnamed = _unnamed(asked)
        self._granted: dict[int, bool] = {}
        self._confirmed: dict[str, int] = {}
        self._discarded: set[str] = set()

    def see(self, event: AnyEvent | UnknownEvent, position: Position, life: Life, *, counts: bool, where: str) -> None:
        """An event of a task, after it was told."""
        if not isinstance(event, _OF_COMMANDS):
            return
        self._granted[position] = counts or self._holds_already(event, life)
        if not counts:
            return
        if isinstance(event, ApplyConfirmed):
            self._confirmed[life.id] = event.attempt
        elif isinstance(event, ApplyDiscarded):
            self._discarded.add(life.id)
            self._confirmed.pop(life.id, None)
        if isinstance(event, ApplyConfirmed | ApplyDiscarded) and event.command is not None:
            text = f"{where}: the plan of {life.id} is younger than the answer to it"
            self._faults.require(self._may_answer(event.command, life), Rule.CONFIRMATION, text, task=life.id)

    def check(self, told: Iterable[Told]) -> None:
        """Whether doors were told so."""
        for each in told:
            granted = self._granted.get(each.position or 0)
            if granted is not None and granted != (each.code < 300):
                was = "granted" if granted else "refused"
                where = format_position(Position(each.position or 0))
                text = f"{each.command} was answered with {each.code}, and {was} by the log at {where}"
                self._faults.add(Rule.ANSWERS, text, task=each.task)

    def _may_answer(self, command: str, life: Life) -> bool:
        """Whether a command that names no attempt was stored behind the commands that came before the plan."""
        copies, before = self._unnamed.get(command), life.commands_before
        if copies is None or before is None:
            return True
        return any(before.is_before(each.stream or before.stream, each.sequence) for each in copies)

    def _holds_already(self, event: AnyEvent, life: Life) -> bool:
        """Whether a command without effect asked for what is so."""
        match event:
            case TaskStopRequested(cause="cancel"):
                return life.stage in {Stage.STOPPING, Stage.CANCELLED}
            case ApplyConfirmed():
                is_shown = not life.is_over and life.is_confirmed and life.plan == event.attempt
                return is_shown or (life.is_over and self._confirmed.get(life.id) == event.attempt)
            case ApplyDiscarded():
                return life.id in self._discarded
            case ForceStopped():
                return life.stage is Stage.CANCELLED
            case TaskReprioritised():
                return life.stage is Stage.PENDING and life.priority == event.priority
            case _:
                return False


def _unnamed(asked: Sequence[Asked]) -> dict[str, list[Asked]]:
    """The commands that have an id and name no attempt, as often as each was stored."""
    found: dict[str, list[Asked]] = {}
    for each in asked:
        if each.verb in {"confirm", "discard"}:
            try:
                answer = _decode(each.data)
            except msgspec.DecodeError:
                continue
            if answer.id is not None and answer.attempt is None:
                found.setdefault(answer.id, []).append(each)
    return found
