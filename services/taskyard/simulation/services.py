"""The three services of the control plane around their machines: what each reads, and how it acts. See their `app.py`."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from taskyard.contracts.agent_protocol import AssignReply, AssignRequest, CancelRequest, Heartbeat
from taskyard.contracts.commands import AnswerBatch, TaskCommand
from taskyard.contracts.events import AnyEvent, StreamMark, TaskSubmitted, decode_event
from taskyard.contracts.subjects import HEADER_ANSWER
from taskyard.contracts.validation import InvalidCommand, decode_body
from taskyard.contracts.values import Role, TaskId, commit_sequence
from taskyard.dispatcher.decide import Answered, HeartbeatHeard, NobodyListened
from taskyard.dispatcher.delivery import SendAssignments, SendCancels
from taskyard.dispatcher.machine import Dispatcher
from taskyard.dispatcher.reports import ReportsRead, read_reports
from taskyard.eventlog.commit import CommitCodec
from taskyard.eventlog.log import StreamMessage
from taskyard.eventlog.memory import MemoryStream
from taskyard.scheduler.answers import AnswerDoor
from taskyard.scheduler.machine import Scheduler
from taskyard.scheduler.messages import CommandMessage
from taskyard.simulation.instance import Instance
from taskyard.simulation.network import Network
from taskyard.simulation.streams import Servers, cursor_name
from taskyard.slot_allocator.liveness import HeartbeatSeen, Listened
from taskyard.slot_allocator.machine import SlotAllocator

ANSWER_SECONDS_MAX = 1.5
"""How long the dispatcher waits for an agent's answer."""
MESSAGE_BYTES_MAX = 1 << 20
"""What a server takes in one message."""
PROBE_SECONDS = 0.5
"""How often the allocator asks the server for an answer."""
READ_SECONDS_MAX = 0.05
"""How soon a process that stood still reads what has come meanwhile."""
SUSPECT_SECONDS = 3.0
LOST_SECONDS = 7.0
"""Shorter than in production, so that a run has more of it."""

ADMIN, OPERATOR, OTHER, VIEWER = "alice", "bob", "carol", "eve"
ROLES: Mapping[str, Role] = {
    ADMIN: Role.ADMIN,
    OPERATOR: Role.OPERATOR,
    OTHER: Role.OPERATOR,
    VIEWER: Role.VIEWER,
}

_codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
_decode_reply = msgspec.json.Decoder(AssignReply).decode
_decode_heartbeat = msgspec.json.Decoder(Heartbeat).decode
_decode_answers = msgspec.json.Decoder(AnswerBatch).decode


class SchedulerService:
    """Reads commands, answers doors. `answer` is told what a door hears."""

    writer = Scheduler.writer

    def __init__(self, servers: Servers, network: Network, answer: Callable[[AnswerBatch], None]) -> None:
        self._servers = servers
        self._network = network
        self._answer = answer
        self.sources = {servers.commands.name: servers.commands}

    def started(self, instance: Instance) -> None:
        """It waits for what it is sent."""

    def make_machine(self) -> Scheduler:
        """A scheduler that knows the roles."""
        return Scheduler(ROLES)

    def read(self, instance: Instance, message: StreamMessage) -> CommandMessage:
        """The command of a stored message; a retry comes with the submission that it repeats."""
        _, _, principal, pool, verb = (message.subject.split(".", 4) + [""] * 5)[:5]
        machine: Any = instance.core.machine
        is_there = verb == "retry" and not self._servers.is_archive_away
        return CommandMessage(
            stream=cursor_name(self._servers.commands),
            sequence=message.sequence,
            at=message.at,
            principal=principal,
            pool=pool,
            verb=verb,
            data=message.data,
            door=(message.headers or {}).get(HEADER_ANSWER),
            original=self._original(machine, message.data, pool) if is_there else None,
            original_is_away=verb == "retry" and not is_there,
        )

    def perform(self, instance: Instance, effect: AnswerDoor) -> None:
        """Tell a door; it may not hear it."""
        data = msgspec.json.encode(effect.batch)
        self._network.carry(lambda: self._answer(_decode_answers(data)), may_repeat=True)

    def _original(self, machine: Scheduler, data: bytes, pool: str) -> TaskSubmitted | None:
        try:
            body = decode_body("retry", data, pool)
        except InvalidCommand:
            return None
        known = machine.state.known.tasks.get(TaskId(body.task)) if isinstance(body, TaskCommand) else None
        if known is None:
            return None
        stored = self._servers.log.after(commit_sequence(known.position) - 1)[0]
        for event in _codec.decode(stored.data).events:
            if isinstance(event, TaskSubmitted) and isinstance(body, TaskCommand) and event.task == body.task:
                return event
        return None


