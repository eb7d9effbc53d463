"""Wires the dispatcher: reports in, requests to agents out."""

import asyncio
import time
from collections import ChainMap

import msgspec
import structlog
from nats.aio.msg import Msg

from taskyard.contracts.agent_protocol import Heartbeat
from taskyard.contracts.events import StreamMark
from taskyard.contracts.readable import UNREADABLE
from taskyard.contracts.subjects import COMMANDS, HEARTBEAT_SUBJECTS, REPORTS
from taskyard.dispatcher.decide import HeartbeatHeard, Input
from taskyard.dispatcher.delivery import SendAssignments, SendCancels
from taskyard.dispatcher.machine import Dispatcher
from taskyard.dispatcher.mending import READ_WITH_CARE
from taskyard.dispatcher.metrics import AttemptCounts, show_attempts
from taskyard.dispatcher.reports import ReportsRead, read_reports
from taskyard.dispatcher.requests import Requests
from taskyard.eventlog.errors import LogUnavailable
from taskyard.eventlog.jetstream import JetStreamInput
from taskyard.eventlog.log import StreamMessage
from taskyard.machine.ears import Ear
from taskyard.machine.intake import Intake
from taskyard.machine.loop import MachineLoop, Source
from taskyard.machine.service import Wiring, run_machine, task_observers
from taskyard.quotas import Shares
from taskyard.service import Links
from taskyard.settings import Settings

Effect = SendAssignments | SendCancels
Loop = MachineLoop[Input, Effect]

_decode_heartbeat = msgspec.json.Decoder(Heartbeat).decode


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run one instance of the dispatcher until `stop` is set."""
    machine = Dispatcher()

    def wire(links: Links, loop: Loop) -> Wiring[Input, Effect]:
        requests = Requests(links.fleet_client, loop.post)

        async def hear(agent: str, message: Msg) -> None:
            if (heard := read_heartbeat(agent, message.data)) is not None:
                loop.post(heard, key=agent)

        ear = Ear(links, HEARTBEAT_SUBJECTS, hear)
        intake = Intake(links, settings, lambda: ChainMap(machine.state.workers, machine.state.gone))
        reports = JetStreamInput(links.fleet_client, REPORTS)
        commands = JetStreamInput(links.control_client, COMMANDS)
        with_care = Shares(READ_WITH_CARE)
        counts = AttemptCounts(lambda: machine.state)
        show_attempts(links.metrics, counts, lambda: machine.state)

        async def read(message: StreamMessage) -> ReportsRead:
            agent = message.subject.rpartition(".")[2]  # the subject says whose they are
            size = len(message.data)
            found = read_reports(agent, message.data, lambda: with_care.take(agent, size, time.monotonic()))
            counts.unreadable += found.unreadable
            return msgspec.structs.replace(found, commands=await read_mark(commands)) if found.shows_plan else found

        observers = [counts, *task_observers(links, lambda: machine.state.tasks)]
        return Wiring(
            sources=[Source(reports, read)],
            perform=requests.send,
            observers=observers,
            ears=[ear, intake],
            told_again=intake.until_told_again,
        )

    await run_machine(machine, settings, stop, wire)


async def read_mark(commands: JetStreamInput) -> StreamMark:
    """How far the stream of commands has come; nobody knows where it gives no answer for long: then a plan must be named."""
    try:
        stream, sequence = await commands.mark()
    except LogUnavailable:
        structlog.get_logger(service=Dispatcher.writer).warning("a plan needs answers that name it: commands are away")
        return StreamMark()
    return StreamMark(stream=stream, sequence=sequence)


def read_heartbeat(agent: str, data: bytes) -> HeartbeatHeard | None:
    """What an agent says that it has; None: it cannot be read."""
    try:
        heartbeat = _decode_heartbeat(data)
    except UNREADABLE:
        return None
    return HeartbeatHeard(agent=agent, incarnation=heartbeat.incarnation, live=heartbeat.live)
