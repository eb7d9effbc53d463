"""The one place of this service that reads the clock and draws chance: ids that the doors make, and the time now."""

import secrets
import time

from taskyard.contracts.values import Instant, make_uuid7

_RANDOM_BITS = 74


def now() -> Instant:
    """The time of this machine."""
    return Instant(time.time_ns() // 1_000)


def make_id() -> str:
    """A fresh UUIDv7."""
    return make_uuid7(now(), secrets.randbits(_RANDOM_BITS))
