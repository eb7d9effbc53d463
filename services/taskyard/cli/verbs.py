"""Commanding one task: `cancel`, `confirm`, `discard`, `retry`, `force-stop`, `reprioritise`."""

from typing import Annotated

import typer

from taskyard.cli.session import AsJson, ConnectionFile, ReasonOption, TaskIdArgument, session, task_id
from taskyard.cli.submit import follow

AttemptOption = Annotated[int | None, typer.Option("--attempt", min=1, help="The attempt whose plan you saw.")]
CommentOption = Annotated[str | None, typer.Option("--comment", help="A comment; others see it.")]


def cancel(
    id: TaskIdArgument,
    reason: ReasonOption = "",
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a task; one that runs is stopped."""
    with session(connection, as_json=as_json) as s:
        s.command(f"/tasks/{task_id(id)}/cancel", {"reason": reason or None}, "cancel was taken")


def confirm(
    id: TaskIdArgument,
    attempt: AttemptOption = None,
    comment: CommentOption = None,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Let the plan of a task be applied."""
    with session(connection, as_json=as_json) as s:
        s.command(f"/tasks/{task_id(id)}/confirm", {"attempt": attempt, "comment": comment}, "confirmed")


def discard(
    id: TaskIdArgument,
    attempt: AttemptOption = None,
    comment: CommentOption = None,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Do not apply the plan of a task."""
    with session(connection, as_json=as_json) as s:
        s.command(f"/tasks/{task_id(id)}/discard", {"attempt": attempt, "comment": comment}, "discarded")


def retry(
    id: TaskIdArgument,
    reason: ReasonOption = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow the new task to its end.")] = False,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Run a task that ended badly again, as a new task."""
    with session(connection, as_json=as_json) as s:
        accepted = s.command(f"/tasks/{task_id(id)}/retry", {"reason": reason or None}, "retry was taken")
        if accepted.id is not None and not as_json:
            s.screen.text(accepted.id)
        if wait and accepted.id is not None:
            raise typer.Exit(follow(s, [accepted.id], after=accepted.position))


def force_stop(
    id: TaskIdArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is needed, and others see it.")],
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """End a task at once, whatever its process does (admins). Slot and workspace are free on your word."""
    with session(connection, as_json=as_json) as s:
        s.command(f"/tasks/{task_id(id)}/force-stop", {"reason": reason}, "stopped by force")


def reprioritise(
    id: TaskIdArgument,
    priority: Annotated[int, typer.Argument(min=1, max=10, help="1 is first, 10 last.")],
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Give a waiting task another priority."""
    with session(connection, as_json=as_json) as s:
        s.command(f"/tasks/{task_id(id)}/reprioritise", {"priority": priority}, f"priority is {priority}")
