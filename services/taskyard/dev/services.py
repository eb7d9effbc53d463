"""All services in one process, for `taskyard dev`: `python -m taskyard.dev.services --config FILE`."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog
import uvloop

import taskyard.api.app
import taskyard.dispatcher.app
import taskyard.scheduler.app
import taskyard.slot_allocator.app
import taskyard.state_projector.app
from taskyard.dev.together import Together
from taskyard.eventlog.errors import LogVersionUnknown
from taskyard.service import calm_collector
from taskyard.settings import Settings, from_arguments
from taskyard.telemetry.logs import set_up_logs

RUN: Mapping[str, Callable[[Settings, asyncio.Event], Coroutine[Any, Any, None]]] = {
    "scheduler": taskyard.scheduler.app.run,
    "slot_allocator": taskyard.slot_allocator.app.run,
    "dispatcher": taskyard.dispatcher.app.run,
    "state_projector": taskyard.state_projector.app.run,
    "api": taskyard.api.app.run,
}


async def run(together: Together) -> None:
    """Run until INT or TERM. When one service fails all end, as one process: whoever supervises starts it again."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        for name, service in RUN.items():
            group.create_task(service(together.of(name), stop))


if __name__ == "__main__":
    _together = from_arguments(Together)
    set_up_logs(_together.log_level)
    calm_collector()
    try:
        uvloop.run(run(_together))
    except* LogVersionUnknown as _group:
        structlog.get_logger().critical(
            "stopped: this program is too old for the log", reason=str(_group.exceptions[0])
        )
        sys.exit(1)
