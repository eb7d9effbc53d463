"""`command`: a program or a shell script on a worker."""

from typing import Annotated

from msgspec import Meta, Struct

from taskyard.contracts.kind import Kind


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
            raise ValueError("needs either argv or script, and not both")


COMMAND = Kind(
    name="command",
    summary="run a program or a shell script",
    input=CommandInput,
    example={"argv": ["uptime"]},
    shown_names=("env",),
    timeout_seconds=1800,
)
