"""Something that is held open in a thread with an event loop of its own, so that nothing else of this process delays it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import structlog
import uvloop

from taskyard.eventlog.errors import LogUnavailable

_logger = structlog.get_logger()


@asynccontextmanager
async def in_own_thread(name: str, opening: Callable[[], AbstractAsyncContextManager[object]]) -> AsyncIterator[None]:
    """Hold open in that thread what `opening` opens, until the block ends.

    It is opened anew whenever it ends because a connection was closed for good; raised is what it raises the first time.
    """
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Callable[[], object]] = loop.create_future()

    async def hold() -> None:
        stop, is_new = asyncio.Event(), True
        end = partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set)
        while not stop.is_set():
            try:
                async with opening():
                    if is_new:
                        loop.call_soon_threadsafe(opened.set_result, end)
                    is_new = False
                    await stop.wait()
            except LogUnavailable as error:
                if is_new:
                    raise
                _logger.warning("nothing is heard until there is another connection", by=name, reason=str(error))

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(hold())

    thread = asyncio.create_task(asyncio.to_thread(run), name=name)
    await asyncio.wait((thread, opened), return_when=asyncio.FIRST_COMPLETED)
    if thread.done():
        thread.result()
    end = opened.result()
    try:
        yield
    finally:
        end()
        await thread