class AllocatorService:
    """Hears heartbeats."""

    writer = SlotAllocator.writer

    def __init__(self) -> None:
        self.sources: Mapping[str, MemoryStream] = {}

    def make_machine(self) -> SlotAllocator:
        """An allocator with the limits of this world."""
        return SlotAllocator(SUSPECT_SECONDS, LOST_SECONDS)

    def started(self, instance: Instance) -> None:
        """The server answers it from now on."""

        def answered() -> None:
            instance.post(Listened(at=instance.monotonic))
            instance.later(PROBE_SECONDS, answered)

        instance.later(PROBE_SECONDS, answered)

    def read(self, instance: Instance, message: StreamMessage) -> Any:
        """It reads no stream."""
        raise AssertionError(message.subject)

    def perform(self, instance: Instance, effect: Any) -> None:
        """It has no effects."""

    @staticmethod
    def hear(instance: Instance, agent: str, data: bytes) -> None:
        """A heartbeat reaches an instance. One that stood still reads it a moment after it went on: its timers ring first."""
        if not instance.is_up or instance.is_deaf:
            return

        def read() -> None:
            instance.post(HeartbeatSeen(agent=agent, heartbeat=_decode_heartbeat(data)))

        if instance.is_frozen:
            instance.later(0.0, lambda: instance.later(instance.random.uniform(0.0, READ_SECONDS_MAX), read))
        else:
            instance.later(0.0, read)


class DispatcherService:
    """Reads reports, sends requests to agents."""

    writer = Dispatcher.writer

    def __init__(self, servers: Servers, network: Network) -> None:
        self._network = network
        self._commands = servers.commands
        self.sources = {servers.reports.name: servers.reports}

    def started(self, instance: Instance) -> None:
        """It waits for what it is sent."""

    def make_machine(self) -> Dispatcher:
        """A dispatcher."""
        return Dispatcher()

    @staticmethod
    def hear(instance: Instance, agent: str, data: bytes) -> None:
        """A heartbeat reaches an instance."""
        heartbeat = _decode_heartbeat(data)
        heard = HeartbeatHeard(agent=agent, incarnation=heartbeat.incarnation, live=heartbeat.live)
        if instance.is_up:
            instance.post_now(lambda: heard)

    def read(self, instance: Instance, message: StreamMessage) -> ReportsRead:
        """The reports of a stored message."""
        found = read_reports(message.subject.rpartition(".")[2], message.data)
        if not found.shows_plan:
            return found
        mark = StreamMark(stream=cursor_name(self._commands), sequence=self._commands.head)
        return msgspec.structs.replace(found, commands=mark)

    def perform(self, instance: Instance, effect: SendAssignments | SendCancels) -> None:
        """Send one request; an answer that comes too late is nobody's."""
        deadline = instance.world.now + ANSWER_SECONDS_MAX
        is_answered = False

        def hear(observation: Callable[[], Any]) -> None:
            nonlocal is_answered

            def now() -> None:
                nonlocal is_answered
                if not is_answered and instance.world.now < deadline:
                    is_answered = True
                    instance.post(observation())

            instance.later(0.0, now)

        body: AssignRequest | CancelRequest
        if isinstance(effect, SendCancels):
            verb, body = (
                "cancel",
                CancelRequest(incarnation=effect.incarnation, cancels=effect.cancels, retire=effect.retire),
            )
        else:
            verb, body = "assign", AssignRequest(incarnation=effect.incarnation, assignments=effect.assignments)
        life, data = instance.life, msgspec.json.encode(body)
        if len(data) > MESSAGE_BYTES_MAX:
            instance.world.failures.append(f"{instance.name} sends {len(data)} bytes to {effect.agent} in one request")
        self._network.request(
            effect.agent,
            verb,
            data,
            answered=lambda data: (
                hear(lambda: Answered(request=effect, answers=_decode_reply(data).answers))
                if instance.life == life
                else None
            ),
            nobody_listened=lambda: hear(lambda: NobodyListened(request=effect)) if instance.life == life else None,
        )
