"""All services in one process, for `taskyard dev`: `python -m taskyard.dev.services --config FILE`."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

import taskyard.api.app
import taskyard.dispatcher.app
import taskyard.scheduler.app
import taskyard.slot_allocator.app
import taskyard.state_projector.app
from taskyard.settings import Settings, from_arguments
from taskyard.telemetry.logs import set_up_logs

SERVICES: tuple[Callable[[Settings, asyncio.Event], Coroutine[Any, Any, None]], ...] = (
    taskyard.scheduler.app.run,
    taskyard.slot_allocator.app.run,
    taskyard.dispatcher.app.run,
    taskyard.state_projector.app.run,
    taskyard.api.app.run,
)


async def run(settings: Settings) -> None:
    """Run until INT or TERM. When one service fails all end, as one process: whoever supervises starts it again."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        for service in SERVICES:
            group.create_task(service(settings, stop))


if __name__ == "__main__":
    _settings = from_arguments(Settings)
    set_up_logs(_settings.log_level)
    uvloop.run(run(_settings))
