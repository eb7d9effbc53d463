"""One at a time, each principal in its turn: who asks much waits for itself, and not the others for it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taskyard.api.errors import unavailable
from taskyard.api.places import PlaceLimits, Places
from taskyard.api.principals import Caller


class Turns:
    """Those who wait for a turn at one thing, within the limits of its places. `what` names what each does in its turn."""

    def __init__(self, what: str, limits: PlaceLimits, *, wait_seconds_max: float) -> None:
        self._what = what
        self._places = Places(what, limits)
        self._wait_seconds_max = wait_seconds_max
        self._is_taken = False
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, caller: Caller) -> AsyncIterator[None]:
        """The caller's turn for as long as this lasts. Raises `Refusal`: too many wait, or it did not come in time."""
        with self._places.held(caller):
            await self._wait(caller.name)
            try:
                yield
            finally:
                self._pass_on()

    async def _wait(self, name: str) -> None:
        if not self._is_taken:
            self._is_taken = True
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append(mine)
        try:
            async with asyncio.timeout(self._wait_seconds_max):
                await mine
        except TimeoutError:
            self._give_up(name, mine)
            raise unavailable(f"other {self._what} take long; try again") from None
        except BaseException:
            self._give_up(name, mine)
            raise

    def _give_up(self, name: str, mine: asyncio.Future[None]) -> None:
        if mine.done() and not mine.cancelled():
            self._pass_on()  # the turn had come at the same moment
        elif (waiting := self._waiting.get(name)) is not None and mine in waiting:
            waiting.remove(mine)
            if not waiting:
                del self._waiting[name]

    def _pass_on(self) -> None:
        """The turn goes to whoever has waited for longest of the principal that has had none for longest."""
        while self._waiting:
            name, waiting = next(iter(self._waiting.items()))
            del self._waiting[name]
            following = waiting.popleft()
            if waiting:
                self._waiting[name] = waiting
            if not following.done():
                following.set_result(None)
                return
        self._is_taken = False
