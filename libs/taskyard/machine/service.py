"""A machine as a running program: connections, the loop, and what the service itself adds."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Generic, TypeVar

from msgspec import Struct

from taskyard.contracts.events import AnyEvent, decode_event
from taskyard.contracts.subjects import LEASES_BUCKET, SNAPSHOTS_BUCKET
from taskyard.contracts.tasks import TaskTable
from taskyard.eventlog.commit import CommitCodec
from taskyard.eventlog.leases import JetStreamLease
from taskyard.eventlog.snapshots import JetStreamSnapshots
from taskyard.machine.core import LoopCore, Observer
from taskyard.machine.loop import MachineLoop, Source, at_once
from taskyard.machine.machine import Machine
from taskyard.machine.metrics import show_loop
from taskyard.service import Links, LogEvent, linked, make_instance_name, serving
from taskyard.settings import Settings
from taskyard.telemetry.event_lines import EventLines
from taskyard.telemetry.logs import is_debugging
from taskyard.telemetry.task_spans import TaskSpans

InputT = TypeVar("InputT")
EffectT = TypeVar("EffectT")


class Wiring(Struct, Generic[InputT, EffectT], frozen=True, kw_only=True):
    """What a service adds to its machine: where inputs come from, how an effect is carried out, who watches, who hears.

    `told_again` returns when whatever was told while nobody listened has been told again: no deadline is judged before.
    """

    sources: Sequence[Source[InputT]]
    perform: Callable[[EffectT], Awaitable[None]]
    observers: Sequence[Observer] = ()
    ears: Sequence[AbstractAsyncContextManager[object]] = ()
    told_again: Callable[[], Awaitable[None]] = at_once


async def run_machine(
    machine: Machine[InputT, EffectT],
    settings: Settings,
    stop: asyncio.Event,
    wire: Callable[[Links, MachineLoop[InputT, EffectT]], Wiring[InputT, EffectT]],
) -> None:
    """Run one instance of a machine until `stop` is set. `wire` may make ears that post observations."""
    async with linked(machine.writer, settings) as links:
        codec: CommitCodec[Any] = CommitCodec[LogEvent](AnyEvent, decode_event)
        loop = MachineLoop(
            LoopCore(machine, codec, make_instance_name()),
            log=links.log,
            lease=JetStreamLease(links.control_client, LEASES_BUCKET, machine.writer),
            lease_seconds=settings.lease_seconds,
            snapshots=JetStreamSnapshots(links.control_client, SNAPSHOTS_BUCKET),
        )
        wiring = wire(links, loop)
        show_loop(links.metrics, loop)
        loop.core.observers = wiring.observers
        async with AsyncExitStack() as hearing:
            for ear in wiring.ears:
                await hearing.enter_async_context(ear)
            async with serving(links, settings, lambda: loop.is_recovered and not stop.is_set()):
                await loop.run(stop, wiring.sources, wiring.perform, wiring.told_again)


def task_observers(links: Links, tasks: Callable[[], TaskTable]) -> list[Observer]:
    """Who watches the fold of a service: nobody, unless traces are sent or somebody debugs."""
    observers: list[Observer] = []
    if links.spans is not None:
        observers.append(TaskSpans(links.spans, links.name, tasks))
    if is_debugging():
        observers.append(EventLines(links.name))
    return observers
