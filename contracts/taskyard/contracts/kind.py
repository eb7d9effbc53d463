"""What a kind of task is: everything that others have to know of it, in one row."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct

INPUT_BYTES_MAX = 64 * 1024
RETRY_DELAYS_SECONDS_DEFAULT = (2.0, 4.0, 8.0, 16.0, 32.0, 60.0)


class OnLost(StrEnum):
    """What happens to a task whose worker is lost: try again, fail, or hold everything until the worker is back."""

    RETRY = "retry"
    FAIL = "fail"
    HOLD = "hold"


class Lock(StrEnum):
    """What a task has to itself from its first scheduling to its end: nothing, or its queue, which is its workspace."""

    NONE = "none"
    QUEUE = "queue"


class Kind(Struct, frozen=True, kw_only=True):
    """One kind. Who submits, schedules, shows, anonymises, replays or judges tasks of it reads this and nothing else.

    `input` is the type of its input, a Struct but for kinds that take anything, and `example` one that fits it.
    `shown_values` are the fields of the input that anybody may read who may see the task; of those in `shown_names` the
    names of their entries alone: their values, as all other fields, are for the task's owner and admins.
    `retry_delays_seconds` are the waits before the second, third, … try (the last one repeats). A kind with `approval`
    plans first, and goes on to its second half only when somebody has confirmed the plan; where the input has a field
    `auto_confirm`, that may be said beforehand. Kinds with `queue_required` have no default queue.
    """

    name: str
    summary: str
    input: Any
    example: Mapping[str, Any]
    shown_values: tuple[str, ...] = ()
    shown_names: tuple[str, ...] = ()
    input_bytes_max: int = INPUT_BYTES_MAX
    timeout_seconds: float
    max_attempts: int = 1
    retry_delays_seconds: tuple[float, ...] = RETRY_DELAYS_SECONDS_DEFAULT
    lock: Lock = Lock.NONE
    approval: bool = False
    on_lost: OnLost = OnLost.RETRY
    queue_required: bool = False
