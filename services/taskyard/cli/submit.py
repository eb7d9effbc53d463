"""`taskyard submit`: one task from options, or many from a file, and waiting for their end."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from msgspec import Raw

from taskyard.cli import bodies, texts
from taskyard.cli.client import decode, faults_of
from taskyard.cli.errors import NOT_COMPLETED, REFUSED, Refused, WrongUsage
from taskyard.cli.following import Follower
from taskyard.cli.session import AsJson, ConnectionFile, Session, parse_pair, session
from taskyard.cli.views import Accepted, BatchEntry, Task, View
from taskyard.contracts.kinds import KINDS

_KINDS_TOLD = "; ".join(f"{kind.name}: {kind.summary}" for kind in KINDS.values())


class _BatchAnswer(View):
    tasks: list[Raw]


def submit(
    kind: Annotated[str | None, typer.Argument(help=_KINDS_TOLD)] = None,
    argv: Annotated[list[str] | None, typer.Argument(metavar="[-- ARG…]", help="What a command is to run.")] = None,
    *,
    queue: Annotated[str | None, typer.Option(help="The queue; for plan and plan_and_apply the workspace.")] = None,
    pool: Annotated[str | None, typer.Option(help="The pool.")] = None,
    priority: Annotated[int | None, typer.Option(min=1, max=10, help="1 is first, 10 last.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="How long each attempt may run.")] = None,
    max_attempts: Annotated[int | None, typer.Option(min=1, help="How many times to try.")] = None,
    not_before: Annotated[
        str | None, typer.Option(metavar="TIME", help="Do not start before this time (RFC 3339).")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A label; may be repeated.")] = None,
    id: Annotated[
        str | None, typer.Option(metavar="UUID7", help="Your own task id: sent again, it still runs once.")
    ] = None,
    input: Annotated[str | None, typer.Option(metavar="JSON", help="The whole input.")] = None,  # noqa: A002
    directory: Annotated[str | None, typer.Option(help="Terraform: the configuration's folder on the worker.")] = None,
    var: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Terraform: a variable; may be repeated.")
    ] = None,
    auto_confirm: Annotated[bool, typer.Option("--auto-confirm", help="Terraform: apply without asking.")] = False,
    script: Annotated[str | None, typer.Option(help="Command: a script for /bin/sh, instead of arguments.")] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Command: an environment variable; may be repeated.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Submit many tasks from JSON: an array, or one per line; - is stdin."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow to the end; exit 0 only if completed.")] = False,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Submit a task, or many with --file. Prints the ids of what was accepted.

    Other users of this machine can read arguments: pass secrets with --file, or from a pipe with --file -.

    taskyard submit command -- uname -a

    taskyard submit plan_and_apply --queue prod --directory /srv/tf/prod --var size=3 --wait
    """
    common: dict[str, Any] = {
        "queue": queue,
        "pool": pool,
        "priority": priority,
        "timeout_seconds": timeout,
        "max_attempts": max_attempts,
        "not_before": not_before,
        "labels": dict(parse_pair(text, "=", "--label") for text in label) if label else None,
    }
    common = {name: value for name, value in common.items() if value is not None}
    options = bodies.InputOptions(
        json=input,
        directory=directory,
        variables=tuple(var or ()),
        auto_confirm=auto_confirm,
        script=script,
        argv=tuple(argv or ()),
        environment=tuple(parse_pair(text, "=", "--env") for text in env or ()),
    )
    if file is not None:
        if kind is not None or id is not None or options != bodies.InputOptions():
            raise WrongUsage("--file holds whole tasks: leave out the kind, --id and the input options")
        tasks = [{**common, **task} for task in _read(file)]
        with session(connection, as_json=as_json) as s:
            raise typer.Exit(_submit_many(s, tasks, wait=wait))
    if kind is None:
        raise WrongUsage("name the kind of task, or a file of tasks with --file")
    given = {} if id is None else {"id": id}
    task = {**given, "kind": kind, **common, "input": bodies.make_input(kind, options)}
    with session(connection, as_json=as_json) as s:
        raise typer.Exit(_submit_one(s, task, wait=wait))


def _submit_one(s: Session, task: dict[str, Any], *, wait: bool) -> int:
    answer = s.api.command("/tasks", task)
    accepted = decode(answer, Accepted)
    if s.screen.as_json and not wait:
        s.screen.json(answer)
    elif not s.screen.as_json:
        s.screen.text(str(accepted.id))
    if accepted.position is None:
        s.screen.note("stored; the scheduler has not answered yet")
    return follow(s, [str(accepted.id)], after=accepted.position) if wait else 0


def _submit_many(s: Session, tasks: list[dict[str, Any]], *, wait: bool) -> int:
    accepted: list[str] = []
    refused = 0
    s.api.learn_time()
    for request in bodies.in_requests({"id": s.api.make_id(), **task} for task in tasks):
        for raw in _verdicts(s, request):
            entry = msgspec.json.decode(raw, type=BatchEntry)
            refused += entry.error is not None
            if entry.error is None and entry.id is not None:
                accepted.append(entry.id)
            _show_entry(s, raw, entry, wait=wait)
    if refused:
        s.screen.note(f"{refused} of {len(tasks)} tasks were refused")
    status = follow(s, accepted) if wait and accepted else 0
    return REFUSED if refused else status


def _verdicts(s: Session, tasks: list[Mapping[str, object]]) -> Sequence[Raw]:
    """What became of each task, also where all were refused."""
    try:
        return decode(s.api.send("/tasks", {"tasks": tasks}), _BatchAnswer).tasks
    except Refused as refusal:
        if not refusal.tasks:
            raise
        return refusal.tasks


def _show_entry(s: Session, raw: Raw, entry: BatchEntry, *, wait: bool) -> None:
    if entry.error is not None:
        problem = entry.error
        refused = Refused(problem.status, problem.error, problem.detail or problem.title, faults_of(problem))
        s.screen.note(f"task {entry.id}: {refused}" if entry.id else str(refused))
    if s.screen.as_json:
        if not wait or entry.error is not None:
            s.screen.json(raw)
    elif entry.error is None:
        s.screen.text(str(entry.id))


def follow(s: Session, ids: list[str], *, after: str | None = None) -> int:
    """Follow tasks to their end and show them: each change to people, each end to programs; the exit status."""
    completed = True
    last: dict[str, str] = {}
    for seen in Follower(s.api, ids, after=after).run():
        task = seen.task
        if task.has_ended:
            completed = completed and task.status == "completed"
            if s.screen.as_json:
                s.screen.json(seen.answer)
        words = progress_line(task)
        if not s.screen.as_json and last.get(task.id) != words:
            s.screen.text(words)
        last[task.id] = words
    return 0 if completed else NOT_COMPLETED


def progress_line(task: Task) -> str:
    """One line about where a task is."""
    where = f" on {task.worker}" if task.worker is not None and not task.has_ended else ""
    told = ""
    if task.error is not None and task.has_ended:
        told = f": {task.error.code}: {task.error.message}"
    elif task.pending_reason is not None:
        told = f": {task.pending_reason.message}"
    elif task.progress and not task.has_ended:
        told = f": {task.progress} %"
    return texts.one_line(f"{task.id} {task.status}{where}{told}")


def _read(file: Path) -> list[bodies.Body]:
    if str(file) == "-":
        return bodies.read_tasks(sys.stdin.buffer.read(), "standard input")
    try:
        return bodies.read_tasks(file.read_bytes(), str(file))
    except OSError as error:
        raise WrongUsage(f"{file} cannot be read: {error.strerror}") from error
