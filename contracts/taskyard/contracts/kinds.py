"""The table of task kinds: what a kind's input is, how long it may run, how it is retried, what a lost worker means.

The effective policy of a task is written into its `TaskSubmitted` event, so that the fold of an old log does not
change when this table does.
"""

from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

INPUT_BYTES_MAX = 64 * 1024
NOOP_INPUT_BYTES_MAX = 1024
RETRY_DELAYS_SECONDS_DEFAULT = (2.0, 4.0, 8.0, 16.0, 32.0, 60.0)


class OnLost(StrEnum):
    """What happens to a task whose worker is lost: try again, fail, or hold everything until the worker is back."""

    RETRY = "retry"
    FAIL = "fail"
    HOLD = "hold"


class TerraformInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Input of `plan` and `plan_and_apply`: a configuration's directory on the worker and its variables."""

    directory: Annotated[str, Meta(pattern=r"^/[^\x00]*$", max_length=4096)]
    variables: dict[Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$(?!\n)", max_length=255)], Any] = {}
    auto_confirm: bool = False


class CommandInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Input of `command`: an argument vector or a script for `/bin/sh`, and environment variables."""

    argv: Annotated[list[Annotated[str, Meta(pattern=r"^[^\x00]*$")]], Meta(min_length=1)] | None = None
    script: Annotated[str, Meta(min_length=1, pattern=r"^[^\x00]*$")] | None = None
    env: dict[
        Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$(?!\n)")], Annotated[str, Meta(pattern=r"^[^\x00]*$")]
    ] = {}

    def __post_init__(self) -> None:
        """Exactly one of the two forms must be given."""
        if (self.argv is None) == (self.script is None):
            raise ValueError("exactly one of `argv` and `script` is needed")


class Kind(Struct, frozen=True, kw_only=True):
    """One row of the table.

    `retry_delays_seconds` are the waits before the second, third, … try (the last one repeats); `exclusive` kinds
    hold their queue (the workspace) from scheduled to end; `queue_required` kinds have no default queue.
    """

    name: str
    input: Any
    input_bytes_max: int = INPUT_BYTES_MAX
    timeout_seconds: float
    max_attempts: int = 1
    retry_delays_seconds: tuple[float, ...] = RETRY_DELAYS_SECONDS_DEFAULT
    exclusive: bool = False
    on_lost: OnLost = OnLost.RETRY
    queue_required: bool = False


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(name="plan", input=TerraformInput, timeout_seconds=1800, max_attempts=3, queue_required=True),
        Kind(
            name="plan_and_apply",
            input=TerraformInput,
            timeout_seconds=1800,
            max_attempts=3,
            exclusive=True,
            on_lost=OnLost.HOLD,
            queue_required=True,
        ),
        Kind(name="command", input=CommandInput, timeout_seconds=1800),
        Kind(name="noop", input=Any, input_bytes_max=NOOP_INPUT_BYTES_MAX, timeout_seconds=60, max_attempts=3),
    )
}

_decoders = {name: msgspec.json.Decoder(kind.input) for name, kind in KINDS.items()}


def decode_input(kind: str, raw: msgspec.Raw) -> Any:
    """The input of a task of `kind`, as that kind's Struct.

    Raises:
        msgspec.ValidationError: the input does not fit; its text names the path below `$`.
        msgspec.DecodeError: the bytes are not JSON.
    """
    return _decoders[kind].decode(raw)
