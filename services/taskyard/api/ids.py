"""Ids that the doors make: the one place of this service that reads the clock and draws chance for them."""

import secrets
import time

from taskyard.contracts.values import Instant, make_uuid7

_RANDOM_BITS = 74


def make_id() -> str:
    """A fresh UUIDv7."""
    return make_uuid7(Instant(time.time_ns() // 1_000), secrets.randbits(_RANDOM_BITS))
