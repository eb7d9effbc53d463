"""What Terraform says, read without I/O: its plan and outputs as JSON, its errors and its progress as text."""

import re
from typing import Any

import msgspec

from taskyard.contracts.events import Changes

ERROR_LINES_MAX = 6
ERROR_CHARACTERS_MAX = 1000
SENSITIVE = "(sensitive value)"

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_BOX = "╷│╵ \t"
_DONE = re.compile(r"(?:Creation|Modifications|Destruction) complete after")


class _Change(msgspec.Struct):
    actions: list[str] = []


class _ResourceChange(msgspec.Struct):
    change: _Change = msgspec.field(default_factory=_Change)


class _Plan(msgspec.Struct):
    resource_changes: list[_ResourceChange] = []


class _Output(msgspec.Struct):
    value: Any = None
    sensitive: bool = False


def count_changes(plan: bytes) -> Changes:
    """The numbers that Terraform itself prints after a plan, from `show -json`. A replacement is one of each.

    Raises:
        msgspec.DecodeError: this is no plan.
    """
    actions = [
        action for one in msgspec.json.decode(plan, type=_Plan).resource_changes for action in one.change.actions
    ]
    return Changes(add=actions.count("create"), change=actions.count("update"), destroy=actions.count("delete"))


def read_outputs(outputs: bytes) -> dict[str, Any]:
    """The values of `output -json`; those marked as sensitive are replaced.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: these are none that can be read.
    """
    found = msgspec.json.decode(outputs, type=dict[str, _Output])
    return {name: SENSITIVE if output.sensitive else output.value for name, output in found.items()}


def first_error(text: str) -> str:
    """The first error of Terraform's standard error on one line; its last line where no error is marked."""
    lines = [_ANSI.sub("", line).strip(_BOX) for line in text.splitlines()]
    lines = [line for line in lines if line]
    start = next((number for number, line in enumerate(lines) if line.startswith("Error:")), None)
    if start is None:
        return lines[-1][:ERROR_CHARACTERS_MAX] if lines else ""
    end = next(
        (number for number in range(start + 1, len(lines)) if lines[number].startswith(("Error:", "Warning:"))), None
    )
    return " ".join(lines[start:end][:ERROR_LINES_MAX])[:ERROR_CHARACTERS_MAX]


def count_done(text: str) -> int:
    """How many resources a piece of the output of an apply tells to be done."""
    return len(_DONE.findall(text))
