"""Contact with the server, and for how long there was none."""

import asyncio
from collections.abc import Awaitable, Callable

from taskyard.agent import clock
from taskyard.agent.aside import standing_aside
from taskyard.contracts.agent_protocol import HEARTBEAT_SECONDS

SELF_FENCE_SECONDS = 20.0
"""Without contact for so long, what may be retried elsewhere stops: before the worker would be declared lost (30 s)."""


class Contact:
    """Asks `has_contact` regularly, and calls `on_cut_off` when it finds that there was none for too long."""

    def __init__(self, has_contact: Callable[[], Awaitable[bool]], on_cut_off: Callable[[], None]) -> None:
        self._has_contact = has_contact
        self._on_cut_off = on_cut_off
        self._at = clock.since_boot()
        self.begun = asyncio.Event()
        """Set from the first time on that the server has answered."""

    @property
    def is_cut_off(self) -> bool:
        """Whether there was no contact for so long that what runs here may be run by another soon."""
        return clock.since_boot() - self._at > SELF_FENCE_SECONDS

    def made(self) -> None:
        """The server has answered."""
        self._look()
        self._at = clock.since_boot()
        self.begun.set()

    async def watch(self) -> None:
        """Look for ever whether the server has been silent for too long.

        Also if it answers again by now: an agent that stood still, with its host or alone, finds out when it wakes.
        """
        while True:
            is_there = await self._is_answered()
            with standing_aside("a look at the contact"):
                if is_there:
                    self.made()
                else:
                    self._look()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _is_answered(self) -> bool:
        with standing_aside("a question whether there is contact"):
            return await self._has_contact()
        return False

    def _look(self) -> None:
        if self.is_cut_off:
            with standing_aside("what is to be done without contact"):
                self._on_cut_off()
