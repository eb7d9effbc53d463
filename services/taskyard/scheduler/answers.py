"""Outcomes on their way to the doors that wait for them.

A door that stored a command waits for its outcome. What was decided is told only once it is folded, since the fold has
the verdict; what is lost with a leader is not told again (the door answers without a position then, and may ask again).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from taskyard.contracts.commands import Answer, AnswerBatch, CommandAnswers
from taskyard.contracts.events import (
    ApplyConfirmed,
    ApplyDiscarded,
    AttemptReleased,
    CommandRejected,
    ForceStopped,
    TaskStopRequested,
)
from taskyard.contracts.lifecycle import CAUSE_CANCEL, Verdict
from taskyard.contracts.tasks import Change
from taskyard.contracts.values import CommandId, Position, Status, TaskId
from taskyard.scheduler.known_tasks import KnownTask, KnownTasks
from taskyard.scheduler.messages import CommandMessage

WAITING_MAX = 50_000
"""Commands whose outcome is waited for; beyond it the oldest are given up."""

MESSAGE_BYTES_MAX = 256 * 1024
"""One message to a door holds no more, unless it is one command's; the server takes four times as much."""


class AnswerDoor(Struct, frozen=True, kw_only=True):
    """Tell a door outcomes."""

    door: str
    batch: AnswerBatch


class _Open(Struct, kw_only=True):
    """One command of a door: the answers that are there, and how many are not."""

    door: str
    command: CommandId
    sequence: int
    answers: list[Answer | None]
    missing: int


_Expected = tuple[CommandMessage, str, CommandId, list[Answer | CommandId | TaskId], bool]


def packed(batch: AnswerBatch) -> Iterator[bytes]:
    """The batch as messages that can be sent."""
    data = msgspec.json.encode(batch)
    half = len(batch.outcomes) // 2
    if len(data) <= MESSAGE_BYTES_MAX or not half:
        yield data
        return
    yield from packed(AnswerBatch(outcomes=batch.outcomes[:half]))
    yield from packed(AnswerBatch(outcomes=batch.outcomes[half:]))


class Answers:
    """What doors wait for. What a decision expects counts once the decision stands."""

    def __init__(self) -> None:
        self._decided: list[_Expected] = []
        self._open: dict[CommandId | TaskId, list[tuple[_Open, int]]] = {}
        self._counted: dict[str, list[_Open]] = {}
        self._ready: dict[str, list[CommandAnswers]] = {}

    def expect(
        self,
        message: CommandMessage,
        command: CommandId,
        answers: list[Answer | CommandId | TaskId],
        *,
        is_counted: bool = False,
    ) -> None:
        """A door waits for a command: `answers` has what is known at once, and the id by which the rest will be settled.

        One that `is_counted` is told when the count of its principal's refusals is settled as well.
        """
        if message.door is not None:
            self._decided.append((message, message.door, command, answers, is_counted))

    def stand(self) -> None:
        """What was decided last stands."""
        decided, self._decided = self._decided, []
        for message, door, command, answers, is_counted in decided:
            known = [answer if isinstance(answer, Answer) else None for answer in answers]
            waits = _Open(
                door=door,
                command=command,
                sequence=message.sequence,
                answers=known,
                missing=known.count(None) + is_counted,
            )
            if is_counted:
                self._counted.setdefault(message.principal, []).append(waits)
            for index, answer in enumerate(answers):
                if not isinstance(answer, Answer):
                    self._open.setdefault(answer, []).append((waits, index))
            while len(self._open) > WAITING_MAX:
                del self._open[next(iter(self._open))]
            self._finish(waits)

    def take_back(self) -> None:
        """What was decided last does not stand: it is decided again."""
        self._decided = []

    def is_awaited(self, key: CommandId | TaskId) -> bool:
        """Whether a door waits for this outcome."""
        self.stand()
        return key in self._open

    def settle(self, key: CommandId | TaskId, answer: Answer) -> None:
        """The outcome of a command, or of one task of a submission, is folded."""
        self.stand()
        for waits, index in self._open.pop(key, ()):
            waits.answers[index] = answer
            waits.missing -= 1
            self._finish(waits)

    def settle_counted(self, principal: str) -> None:
        """The count of all refusals of a principal that were only counted until now is folded."""
        self.stand()
        for waits in self._counted.pop(principal, ()):
            waits.missing -= 1
            self._finish(waits)

    def take_ready(self) -> list[AnswerDoor]:
        """Outcomes to tell now, together per door."""
        self.stand()
        ready, self._ready = self._ready, {}
        return [AnswerDoor(door=door, batch=AnswerBatch(outcomes=tuple(outcomes))) for door, outcomes in ready.items()]

    def _finish(self, waits: _Open) -> None:
        if not waits.missing:
            answers = tuple(answer for answer in waits.answers if answer is not None)
            told = CommandAnswers(command=waits.command, sequence=waits.sequence, answers=answers)
            self._ready.setdefault(waits.door, []).append(told)


def answer_of(event: Any, changes: Sequence[Change], known: KnownTasks, position: Position) -> Answer:
    """The outcome of the command that made `event`, by the verdict of the fold."""
    if isinstance(event, CommandRejected):
        return Answer(code=event.status, id=event.task, error=event.code, message=event.message, errors=event.errors)
    task = getattr(event, "task", None)
    if task is None:
        return Answer(code=202, position=position)
    change = changes[0]
    if change.verdict is not Verdict.VOID or _already_holds(event, known.get(task)):
        return Answer(code=202, id=task, position=position)
    remembered = known.get(task)
    status = change.record.status if change.record is not None else remembered.ended if remembered else None
    return Answer(
        code=409,
        id=task,
        position=position,
        error="status_forbids",
        message=_why_void(event, status),
        status=status,
    )


def _why_void(event: Any, status: Status | None) -> str:
    if isinstance(event, AttemptReleased):
        return f"the task is {status}; only what is held for a worker that is lost can be released"
    if isinstance(event, ApplyConfirmed | ApplyDiscarded) and status is Status.APPLY_PENDING:
        return (
            f"no plan of attempt {event.attempt} waits for an answer: look at the one that does, and name its attempt"
        )
    return f"the task is {status}"


def _already_holds(event: Any, known: KnownTask | None) -> bool:
    """Whether the command asks for what the ended task already is."""
    if known is None or known.ended is None:
        return False
    match event:
        case TaskStopRequested(cause=cause):
            return cause == CAUSE_CANCEL and known.ended is Status.CANCELLED
        case ApplyConfirmed(attempt=attempt):
            return known.plan_confirmed == attempt
        case ApplyDiscarded():
            return known.was_discarded
        case ForceStopped():
            return known.ended is Status.CANCELLED
        case _:
            return False
