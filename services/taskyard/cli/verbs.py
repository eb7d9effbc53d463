"""The verbs of the table as commands: about tasks, and in groups about queues, pools and workers. `retry` can also wait."""

from collections.abc import Callable
from typing import Annotated

import typer

from taskyard.cli.commanding import ask_for, command_of
from taskyard.cli.errors import EXIT_STATUSES
from taskyard.cli.session import AsJson, ConnectionFile, ReasonOption, TaskIdArgument, session
from taskyard.cli.submit import follow
from taskyard.contracts.verbs import VERBS, Target


def retry(
    id: TaskIdArgument,
    reason: ReasonOption = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow the new task to its end.")] = False,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Run a task that ended badly again, as a new task."""
    asked = ask_for(VERBS["retry"], Target.TASK, {"id": id, "reason": reason})
    with session(connection, as_json=as_json) as s:
        accepted = s.command(*asked)
        if accepted.id is not None and not as_json:
            s.screen.text(accepted.id)
        if wait and accepted.id is not None:
            raise typer.Exit(follow(s, [accepted.id], after=accepted.position))


_BY_HAND: dict[str, Callable[..., None]] = {"retry": retry}


def commands_of(target: Target) -> dict[str, Callable[..., None]]:
    """The commands about a target, by their words."""
    return {
        verb.word: _BY_HAND.get(verb.name) or command_of(verb, target)
        for verb in VERBS.values()
        if target in verb.targets
    }


def group_of(target: Target) -> typer.Typer:
    """The commands about a target as a group of the command line."""
    commands = commands_of(target)
    words = ", ".join(word.capitalize() if not at else word for at, word in enumerate(commands))
    group = typer.Typer(no_args_is_help=True, help=f"{words} a {target} (admins).")
    for word, command in commands.items():
        group.command(word, epilog=EXIT_STATUSES)(command)
    return group
