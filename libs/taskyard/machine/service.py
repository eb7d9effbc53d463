"""A machine as a running program: connections, the loop, and what the service itself adds."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct

from taskyard.contracts.events import AnyEvent, decode_event
from taskyard.contracts.subjects import LEASES_BUCKET, SNAPSHOTS_BUCKET
from taskyard.eventlog.commit import CommitCodec
from taskyard.eventlog.leases import JetStreamLease
from taskyard.eventlog.snapshots import JetStreamSnapshots
from taskyard.machine.core import LoopCore
from taskyard.machine.loop import MachineLoop, Source
from taskyard.machine.machine import Machine
from taskyard.service import Links, LogEvent, linked, make_instance_name, serving
from taskyard.settings import Settings

InputT = TypeVar("InputT")
EffectT = TypeVar("EffectT")


class Wiring(Struct, Generic[InputT, EffectT], frozen=True, kw_only=True):
    """What a service adds to its machine: where inputs come from, and how an effect is carried out."""

    sources: Sequence[Source[InputT]]
    perform: Callable[[EffectT], Awaitable[None]]


async def run_machine(
    machine: Machine[InputT, EffectT],
    settings: Settings,
    stop: asyncio.Event,
    wire: Callable[[Links, MachineLoop[InputT, EffectT]], Wiring[InputT, EffectT]],
) -> None:
    """Run one instance of a machine until `stop` is set. `wire` may register subscribers that post observations."""
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
        async with serving(links, settings, lambda: loop.is_recovered):
            await loop.run(stop, wiring.sources, wiring.perform)
