"""How a command line's verb is made: of a function that says what to ask for, with the options that every verb has."""

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any, NamedTuple

from taskyard.cli.session import AsJson, ConnectionFile, session


class Ask(NamedTuple):
    """A command to send: its path, what to say in it (what is None is left out), and its success in words."""

    path: str
    body: Mapping[str, object]
    done: str


_SHARED = (
    Parameter("connection", Parameter.KEYWORD_ONLY, default=None, annotation=ConnectionFile),
    Parameter("as_json", Parameter.KEYWORD_ONLY, default=False, annotation=AsJson),
)


def verb(ask: Callable[..., Ask]) -> Callable[..., None]:
    """The command that sends what `ask` makes of its own arguments and shows the verdict.

    It takes the arguments of `ask`, and those that every verb has; name and help are those of `ask`.
    """
    own = inspect.signature(ask)

    def run(**given: Any) -> None:
        connection, as_json = given.pop("connection"), given.pop("as_json")
        # Asked first: what is wrong with the arguments needs no server.
        asked = ask(**given)
        with session(connection, as_json=as_json) as s:
            s.command(*asked)

    parameters = [*own.parameters.values(), *_SHARED]
    run.__name__, run.__doc__ = ask.__name__, ask.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = own.replace(  # Typer reads a command from it
        parameters=[parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters],
        return_annotation=None,
    )
    return run
