"""Wires the scheduler: commands in, outcomes to the doors."""

import asyncio
import time
from collections.abc import Mapping

from taskyard.contracts.commands import TaskCommand
from taskyard.contracts.events import TaskSubmitted
from taskyard.contracts.subjects import COMMANDS, HEADER_ANSWER, HEADER_TRACEPARENT, answer_subject
from taskyard.contracts.validation import InvalidCommand, decode_body
from taskyard.contracts.values import TaskId, is_name
from taskyard.eventlog.jetstream import JetStreamInput
from taskyard.eventlog.log import StreamMessage
from taskyard.machine.loop import MachineLoop, Source
from taskyard.machine.service import Wiring, run_machine, task_observers
from taskyard.scheduler.answers import AnswerDoor, packed
from taskyard.scheduler.machine import Scheduler
from taskyard.scheduler.messages import CommandMessage
from taskyard.scheduler.metrics import TaskCounts, show_tasks
from taskyard.scheduler.originals import Originals, Unavailable
from taskyard.scheduler.verbs import RETRY
from taskyard.service import Links
from taskyard.settings import Settings
from taskyard.telemetry.context import valid_traceparent
from taskyard.telemetry.event_lines import RejectionLines

Loop = MachineLoop[CommandMessage, AnswerDoor]


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run one instance of the scheduler until `stop` is set."""
    machine = Scheduler({principal.name: principal.role for principal in settings.principals})

    def wire(links: Links, _: Loop) -> Wiring[CommandMessage, AnswerDoor]:
        commands = JetStreamInput(links.control_client, COMMANDS)
        reader = CommandReader(machine, links, commands)

        async def answer(effect: AnswerDoor) -> None:
            for data in packed(effect.batch):
                await links.control_client.publish(answer_subject(effect.door), data)

        counts = TaskCounts(lambda: machine.state, RejectionLines(machine.writer))
        show_tasks(links.metrics, counts, lambda: machine.state)
        observers = [counts, *task_observers(links, lambda: machine.state.tasks)]
        return Wiring(sources=[Source(commands, reader.read)], perform=answer, observers=observers)

    await run_machine(machine, settings, stop, wire)


class CommandReader:
    """Makes an input of a stored command. For a `retry` it fetches the submission of the old task from the log."""

    def __init__(self, machine: Scheduler, links: Links, commands: JetStreamInput) -> None:
        self._machine = machine
        self._commands = commands
        self._originals = Originals(links.log, time.monotonic)

    async def read(self, message: StreamMessage) -> CommandMessage:
        """The command of a stored message; the subject says who asks for what."""
        _, _, principal, pool, verb = (message.subject.split(".", 4) + [""] * 5)[:5]
        headers: Mapping[str, str] = message.headers or {}
        door = headers.get(HEADER_ANSWER)
        original, is_away, failure = None, False, None
        if verb == RETRY:
            try:
                original = await self._original(message.data, pool)
            except Unavailable:
                is_away = True
            except Exception as error:  # noqa: BLE001 - whoever sent it is told that it was refused
                failure = error
        return CommandMessage(
            stream=self._commands.cursor,
            sequence=message.sequence,
            at=message.at,
            principal=principal,
            pool=pool,
            verb=verb,
            data=message.data,
            door=door if door is not None and is_name(door) else None,
            traceparent=valid_traceparent(headers.get(HEADER_TRACEPARENT)),
            original=original,
            original_is_away=is_away,
            could_not_be_read=failure,
        )

    async def _original(self, data: bytes, pool: str) -> TaskSubmitted | None:
        try:
            body = decode_body(RETRY, data, pool)
        except InvalidCommand:
            return None
        if not isinstance(body, TaskCommand):
            return None
        known = self._machine.state.known.tasks.get(TaskId(body.task))
        if known is None:
            return None
        return await self._originals.fetch(TaskId(body.task), known.position)
