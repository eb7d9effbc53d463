"""The program `taskyard`: all commands in one tree, and errors as one line with an exit status."""

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer

from taskyard.cli import programs, rebuild, replay, submit, system, tasks, verbs, watch
from taskyard.cli.errors import EXIT_STATUSES, CliError
from taskyard.cli.log import log_app
from taskyard.contracts.verbs import Target

PASS_EVERYTHING = {"allow_extra_args": True, "ignore_unknown_options": True}
GROUPS: dict[str, tuple[Callable[..., Any], ...]] = {
    "Tasks": (
        submit.submit,
        tasks.tasks,
        tasks.show,
        tasks.history,
        tasks.why,
        tasks.logs,
        watch.watch,
    ),
    "System": (system.workers, system.queues, system.pools, system.stats, system.health),
}

app = typer.Typer(
    name="taskyard",
    help="Submit, follow and command infrastructure tasks.",
    epilog=EXIT_STATUSES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _panel, _commands in GROUPS.items():
    for _command in _commands:
        app.command(_command.__name__.replace("_", "-"), rich_help_panel=_panel, epilog=EXIT_STATUSES)(_command)
for _word, _command in verbs.commands_of(Target.TASK).items():
    app.command(_word, rich_help_panel="Tasks", epilog=EXIT_STATUSES)(_command)
for _target in (Target.QUEUE, Target.POOL, Target.WORKER):
    app.add_typer(verbs.group_of(_target), name=_target, rich_help_panel="System")
app.add_typer(log_app, name="log", rich_help_panel="Log")
app.command("rebuild", rich_help_panel="Log", epilog=EXIT_STATUSES)(rebuild.rebuild)
app.command("replay", rich_help_panel="Log", epilog=EXIT_STATUSES)(replay.replay)
app.command("dev", rich_help_panel="Programs")(programs.dev)
app.command("bench", rich_help_panel="Programs", context_settings=PASS_EVERYTHING, add_help_option=False)(
    programs.bench
)


def _show_version(value: bool) -> None:
    if value:
        print(version("taskyard"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Submit, follow and command infrastructure tasks."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit status."""
    try:
        app(args=None if arguments is None else list(arguments))
    except CliError as error:
        print(f"taskyard: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
