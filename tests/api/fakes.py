"""Stand-ins for what lies behind the doors: a store that remembers, and a scheduler that answers at once."""

import asyncio
from collections.abc import Callable

import msgspec

from taskyard.api.errors import StoreUnavailable
from taskyard.api.outcomes import Outcomes
from taskyard.contracts.commands import Answer, AnswerBatch, CommandAnswers
from taskyard.contracts.values import make_position

Decide = Callable[[dict], Answer]


def accept(task: dict) -> Answer:
    """The scheduler's answer to a task or command that it accepts."""
    return Answer(code=202, id=task.get("id"), position=make_position(7, 0))


def answers_of(body: dict, decide: Decide, sequence: int = 0) -> CommandAnswers:
    """The answers to one stored command, as the scheduler gives them."""
    tasks = body.get("tasks", [body])
    return CommandAnswers(command=body["id"], sequence=sequence, answers=tuple(decide(task) for task in tasks))


class FakeStore:
    """Stores in a list. `gate` holds stores back while it is clear; `silent` leaves commands without an answer."""

    def __init__(self, outcomes: Outcomes, *, decide: Decide = accept) -> None:
        self.stored: list[tuple[str, dict]] = []
        self.sizes: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_away = False
        self.silent = False
        self.decide = decide
        self._outcomes = outcomes

    async def store(self, subject: str, data: bytes, *, traceparent: str | None = None) -> int:
        """Store one command and let it be answered."""
        await self.gate.wait()
        if self.is_away:
            raise StoreUnavailable("away")
        body = msgspec.json.decode(data)
        self.stored.append((subject, body))
        self.sizes.append(len(data))
        if not self.silent:
            batch = AnswerBatch(outcomes=(answers_of(body, self.decide, len(self.stored)),))
            asyncio.get_running_loop().call_soon(self._outcomes.deliver, msgspec.json.encode(batch))
        return len(self.stored)
