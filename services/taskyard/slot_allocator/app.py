"""Wires the slot allocator: heartbeats in."""

import asyncio
import time

import msgspec
from faststream.nats.annotations import NatsMessage

from taskyard.contracts.agent_protocol import Heartbeat
from taskyard.contracts.subjects import HEARTBEAT_SUBJECTS
from taskyard.contracts.validation import UNREADABLE
from taskyard.machine.loop import MachineLoop
from taskyard.machine.service import Wiring, run_machine, task_observers
from taskyard.service import Links, as_it_is
from taskyard.settings import Settings
from taskyard.slot_allocator.decide import Observation
from taskyard.slot_allocator.liveness import HeartbeatSeen, Reconnected
from taskyard.slot_allocator.machine import SlotAllocator
from taskyard.slot_allocator.metrics import show_slots

CONNECTION_CHECK_SECONDS = 0.5

Loop = MachineLoop[Observation, None]

_decode = msgspec.json.Decoder(Heartbeat).decode


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run one instance of the slot allocator until `stop` is set."""
    machine = SlotAllocator(settings.suspect_seconds, settings.worker_lost_seconds)
    watch: asyncio.Task[None] | None = None

    def wire(links: Links, loop: Loop) -> Wiring[Observation, None]:
        nonlocal watch
        ears = _Ears(links, loop)
        links.fleet.subscriber(HEARTBEAT_SUBJECTS, decoder=as_it_is)(ears.hear)
        watch = asyncio.create_task(ears.watch_connection())
        show_slots(links.metrics, lambda: machine.state)
        observers = task_observers(links, lambda: machine.state.tasks)
        return Wiring(sources=(), perform=_nothing, observers=observers)

    try:
        await run_machine(machine, settings, stop, wire)
    finally:
        if watch is not None:
            watch.cancel()


class _Ears:
    """What this instance hears of agents, and whether it could hear at all."""

    def __init__(self, links: Links, loop: Loop) -> None:
        self._links = links
        self._loop = loop

    async def hear(self, message: NatsMessage) -> None:
        """A heartbeat; one that cannot be read is nobody's."""
        raw = message.raw_message
        try:
            heartbeat = _decode(raw.data)
        except UNREADABLE:
            return
        agent = raw.subject.rpartition(".")[2]
        now = self._loop.core.now(time.monotonic())
        self._loop.post(HeartbeatSeen(agent=agent, at=now, heartbeat=heartbeat))

    async def watch_connection(self) -> None:
        """After a time without a connection nobody's silence counts from before."""
        was_connected = True
        while True:
            await asyncio.sleep(CONNECTION_CHECK_SECONDS)
            is_connected = self._links.fleet_client.is_connected
            if is_connected and not was_connected:
                self._loop.post(Reconnected(at=self._loop.core.now(time.monotonic())))
            was_connected = is_connected


async def _nothing(effect: None) -> None:
    """This machine has no effects."""
