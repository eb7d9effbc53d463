"""How often an attempt tells its progress: at most once in so long, and the newest is never lost."""

import asyncio
from collections.abc import Callable

Progress = tuple[int, str]
"""Percent, and a text."""


class ProgressTold:
    """Hands progress to `send`, at least `seconds_min` apart. What comes too early waits; a newer one takes its place."""

    def __init__(self, send: Callable[[int, str], None], *, seconds_min: float) -> None:
        self._send = send
        self._seconds_min = seconds_min
        self._waiting: Progress | None = None
        self._timer: asyncio.TimerHandle | None = None

    def tell(self, percent: int, message: str) -> None:
        """There is progress. It is sent now, or when the time since the last one is over."""
        if self._timer is not None:
            self._waiting = (percent, message)
            return
        self._send(percent, message)
        self._timer = asyncio.get_running_loop().call_later(self._seconds_min, self._over)

    def end(self) -> None:
        """The attempt ends: what waits is sent now, since its end would come before it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._send(*waiting)

    def _over(self) -> None:
        self._timer = None
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self.tell(*waiting)
