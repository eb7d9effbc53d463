"""All services in one process, for `taskyard dev`: `python -m taskyard.dev.services --config FILE`."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
import uvloop

import taskyard.api.app
import taskyard.dispatcher.app
import taskyard.scheduler.app
import taskyard.slot_allocator.app
import taskyard.state_projector.app
from taskyard.eventlog.errors import LogVersionUnknown
from taskyard.service import calm_collector
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
    calm_collector()
    try:
        uvloop.run(run(_settings))
    except* LogVersionUnknown as _group:
        structlog.get_logger().critical(
            "stopped: this program is too old for the log", reason=str(_group.exceptions[0])
        )
        sys.exit(1)
