"""Commanding one task: `cancel`, `confirm`, `discard`, `retry`, `force-stop`, `release`, `reprioritise`."""

from typing import Annotated

import typer

from taskyard.cli.commanding import Ask, verb
from taskyard.cli.session import AsJson, ConnectionFile, ReasonOption, TaskIdArgument, session, task_id
from taskyard.cli.submit import follow

AttemptOption = Annotated[int | None, typer.Option("--attempt", min=1, help="The attempt whose plan you saw.")]
CommentOption = Annotated[str | None, typer.Option("--comment", help="A comment; others see it.")]


@verb
def cancel(id: TaskIdArgument, reason: ReasonOption = "") -> Ask:
    """Cancel a task; one that runs is stopped."""
    return Ask(_path(id, "cancel"), {"reason": reason or None}, "cancel was taken")


@verb
def confirm(id: TaskIdArgument, attempt: AttemptOption = None, comment: CommentOption = None) -> Ask:
    """Let the plan of a task be applied."""
    return Ask(_path(id, "confirm"), {"attempt": attempt, "comment": comment}, "confirmed")


@verb
def discard(id: TaskIdArgument, attempt: AttemptOption = None, comment: CommentOption = None) -> Ask:
    """Do not apply the plan of a task."""
    return Ask(_path(id, "discard"), {"attempt": attempt, "comment": comment}, "discarded")


def retry(
    id: TaskIdArgument,
    reason: ReasonOption = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow the new task to its end.")] = False,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Run a task that ended badly again, as a new task."""
    with session(connection, as_json=as_json) as s:
        accepted = s.command(_path(id, "retry"), {"reason": reason or None}, "retry was taken")
        if accepted.id is not None and not as_json:
            s.screen.text(accepted.id)
        if wait and accepted.id is not None:
            raise typer.Exit(follow(s, [accepted.id], after=accepted.position))


@verb
def force_stop(
    id: TaskIdArgument, reason: Annotated[str, typer.Option("--reason", help="Why; it is needed, and others see it.")]
) -> Ask:
    """End a task at once, whatever its process does (admins). Slot and workspace are free on your word."""
    return Ask(_path(id, "force-stop"), {"reason": reason}, "stopped by force")


@verb
def release(
    id: TaskIdArgument, reason: Annotated[str, typer.Option("--reason", help="Why; it is needed, and others see it.")]
) -> Ask:
    """Give up a held apply whose host is gone for good (admins): it has failed; slot and workspace are free on your word."""
    return Ask(_path(id, "release"), {"reason": reason}, "released")


@verb
def reprioritise(
    id: TaskIdArgument, priority: Annotated[int, typer.Argument(min=1, max=10, help="1 is first, 10 last.")]
) -> Ask:
    """Give a waiting task another priority."""
    return Ask(_path(id, "reprioritise"), {"priority": priority}, f"priority is {priority}")


def _path(id: str, name: str) -> str:
    return f"/tasks/{task_id(id)}/{name}"
