"""The only place of the agent that reads the wall clock, and the one that goes on while the host is asleep."""

import time

from taskyard.contracts.values import Instant


def now() -> Instant:
    """The present."""
    return Instant(time.time_ns() // 1000)


def unix_milliseconds() -> int:
    """The present in milliseconds since the Unix epoch, the stuff that incarnations are made of."""
    return time.time_ns() // 1_000_000


def since_boot() -> float:
    """Seconds since the host was booted: no step of the wall clock changes them, and time asleep is in them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
