"""Drives the real resolution of appends (`append_resolved`) by hand: its awaits become steps of the world.

It finds a running loop that has nothing but the world's time, so no event loop runs and no clock is read.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import Any, Generic, TypeVar

from taskyard.eventlog.append import append_resolved
from taskyard.eventlog.errors import Unanswered
from taskyard.simulation.network import Network
from taskyard.simulation.streams import Servers
from taskyard.simulation.time import Process

TRY_SECONDS_MAX = 2.0
APPEND_SECONDS_MAX = 8.0

T = TypeVar("T")


class Answer(Generic[T]):
    """One thing that is waited for. The first outcome counts."""

    def __init__(self) -> None:
        self.is_done = False
        self._value: T | None = None
        self._error: Exception | None = None
        self.on_done: Callable[[], None] | None = None

    def set_result(self, value: T) -> None:
        """It is there."""
        self._finish(value, None)

    def set_exception(self, error: Exception) -> None:
        """It failed."""
        self._finish(None, error)

    def cancelled(self) -> bool:
        """Never: what is not waited for any more is forgotten."""
        return False

    def _finish(self, value: T | None, error: Exception | None) -> None:
        if self.is_done:
            return
        self.is_done, self._value, self._error = True, value, error
        if self.on_done is not None:
            self.on_done()

    def __await__(self) -> Generator["Answer[T]", None, T]:
        if not self.is_done:
            yield self
        if self._error is not None:
            raise self._error
        return self._value  # pyright: ignore[reportReturnType] - T may be None


class _Timer:
    def cancel(self) -> None:
        """A pause that was waited for needs no cancelling."""


class _Loop:
    """As much of an event loop as `asyncio.sleep` needs, on the time of a simulated process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def time(self) -> float:
        return self._process.monotonic

    def create_future(self) -> Answer[None]:
        return Answer()

    def call_later(self, delay: float, callback: Callable[..., None], *arguments: Any) -> _Timer:
        # The jitter that was put into `delay` comes from no seed of ours.
        pause = self._process.random.uniform(0.01, 1.0)
        self._process.later(pause, lambda: callback(*arguments))
        return _Timer()


class Driver:
    """Runs one coroutine, from wait to wait, as steps of a process. A crash or `close` leaves it where it is."""

    def __init__(
        self,
        process: Process,
        coroutine: Coroutine[Any, Any, int],
        done: Callable[[int], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._process = process
        self._coroutine = coroutine
        self._done, self._failed = done, failed
        self._is_closed = False
        self._step()

    def close(self) -> None:
        """Give it up: what it asked for may happen all the same."""
        self._is_closed = True
        self._coroutine.close()

    def _step(self) -> None:
        if self._is_closed:
            return
        running: Any = _Loop(self._process)
        asyncio._set_running_loop(running)  # noqa: SLF001 - made for whoever runs coroutines by itself
        then: Callable[[], None] | None = None
        try:
            waits = self._coroutine.send(None)
        except StopIteration as stop:
            then = partial(self._done, stop.value)
        except Exception as error:  # noqa: BLE001 - handed on
            then = partial(self._failed, error)
        else:
            if isinstance(waits, Answer):
                waits.on_done = self._step
            else:
                then = self._again
        finally:
            asyncio._set_running_loop(None)  # noqa: SLF001
        if then is not None:
            then()

    def _again(self) -> None:
        self._process.later(0.0, self._step)


class Appender:
    """Appends of one process over the network; see `taskyard.eventlog.append.Appender`."""

    def __init__(self, process: Process, servers: Servers, network: Network) -> None:
        self._process = process
        self._servers = servers
        self._network = network

    async def try_append(self, data: bytes, *, writer: str, expected: int) -> int:
        """Append once; silence for too long is no answer."""
        return await self._ask(lambda: self._servers.append(data, writer, expected))

    async def read_last(self, writer: str) -> tuple[int, bytes] | None:
        """The writer's last commit."""
        return await self._ask(lambda: self._servers.last(writer))

    async def head(self) -> int:
        """The sequence of the last commit."""
        return await self._ask(lambda: self._servers.log.head)

    def _ask(self, do: Callable[[], T]) -> Awaitable[T]:
        answer: Answer[T] = Answer()
        network, process = self._network, self._process

        def reach() -> None:
            if network.is_log_away:
                return
            try:
                result = do()
            except Unanswered as error:
                refused = error
                network.carry(lambda: process.later(0.0, lambda: answer.set_exception(refused)))
            else:
                network.carry(lambda: process.later(0.0, lambda: answer.set_result(result)))

        network.carry(reach)
        process.later(TRY_SECONDS_MAX, lambda: answer.set_exception(Unanswered("no answer in time")))
        return answer


def append(
    process: Process, appender: Appender, data: bytes, writer: str, expected: int, *, done: Callable[[int], None],
    failed: Callable[[Exception], None],
) -> Driver:  # fmt: skip
    """Append until the outcome is known, by the rule that every service uses."""
    coroutine = append_resolved(appender, data, writer=writer, expected=expected, seconds_max=APPEND_SECONDS_MAX)
    return Driver(process, coroutine, done, failed)
