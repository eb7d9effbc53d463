"""`python -m taskyard.api --config FILE`."""

import asyncio
import signal

import uvloop

from taskyard.api.app import run
from taskyard.settings import Settings, from_arguments


async def main(settings: Settings) -> None:
    """Serve until INT or TERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(settings, stop)


if __name__ == "__main__":
    uvloop.run(main(from_arguments(Settings)))
