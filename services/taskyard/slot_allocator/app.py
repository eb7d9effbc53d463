"""Wires the slot allocator: heartbeats in."""

import asyncio
import time
from contextlib import suppress

import msgspec
import nats.errors
from nats.aio.msg import Msg

from taskyard.contracts.agent_protocol import Heartbeat
from taskyard.contracts.subjects import HEARTBEAT_SUBJECTS
from taskyard.contracts.validation import UNREADABLE
from taskyard.machine.ears import Ear
from taskyard.machine.loop import MachineLoop
from taskyard.machine.service import Wiring, run_machine, task_observers
from taskyard.service import PING_SECONDS, PINGS_OUTSTANDING_MAX, Links
from taskyard.settings import Settings
from taskyard.slot_allocator.decide import Observation
from taskyard.slot_allocator.liveness import HeartbeatSeen, Listened, Reconnected
from taskyard.slot_allocator.machine import SlotAllocator
from taskyard.slot_allocator.metrics import show_slots

PROBE_SECONDS = 0.5
ANSWER_SECONDS_MAX = PING_SECONDS * (PINGS_OUTSTANDING_MAX + 2)
"""Longer than a silent connection lasts. An answer that comes when nobody waits for it any more ends nats-py's read loop."""

Loop = MachineLoop[Observation, None]

_decode = msgspec.json.Decoder(Heartbeat).decode


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run one instance of the slot allocator until `stop` is set."""
    machine = SlotAllocator(settings.suspect_seconds, settings.worker_lost_seconds)
    watch: asyncio.Task[None] | None = None

    def wire(links: Links, loop: Loop) -> Wiring[Observation, None]:
        nonlocal watch
        listener = _Listener(links, loop)
        watch = asyncio.create_task(listener.probe())
        show_slots(links.metrics, lambda: machine.state)
        observers = task_observers(links, lambda: machine.state.tasks)
        return Wiring(sources=(), perform=_nothing, observers=observers, ears=[listener.ear])

    try:
        await run_machine(machine, settings, stop, wire)
    finally:
        if watch is not None:
            watch.cancel()


class _Listener:
    """What this instance hears of agents, and whether it could hear at all."""

    def __init__(self, links: Links, loop: Loop) -> None:
        self.ear = Ear(links, HEARTBEAT_SUBJECTS, self._hear)
        self._client = links.fleet_client
        self._loop = loop

    async def _hear(self, agent: str, message: Msg) -> None:
        """A heartbeat; one that cannot be read is nobody's."""
        try:
            heartbeat = _decode(message.data)
        except UNREADABLE:
            return
        self._loop.post(HeartbeatSeen(agent=agent, heartbeat=heartbeat), key=f"heartbeat {agent}")

    async def probe(self) -> None:
        """Ask the server again and again: each answer proves that this instance has heard whatever came before it.

        After a time without a connection nobody's silence counts from before.
        """
        was_connected = True
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            is_connected = self._client.is_connected
            if is_connected and not was_connected:
                self._loop.post(Reconnected())
            was_connected = is_connected
            if is_connected:
                with suppress(nats.errors.Error, OSError):
                    await self.ear.caught_up(ANSWER_SECONDS_MAX)
                    self._loop.post(Listened(at=time.monotonic()), key="listened")


async def _nothing(effect: None) -> None:
    """This machine has no effects."""
