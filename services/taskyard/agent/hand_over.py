"""Hand-over, for upgrades: the agent goes, and what it runs goes on in its supervisor until the next agent comes."""

import logging
import os
import signal
import time
from pathlib import Path

from taskyard.agent.locks import is_free
from taskyard.agent.logs import fields

HAND_OVER = "--hand-over"
HAND_OVER_SIGNAL = signal.SIGUSR1
HAND_OVER_SECONDS_MAX = 30.0
POLL_SECONDS = 0.05

_log = logging.getLogger(__name__)


def hand_over(directory: Path) -> int:
    """Have the agent that works in this folder go; returns the exit status: 0 when it has gone, or none was there."""
    try:
        with (directory / "lock").open() as lock:
            deadline = time.monotonic() + HAND_OVER_SECONDS_MAX
            pid = 0
            while not is_free(lock.fileno()):
                if time.monotonic() > deadline:
                    _log.error("the agent does not go", extra=fields(pid=pid))
                    return 1
                if pid == 0 and (pid := int(lock.read().strip() or 0)):
                    os.kill(pid, HAND_OVER_SIGNAL)
                time.sleep(POLL_SECONDS)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        _log.error("the agent cannot be told to go", extra=fields(error=str(error)))
        return 1
    return 0
