"""Waiting for what became of stored commands: the scheduler answers on this instance's subject, by command id.

Several commands may bear one id at the same time, and with different content not all of them are accepted. So an answer
also names the sequence by which its command is stored, and is given to that one alone.
"""

import asyncio
import logging
from collections import defaultdict

import msgspec

from taskyard.contracts.commands import Answer, AnswerBatch, CommandAnswers

ANSWER_SECONDS = 5.0
"""How long a door waits for the scheduler's verdict before it answers that the command is stored."""

Outcome = asyncio.Future[tuple[Answer, ...] | None]
"""The answers of one command, or `None` when none came in time."""

_log = logging.getLogger(__name__)
_decode = msgspec.json.Decoder(AnswerBatch).decode


class Outcomes:
    """The commands whose outcome somebody waits for."""

    def __init__(self, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._answer_seconds = answer_seconds
        self._waiting: defaultdict[str, list[Outcome]] = defaultdict(list)
        self._sequences: dict[Outcome, int] = {}
        self._early: dict[str, dict[int, tuple[Answer, ...]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, command: str) -> Outcome:
        """Begin to listen for a command. Call it before the command is stored, so that no answer can be missed."""
        outcome: Outcome = asyncio.get_running_loop().create_future()
        self._waiting[command].append(outcome)
        outcome.add_done_callback(lambda done: self._forget(command, done))
        return outcome

    def stored(self, command: str, outcome: Outcome, sequence: int) -> None:
        """The command is stored by this sequence: from now on the scheduler has its time to answer."""
        self._sequences[outcome] = sequence
        early = self._early.get(command, {}).pop(sequence, None)
        if early is not None:
            _settle(outcome, early)
            return
        timer = asyncio.get_running_loop().call_later(self._answer_seconds, _settle, outcome, None)
        outcome.add_done_callback(lambda _: timer.cancel())

    def hurry(self, answer_seconds: float) -> None:
        """Wait that long at most from now on, also for what is waited for: the service is about to stop.

        The scheduler may be stopping too, and who waits must hear that the command is stored before it is too late.
        """
        self._answer_seconds = min(self._answer_seconds, answer_seconds)
        for outcome in list(self._sequences):
            asyncio.get_running_loop().call_later(answer_seconds, _settle, outcome, None)

    def deliver(self, data: bytes) -> None:
        """Take in a message of the scheduler. What nobody waits for (any more) is passed over."""
        try:
            batch = _decode(data)
        except msgspec.DecodeError:
            _log.exception("answers were not understood")
            return
        for outcome in batch.outcomes:
            self._deliver(outcome)

    def _deliver(self, told: CommandAnswers) -> None:
        waiting = self._waiting.get(told.command, ())
        # A scheduler of an older version does not say which one it answers.
        settled = [one for one in waiting if not told.sequence or self._sequences.get(one) == told.sequence]
        for one in settled:
            _settle(one, told.answers)
        if not settled and any(one not in self._sequences for one in waiting):
            # The answer has overtaken the acknowledgement of the store.
            self._early.setdefault(told.command, {})[told.sequence] = told.answers

    def _forget(self, command: str, done: Outcome) -> None:
        self._sequences.pop(done, None)
        waiting = self._waiting.get(command)
        if waiting is None:
            return
        if done in waiting:
            waiting.remove(done)
        if not waiting:
            del self._waiting[command]
            self._early.pop(command, None)


def _settle(outcome: Outcome, answers: tuple[Answer, ...] | None) -> None:
    if not outcome.done():
        outcome.set_result(answers)
