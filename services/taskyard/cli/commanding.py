"""How the command line's verbs are made: each from its row in the table of verbs, with an option for each field of its body."""

from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter, Signature
from typing import Annotated, Any, NamedTuple

import msgspec.inspect
import typer
from msgspec.inspect import BoolType, Field, FloatType, IntType, Metadata, StrType, Type, UnionType

from taskyard.cli.client import segment
from taskyard.cli.errors import WrongUsage
from taskyard.cli.session import AsJson, ConnectionFile, PoolOption, session, task_id
from taskyard.contracts.values import POOL_DEFAULT
from taskyard.contracts.verbs import Target, Verb

SECONDS = "_seconds"


class Ask(NamedTuple):
    """A command to send: its path, what to say in it (what is None is left out), and its success in words."""

    path: str
    body: Mapping[str, object]
    done: str


_SHARED = (
    Parameter("connection", Parameter.KEYWORD_ONLY, default=None, annotation=ConnectionFile),
    Parameter("as_json", Parameter.KEYWORD_ONLY, default=False, annotation=AsJson),
)
_OF_TARGET = {
    Target.TASK: ("id", "ID", "The task's id."),
    Target.QUEUE: ("queue", "QUEUE", "The queue."),
    Target.POOL: ("pool", "POOL", "The pool."),
    Target.WORKER: ("worker", "WORKER", "The worker."),
}
_OF_ADDRESSES = ("id", "pool", "worker")
"""What the address names. A queue's name may hold what an address may not, so its body names it."""
_OF_QUEUES = ("queue", "create")
"""Which queue a verb is about, and that it may be a new one."""
_TYPES: dict[type[Type], type] = {IntType: int, FloatType: float, StrType: str, BoolType: bool}


def command_of(verb: Verb, target: Target) -> Callable[..., None]:
    """The command that asks for a verb about a target and shows the verdict."""

    def run(**given: Any) -> None:
        connection, as_json = given.pop("connection"), given.pop("as_json")
        # Asked first: what is wrong with the arguments needs no server.
        asked = ask_for(verb, target, given)
        with session(connection, as_json=as_json) as s:
            s.command(*asked)

    parameters = [*_parameters(verb, target), *_SHARED]
    run.__doc__ = verb.summary.format(target=target) + ("" if verb.role == "operator" else " For admins.")
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = Signature(parameters, return_annotation=None)  # Typer reads a command from it
    return run


def ask_for(verb: Verb, target: Target, given: Mapping[str, Any]) -> Ask:
    """What to send for a verb and what was given for it.

    Raises:
        WrongUsage: it says nothing to change, or the task's id is none.
    """
    name, pool = given[_OF_TARGET[target][0]], given.get("pool", POOL_DEFAULT)
    own = {field: value for field, value in given.items() if field not in _OF_ADDRESSES}
    own = {field: None if value == "" or value is False else value for field, value in own.items()}
    if verb.needs_change and not any(value is not None for key, value in own.items() if key not in _OF_QUEUES):
        raise WrongUsage("name at least one setting to change")
    # A queue is named in the body: its address is that of its pool.
    named = task_id(name) if target is Target.TASK else segment(pool if target is Target.QUEUE else name)
    return Ask(f"/{target}s/{named}/{verb.word}", own, verb.done.format(**{**given, "target": name}))


def _parameters(verb: Verb, target: Target) -> Iterator[Parameter]:
    name, metavar, words = _OF_TARGET[target]
    yield _parameter(name, Annotated[str, typer.Argument(metavar=metavar, help=words)])
    info = msgspec.inspect.type_info(verb.body)
    assert isinstance(info, msgspec.inspect.StructType)
    own = [field for field in info.fields if field.name not in ("id", "pool", target)]
    if target is not Target.QUEUE:
        own = [field for field in own if field.name not in _OF_QUEUES]
    for field in sorted(own, key=lambda field: not field.required):
        yield _parameter_of(field, is_needed=field.required or (verb.needs_reason and field.name == "reason"))
    if target is Target.QUEUE:
        yield _parameter("pool", PoolOption, POOL_DEFAULT)


def _parameter_of(field: Field, *, is_needed: bool) -> Parameter:
    """What must be there is an argument; what may be left out an option, and so is a reason."""
    plain = _plain(field.type)
    kind = _TYPES[type(plain)]
    words = field.type.extra_json_schema or {} if isinstance(field.type, Metadata) else {}
    shown: dict[str, Any] = {"help": words.get("description")}
    if isinstance(plain, IntType | FloatType):
        shown |= {"min": plain.ge, "max": plain.le}
    if field.required:
        return _parameter(field.name, Annotated[kind, typer.Argument(metavar=field.name.upper(), **shown)])
    if field.name.endswith(SECONDS):
        shown["metavar"] = "SECONDS"
    option = typer.Option(f"--{field.name.removesuffix(SECONDS).replace('_', '-')}", **shown)
    if is_needed:
        return _parameter(field.name, Annotated[kind, option])
    return _parameter(field.name, Annotated[kind | None, option], None) if kind is not bool else _flag(field, option)


def _flag(field: Field, option: Any) -> Parameter:
    return _parameter(field.name, Annotated[bool, option], default=False)


def _parameter(name: str, annotation: Any, default: Any = Parameter.empty) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _plain(kind: Type) -> Type:
    """The type of a field without its description, and without that it may be null."""
    while isinstance(kind, Metadata | UnionType):
        kind = kind.type if isinstance(kind, Metadata) else kind.types[0]
    return kind
