"""`python -m taskyard.agent --config FILE`: run an agent until SIGTERM or SIGINT."""

import asyncio
import gc
import logging
import resource
import signal
import sys
from contextlib import suppress

from taskyard.agent import logs
from taskyard.agent.app import run
from taskyard.agent.errors import DirectoryInUseError, JournalError
from taskyard.settings import AgentSettings, from_arguments

_log = logging.getLogger(__name__)


async def _main(settings: AgentSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run(settings, stop)


def _raise_file_limit() -> None:
    """A program takes three pipes, so that a thousand slots need more than the usual soft limit of 1024 files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """Run, and tell by the exit status how it ended."""
    settings = from_arguments(AgentSettings)
    logs.setup()
    _raise_file_limit()
    gc.freeze()  # what is imported lives to the end: no full collection need look through it while tasks run
    try:
        asyncio.run(_main(settings))
    except (DirectoryInUseError, JournalError) as error:
        _log.error("the agent cannot go on", extra=logs.fields(error=str(error)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
