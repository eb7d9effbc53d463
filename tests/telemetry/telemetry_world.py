"""The three machines over a log in memory, with a worker that answers at once, and everybody's spans in one list."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskyard.agent.run_spans import RunSpans
from taskyard.api.clock import make_id, now
from taskyard.api.doors import Door
from taskyard.api.outcomes import Outcomes
from taskyard.api.tracing import DoorSpans
from taskyard.contracts.agent_protocol import (
    AnyReport,
    AssignAnswer,
    Assignment,
    Failed,
    Heartbeat,
    ReportBatch,
    Started,
    Succeeded,
)
from taskyard.contracts.events import DISPATCHER, SCHEDULER, AnyEvent, TaskError, decode_event
from taskyard.contracts.subjects import COMMANDS, HEADER_ANSWER, HEADER_TRACEPARENT, log_stream
from taskyard.contracts.values import Role
from taskyard.dispatcher.decide import Answered
from taskyard.dispatcher.delivery import SendAssignments
from taskyard.dispatcher.machine import Dispatcher
from taskyard.dispatcher.metrics import AttemptCounts
from taskyard.dispatcher.reports import ReportsRead
from taskyard.eventlog.commit import CommitCodec
from taskyard.eventlog.leases import MemoryLease, MemoryLeases
from taskyard.eventlog.log import StreamMessage
from taskyard.eventlog.memory import MemoryInput, MemoryLog, MemoryStream
from taskyard.eventlog.snapshots import MemorySnapshots
from taskyard.machine.core import LoopCore
from taskyard.machine.core import Role as LoopRole
from taskyard.machine.loop import MachineLoop, Source
from taskyard.scheduler.intake import CommandMessage
from taskyard.scheduler.machine import Scheduler
from taskyard.scheduler.metrics import TaskCounts
from taskyard.slot_allocator.liveness import HeartbeatSeen
from taskyard.slot_allocator.machine import SlotAllocator
from taskyard.telemetry.event_lines import RejectionLines
from taskyard.telemetry.spans import Spans
from taskyard.telemetry.task_spans import TaskSpans

WORKER = "worker-1"
SECONDS_MAX = 20.0


class World:
    """`spans` is what everybody told; without `is_traced` nobody tells anything."""

    def __init__(self, *, is_traced: bool = True) -> None:
        self.exporter = InMemorySpanExporter()
        self.is_traced = is_traced
        self.log = MemoryStream(log_stream("0"), now)
        self.commands = MemoryStream(COMMANDS, now)
        self.outcomes = Outcomes()
        self.codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
        self.scheduler = Scheduler({"admin": Role.ADMIN})
        self.allocator = SlotAllocator(1000.0, 2000.0)
        self.dispatcher = Dispatcher()
        self.task_counts = TaskCounts(lambda: self.scheduler.state, RejectionLines(SCHEDULER))
        self.attempt_counts = AttemptCounts(lambda: self.dispatcher.state)
        self.loops: dict[str, MachineLoop[Any, Any]] = {}
        self.reports = 0
        self._leases = MemoryLeases(now)
        spans = self._spans("api")
        self.door = Door(self, self.outcomes, make_id=make_id, spans=DoorSpans(spans) if is_traced else None)
        self._agent = RunSpans(self._spans("agent"), WORKER)

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """The spans by name; one of a name."""
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def _spans(self, service: str) -> Spans:
        return Spans(SimpleSpanProcessor(self.exporter), service)

    async def store(self, subject: str, data: bytes, *, traceparent: str | None = None) -> int:
        """The doors' store."""
        headers = {HEADER_ANSWER: "api"} | ({HEADER_TRACEPARENT: traceparent} if traceparent else {})
        return self.commands.store(subject, data, headers=headers)

    def loop(self, machine: Any, *observers: Any) -> MachineLoop[Any, Any]:
        """One instance of a machine."""
        instance = f"{machine.writer}-1"
        loop = MachineLoop(
            LoopCore(machine, self.codec, instance),
            log=MemoryLog(self.log, "taskyard.log.0", self.codec),
            lease=MemoryLease(self._leases, machine.writer),
            lease_seconds=3.0,
            snapshots=MemorySnapshots(),
        )
        spans = [TaskSpans(self._spans(machine.writer), machine.writer, lambda: machine.state.tasks)]
        loop.core.observers = [*observers, *(spans if self.is_traced else [])]
        self.loops[machine.writer] = loop
        return loop

    @asynccontextmanager
    async def running(self) -> AsyncIterator["World"]:
        """All machines lead, and the worker is there."""
        stop = asyncio.Event()
        scheduler = self.loop(self.scheduler, self.task_counts)
        allocator = self.loop(self.allocator)
        dispatcher = self.loop(self.dispatcher, self.attempt_counts)
        async with asyncio.TaskGroup() as group:
            group.create_task(scheduler.run(stop, [Source(MemoryInput(self.commands), self._read)], self._answer))
            group.create_task(allocator.run(stop, (), self._answer))
            group.create_task(dispatcher.run(stop, (), self._work))
            await until(lambda: all(loop.core.role is LoopRole.LEADER for loop in self.loops.values()))
            beat = Heartbeat(incarnation="r1", pool="default", slots=(("any",),), kinds=("command",))
            allocator.post(HeartbeatSeen(agent=WORKER, heartbeat=beat))
            yield self
            stop.set()

    async def _read(self, message: StreamMessage) -> CommandMessage:
        _, _, principal, pool, verb = message.subject.split(".")
        headers = message.headers or {}
        return CommandMessage(
            sequence=message.sequence,
            at=message.at,
            principal=principal,
            pool=pool,
            verb=verb,
            data=message.data,
            door=headers.get(HEADER_ANSWER),
            traceparent=headers.get(HEADER_TRACEPARENT),
        )

    async def _answer(self, effect: Any) -> None:
        self.outcomes.deliver(msgspec.json.encode(effect.batch))

    async def _work(self, effect: Any) -> None:
        """Be the worker: accept, run, report. An input of `false` fails."""
        assert isinstance(effect, SendAssignments)
        post = self.loops[DISPATCHER].post
        answers = tuple(AssignAnswer(position=one.position, outcome="accepted") for one in effect.assignments)
        post(Answered(request=effect, answers=answers))
        for one in effect.assignments:
            began = now()
            post(self._reported(Started(task=one.task, attempt=one.attempt, at=began)))
            end = _run(one)
            error = end.error.code if isinstance(end, Failed) else None
            if self.is_traced:
                self._agent.ran(one, began, now(), error)
            post(self._reported(end))

    def _reported(self, report: AnyReport) -> ReportsRead:
        self.reports += 1
        batch = ReportBatch(incarnation=1, number=self.reports, reports=(report,))
        return ReportsRead(agent=WORKER, batch=batch, size=100)


def _run(one: Assignment) -> AnyReport:
    if b"false" in bytes(one.input):
        error = TaskError(code="exit_status", message="ended with 1")
        return Failed(task=one.task, attempt=one.attempt, at=now(), error=error)
    return Succeeded(task=one.task, attempt=one.attempt, at=now())


async def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(SECONDS_MAX):
        while not holds():
            await asyncio.sleep(0.005)
