"""Group commit of submissions: while one store is in flight the next one gathers, so that one fsync serves many tasks."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from taskyard.api.errors import StoreUnavailable
from taskyard.api.outcomes import Outcome
from taskyard.api.submission import ITEM_BYTES_MAX, Item
from taskyard.contracts.commands import TASKS_PER_COMMAND_MAX, Answer

WAITING_BYTES_MAX = 64 << 20
"""How much may wait to be stored, over all principals and pools."""

Post = Callable[[str, str, list[Item]], Awaitable[Outcome]]
"""Stores tasks of a principal for a pool as one command and returns its outcome; raises `StoreUnavailable`."""

_Waiting = tuple[Item, "asyncio.Future[Answer | None]"]


class Packer:
    """Stores tasks in commands that are as full as the moment allows. A lone task goes at once."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._lanes: dict[tuple[str, str], deque[_Waiting]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._waiting_bytes = 0

    async def submit(self, principal: str, pool: str, items: Iterable[Item]) -> list[Answer | None]:
        """Store the tasks and wait for the answer to each, in their order.

        Raises:
            StoreUnavailable: at least one was not acknowledged, or too much waits already.
        """
        if self._waiting_bytes > WAITING_BYTES_MAX:
            raise StoreUnavailable("too much waits to be stored")
        loop = asyncio.get_running_loop()
        waiting: list[_Waiting] = [(item, loop.create_future()) for item in items]
        self._waiting_bytes += sum(len(item.data) for item, _ in waiting)
        lane = self._lanes.get((principal, pool))
        if lane is None:
            lane = self._lanes[principal, pool] = deque()
            task = loop.create_task(self._drain(principal, pool, lane))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        lane.extend(waiting)
        answers = await asyncio.gather(*(future for _, future in waiting), return_exceptions=True)
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        if failures:
            raise failures[0]
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def _drain(self, principal: str, pool: str, lane: deque[_Waiting]) -> None:
        try:
            await asyncio.sleep(0)  # Whoever arrives in the same turn of the loop comes along.
            while lane:
                chunk = _take(lane)
                self._waiting_bytes -= sum(len(item.data) for item, _ in chunk)
                await self._store(principal, pool, chunk)
        finally:
            del self._lanes[principal, pool]

    async def _store(self, principal: str, pool: str, chunk: list[_Waiting]) -> None:
        try:
            outcome = await self._post(principal, pool, [item for item, _ in chunk])
        except Exception as error:  # noqa: BLE001 - those who wait get it, and the lane goes on for the others
            for _, future in chunk:
                if not future.done():
                    future.set_exception(error)
            return
        outcome.add_done_callback(lambda done: _distribute(chunk, done))


def chunks(items: list[Item]) -> list[list[Item]]:
    """The tasks in as few commands as their limits allow."""
    parts: list[list[Item]] = []
    size = ITEM_BYTES_MAX
    for item in items:
        size += len(item.data) + 1
        if size > ITEM_BYTES_MAX or len(parts[-1]) == TASKS_PER_COMMAND_MAX:
            parts.append([])
            size = len(item.data)
        parts[-1].append(item)
    return parts


def answer_at(answers: tuple[Answer, ...] | None, index: int) -> Answer | None:
    """The answer to one task of a command; a single answer to many is about the command as a whole."""
    if not answers:
        return None
    return answers[index] if index < len(answers) else answers[0]


def _take(lane: deque[_Waiting]) -> list[_Waiting]:
    chunk = [lane.popleft()]
    size = len(chunk[0][0].data)
    while lane and len(chunk) < TASKS_PER_COMMAND_MAX:
        size += len(lane[0][0].data) + 1
        if size > ITEM_BYTES_MAX:
            break
        chunk.append(lane.popleft())
    return chunk


def _distribute(chunk: list[_Waiting], outcome: Outcome) -> None:
    answers = None if outcome.cancelled() else outcome.result()
    for index, (_, future) in enumerate(chunk):
        if not future.done():
            future.set_result(answer_at(answers, index))
