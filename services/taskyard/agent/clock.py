"""The only place of the agent that reads clocks, the wall's and the one that goes on while the host is asleep, and draws ids."""

import secrets
import time

from taskyard.contracts.values import Instant


def now() -> Instant:
    """The present."""
    return Instant(time.time_ns() // 1000)


def since_boot() -> float:
    """Seconds since the host was booted: no step of the wall clock changes them, and time asleep is in them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def make_incarnation() -> str:
    """The incarnation of a run that begins. It starts with a letter, so that it is never taken for a number of a first log."""
    return f"r{secrets.token_hex(8)}"
