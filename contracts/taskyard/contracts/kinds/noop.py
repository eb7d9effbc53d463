"""`noop`: nothing at all. It measures the way to a worker and back."""

from typing import Any

from taskyard.contracts.kind import Kind

NOOP_INPUT_BYTES_MAX = 1024

NOOP = Kind(
    name="noop",
    summary="do nothing",
    input=Any,
    example={"number": 1},
    input_bytes_max=NOOP_INPUT_BYTES_MAX,
    timeout_seconds=60,
    max_attempts=3,
)
