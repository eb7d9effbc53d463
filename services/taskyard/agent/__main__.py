"""`python -m taskyard.agent --config FILE`: run an agent until SIGTERM or SIGINT.

`--with MODULE`, as often as wanted, lets it run the functions with `@task` of a Python module that is installed here.
With `--hand-over` it stops the agent that runs with these settings and leaves what that runs to the next one.
"""

import argparse
import asyncio
import gc
import logging
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from taskyard.agent import logs
from taskyard.agent.app import run
from taskyard.agent.errors import (
    REPLACED_STATUS,
    DirectoryInUseError,
    JournalError,
    ModuleWithoutTasksError,
    ReplacedError,
    TaskUserError,
)
from taskyard.agent.hand_over import HAND_OVER, HAND_OVER_SIGNAL, hand_over
from taskyard.agent.supervisor.keeper import become_unreadable
from taskyard.settings import ENVIRONMENT_PREFIX, AgentSettings, from_arguments

WITH = "--with"

_log = logging.getLogger(__name__)


async def _main(settings: AgentSettings) -> None:
    stop, hand_over = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def leave_all() -> None:
        hand_over.set()
        stop.set()

    loop.add_signal_handler(HAND_OVER_SIGNAL, leave_all)
    await run(settings, stop, hand_over)


def _raise_file_limit() -> None:
    """A program takes three pipes, so that a thousand slots need more than the usual soft limit of 1024 files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _keep_to_itself() -> None:
    """What tasks of our user must not read: our memory, and the settings in our environment."""
    become_unreadable()
    for name in [name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)]:
        del os.environ[name]


def main() -> int:
    """Run, and tell by the exit status how it ended."""
    arguments = sys.argv[1:]
    is_hand_over = HAND_OVER in arguments
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(WITH, dest="modules", action="append", default=[])
    found, others = parser.parse_known_args([one for one in arguments if one != HAND_OVER])
    settings = from_arguments(AgentSettings, others)
    settings = msgspec.structs.replace(settings, modules=[*settings.modules, *found.modules])
    logs.setup()
    if is_hand_over:
        return hand_over(Path(settings.directory))
    _keep_to_itself()
    _raise_file_limit()
    gc.freeze()  # what is imported lives to the end: no full collection need look through it while tasks run
    try:
        asyncio.run(_main(settings))
    except (TaskUserError, ModuleWithoutTasksError) as error:
        _log.error("the settings cannot hold", extra=logs.fields(error=str(error)))
        return 2
    except (DirectoryInUseError, JournalError) as error:
        _log.error("the agent cannot go on", extra=logs.fields(error=str(error)))
        return 1
    except ReplacedError as error:
        _log.error("the agent was replaced", extra=logs.fields(reason=str(error)))
        return REPLACED_STATUS
    return 0


if __name__ == "__main__":
    sys.exit(main())
