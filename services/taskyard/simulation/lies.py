"""Agents that report what is not true, of what is theirs and of what is not."""

from collections.abc import Sequence
from random import Random

import msgspec

from taskyard.contracts.agent_protocol import (
    AnyReport,
    Failed,
    Lost,
    Planned,
    Progressed,
    ReportBatch,
    Started,
    Succeeded,
)
from taskyard.contracts.events import Changes, TaskError
from taskyard.contracts.lifecycle import ATTEMPT_OPEN, TaskRecord
from taskyard.contracts.values import TaskId
from taskyard.simulation.agent import Agent
from taskyard.simulation.clients import Reader
from taskyard.simulation.host import Witness
from taskyard.simulation.time import World

ATTEMPT_OF_NOBODY = 1_000
LIES_AT_ONCE = 4
OWN_CHANCE = 0.3
NO_TEXT = b"\xff\xfe"
NONSENSE = (b"", b"{}", b"\xff\xfe", b'{"incarnation":1,"number":1,"reports":[{"type":"Grown"}]}', b"[" * 2_000)
"""What is no batch of reports."""


class Lies:
    """Lies. What an agent says of an attempt that it really has cannot be told from the truth: the witness is told."""

    def __init__(self, world: World, agents: Sequence[Agent], reader: Reader, witness: Witness) -> None:
        self._world = world
        self._agents = agents
        self._reader = reader
        self._witness = witness

    def tell(self, random: Random) -> None:
        """An agent says something of attempts of others, of attempts that never were, or of its own; or nothing sensible."""
        if self._world.is_healed:
            return
        self._reader.catch_up()
        agent = random.choice(self._agents)
        records = list(self._reader.table.live.values())
        lies = [self._about(record, record.attempt, random) for record in records if record.worker != agent.name]
        lies += [self._about(record, record.attempt - 1, random) for record in records if record.attempt > 1]
        lies += [self._about(record, ATTEMPT_OF_NOBODY, random) for record in records]
        chosen = random.sample(lies, min(len(lies), LIES_AT_ONCE))
        own = [record for record in records if record.worker == agent.name and record.phase in ATTEMPT_OPEN]
        if own and random.random() < OWN_CHANCE:
            record = random.choice(own)
            self._witness.lied.add((record.id, record.attempt))
            chosen.append(self._about(record, record.attempt, random))
        self._world.note(f"{agent.name} tells {len(chosen)} lies")
        agent.say(ReportBatch(incarnation=agent.incarnation, number=ATTEMPT_OF_NOBODY, reports=tuple(chosen)))
        agent.say_bytes(random.choice(NONSENSE))

    def tell_bytes(self, random: Random) -> None:
        """An agent says that an attempt of its own ended well, or badly, and its result is a text that is none."""
        if self._world.is_healed:
            return
        self._reader.catch_up()
        running = [record for record in self._reader.table.live.values() if record.phase in ATTEMPT_OPEN]
        agents = {agent.name: agent for agent in self._agents}
        own = [record for record in running if record.worker in agents]
        if not own:
            return
        record = random.choice(own)
        agent = agents[str(record.worker)]
        self._world.note(f"{agent.name} reports a result that is no text")
        self._witness.lied.add((record.id, record.attempt))
        name = random.choice(("Succeeded", "Failed"))
        error = ',"error":{"code":"exit_status","message":"no","retryable":true}' if name == "Failed" else ""
        incarnation = msgspec.json.encode(agent.incarnation).decode()
        head = f'{{"incarnation":{incarnation},"number":{ATTEMPT_OF_NOBODY},"reports":[{{"type":"{name}","task":"{record.id}",'
        body = f'"attempt":{record.attempt},"at":{self._world.instant}{error},"result":{{"text":"'
        agent.say_bytes((head + body).encode() + NO_TEXT + b'"}}]}')

    def _about(self, record: TaskRecord, attempt: int, random: Random) -> AnyReport:
        task, at = TaskId(record.id), self._world.instant
        error = TaskError(code="lie", message="not true", retryable=random.random() < 0.5)
        return random.choice(
            (
                Started(task=task, attempt=attempt, at=at),
                Progressed(task=task, attempt=attempt, at=at, progress=100),
                Planned(task=task, attempt=attempt, at=at, changes=Changes()),
                Succeeded(task=task, attempt=attempt, at=at),
                Failed(task=task, attempt=attempt, at=at, error=error),
                Lost(task=task, attempt=attempt, at=at),
            )
        )
