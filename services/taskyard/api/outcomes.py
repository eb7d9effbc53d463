"""Waiting for what became of stored commands: the scheduler answers on this instance's subject, by command id."""

import asyncio
import logging
from collections import defaultdict

import msgspec

from taskyard.contracts.commands import Answer, AnswerBatch

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

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, command: str) -> Outcome:
        """Begin to listen for a command. Call it before the command is stored, so that no answer can be missed."""
        outcome: Outcome = asyncio.get_running_loop().create_future()
        self._waiting[command].append(outcome)
        outcome.add_done_callback(lambda done: self._forget(command, done))
        return outcome

    def start_clock(self, outcome: Outcome) -> None:
        """The command is stored: from now on the scheduler has its time to answer."""
        timer = asyncio.get_running_loop().call_later(self._answer_seconds, _settle, outcome, None)
        outcome.add_done_callback(lambda _: timer.cancel())

    def deliver(self, data: bytes) -> None:
        """Take in a message of the scheduler. What nobody waits for (any more) is passed over."""
        try:
            batch = _decode(data)
        except msgspec.DecodeError:
            _log.exception("answers were not understood")
            return
        for outcome in batch.outcomes:
            for waiting in self._waiting.pop(outcome.command, ()):
                _settle(waiting, outcome.answers)

    def _forget(self, command: str, done: Outcome) -> None:
        waiting = self._waiting.get(command)
        if waiting is None:
            return
        if done in waiting:
            waiting.remove(done)
        if not waiting:
            del self._waiting[command]


def _settle(outcome: Outcome, answers: tuple[Answer, ...] | None) -> None:
    if not outcome.done():
        outcome.set_result(answers)
