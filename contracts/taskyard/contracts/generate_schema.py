"""JSON Schema of everything that is sent: commands, answers, events, what agents and services say, inputs of tasks."""

from collections.abc import Iterable
from functools import cache, reduce
from types import GenericAlias, UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin

import msgspec
from msgspec import Raw, Struct

from taskyard.contracts import agent_protocol, audit, commands
from taskyard.contracts.events import OWNERS, Event
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.verbs import VERBS

MARK = "Generated from contracts/taskyard by `./dev generate`. Do not edit."
DIALECT = "https://json-schema.org/draft/2020-12/schema"

EVENTS: tuple[type[Event], ...] = tuple(dict.fromkeys(event for owned in OWNERS.values() for event in owned))
REPORTS: tuple[type[Struct], ...] = (
    agent_protocol.Started,
    agent_protocol.Progressed,
    agent_protocol.Planned,
    agent_protocol.Succeeded,
    agent_protocol.Failed,
    agent_protocol.Lost,
)

GROUPS: dict[str, tuple[type[Struct], ...]] = {
    "commands": tuple(dict.fromkeys(body for verb in VERBS.values() for body in verb.bodies)),
    "answers": (commands.Answer, commands.CommandAnswers, commands.AnswerBatch),
    "events": EVENTS,
    "agent_protocol": (
        agent_protocol.Heartbeat,
        agent_protocol.AssignRequest,
        agent_protocol.AssignReply,
        agent_protocol.CancelRequest,
        agent_protocol.ReportBatch,
        *REPORTS,
    ),
    "audit": (audit.AccessDenied,),
    "kinds": tuple(dict.fromkeys(kind.input for kind in KINDS.values() if kind.input is not Any)),
}
"""The files of schemas, and what each is about; what these refer to stands beside them."""


def schema(group: str) -> dict[str, Any]:
    """The schema file of a group: its types stand below `$defs`; what fits any of them fits the file."""
    references, definitions = components(GROUPS[group], "#/$defs/{name}")
    return {
        "$schema": DIALECT,
        "$comment": MARK,
        "title": f"Taskyard {group.replace('_', ' ')}",
        "anyOf": references,
        "$defs": definitions,
    }


def components(structs: Iterable[type[Struct]], template: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """References to the schemas of these types, and by name those schemas and all that they refer to."""
    references, definitions = msgspec.json.schema_components(
        [_plain(struct) for struct in structs], ref_template=template
    )
    return list(references), dict(sorted(definitions.items()))


@cache
def _plain(struct: type[Struct]) -> type[Struct]:
    """The same type with its `Raw` defaults decoded: msgspec cannot write those into a schema."""
    changed: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(struct):
        kind = _plain_type(field.type)
        if isinstance(field.default, Raw):
            changed.append((field.name, kind, msgspec.json.decode(field.default)))
        elif kind is not field.type:
            changed.append((field.name, kind))
    if not changed:
        return struct
    named: dict[str, Any] = {"__doc__": struct.__doc__}
    return msgspec.defstruct(
        struct.__name__, changed, bases=(struct,), module=struct.__module__, namespace=named, kw_only=True, frozen=True
    )


def _plain_type(kind: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, Struct):
        return _plain(kind)
    origin: Any = get_origin(kind)
    arguments: tuple[Any, ...] = get_args(kind)
    if origin is Annotated:
        plain = _plain_type(arguments[0])
        return cast("Any", kind) if plain is arguments[0] else Annotated[(plain, *arguments[1:])]
    if origin not in (tuple, list, Union, UnionType):
        return cast("Any", kind)
    changed = tuple(_plain_type(argument) for argument in arguments)
    if all(new is old for new, old in zip(changed, arguments, strict=True)):
        return cast("Any", kind)
    if origin in (tuple, list):
        return GenericAlias(origin, changed)
    return reduce(lambda first, second: first | second, changed)
