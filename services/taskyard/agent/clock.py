"""The only place of the agent that reads the wall clock."""

import time

from taskyard.contracts.values import Instant


def now() -> Instant:
    """The present."""
    return Instant(time.time_ns() // 1000)


def unix_milliseconds() -> int:
    """The present in milliseconds since the Unix epoch, the stuff that incarnations are made of."""
    return time.time_ns() // 1_000_000
