"""The kinds of tasks: ours, each in a file of its own here, and those of installed packages.

The effective policy of a task is written into its `TaskSubmitted` event, so that the fold of an old log does not
change when a kind does.
"""

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import msgspec

from taskyard.contracts.kind import Kind
from taskyard.contracts.kinds.command import COMMAND
from taskyard.contracts.kinds.noop import NOOP
from taskyard.contracts.kinds.terraform import PLAN, PLAN_AND_APPLY
from taskyard.contracts.values import is_name

OURS = (PLAN, PLAN_AND_APPLY, COMMAND, NOOP)
ENTRY_POINTS = "taskyard.kinds"
"""The group of entry points by which an installed package adds a kind: `NAME = "package.module:KIND"`."""


class WrongKind(Exception):
    """An installed package brings a kind that cannot be one: its own fault, and nothing of Taskyard starts with it."""


def gather(ours: Iterable[Kind], points: Iterable[EntryPoint]) -> dict[str, Kind]:
    """All kinds by name.

    Raises:
        WrongKind: what an entry point names is no kind, bears another name than its entry point, or a name that is taken.
    """
    kinds = {kind.name: kind for kind in ours}
    for point in points:
        where = f"{point.name} = {point.value}"
        kind = point.load()
        if not isinstance(kind, Kind) or kind.name != point.name or not is_name(point.name):
            raise WrongKind(f"the entry point {where} in the group {ENTRY_POINTS} must name a Kind of that name")
        if kind.name in kinds:
            raise WrongKind(f"the entry point {where} in the group {ENTRY_POINTS}: there is another kind of that name")
        kinds[kind.name] = kind
    return kinds


KINDS: dict[str, Kind] = gather(OURS, entry_points(group=ENTRY_POINTS))

_decoders = {name: msgspec.json.Decoder(kind.input) for name, kind in KINDS.items()}


def input_fields(kind: str) -> tuple[str, ...]:
    """The names that an input of `kind` may have; none where anything is allowed."""
    return getattr(KINDS[kind].input, "__struct_fields__", ())


def decode_input(kind: str, raw: msgspec.Raw) -> Any:
    """The input of a task of `kind`, as that kind's type.

    Raises:
        msgspec.ValidationError: the input does not fit; its text names the path below `$`.
        msgspec.DecodeError: the bytes are not JSON.
    """
    return _decoders[kind].decode(raw)


def confirms_itself(kind: Kind, raw: msgspec.Raw) -> bool:
    """Whether an input of this kind says that its plan needs nobody's word."""
    return kind.approval and bool(getattr(decode_input(kind.name, raw), "auto_confirm", False))
