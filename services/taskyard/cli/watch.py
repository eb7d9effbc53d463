"""`taskyard watch`: a live table of the latest tasks, or one task until it has ended."""

import time
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer
from msgspec import Raw
from rich.console import Group
from rich.live import Live

from taskyard.cli.client import decode
from taskyard.cli.errors import NOT_COMPLETED, Unreachable
from taskyard.cli.following import RECONNECT_SECONDS, Absence, Follower
from taskyard.cli.session import AsJson, ConnectionFile, Session, seconds_now, session, task_id
from taskyard.cli.submit import progress_line
from taskyard.cli.task_tables import task_card, task_table
from taskyard.cli.views import Page, Task

REFRESH_SECONDS = 0.5
"""Between two looks at the list, however much happens."""
HEAD_LINES = 2
ROWS_WITHOUT_TERMINAL = 50
ROWS_MAX = 500


def watch(
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One task, until it has ended.")] = None,
    *,
    status: Annotated[list[str] | None, typer.Option(help="Only of this status; may be repeated.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only of this kind; may be repeated.")] = None,
    queue: Annotated[list[str] | None, typer.Option(help="Only of this queue; may be repeated.")] = None,
    pool: Annotated[list[str] | None, typer.Option(help="Only of this pool; may be repeated.")] = None,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Watch the latest tasks live, or one task until it has ended (exit 0 only if it completed).

    Without a terminal, or with --json, a task is written each time it changes.
    """
    with session(connection, as_json=as_json) as s:
        if id is not None:
            raise typer.Exit(_watch_one(s, task_id(id)))
        filters: dict[str, Any] = {"status": status, "kind": kind, "queue": queue, "pool": pool}
        if s.screen.is_terminal and not as_json:
            _watch_live(s, filters)
        else:
            _watch_lines(s, filters)


def _watch_one(s: Session, id: str) -> int:
    # A task that is not there will never come: say so at once.
    answer = s.api.get(f"/tasks/{id}")
    task = decode(answer, Task)
    if s.screen.is_terminal and not s.screen.as_json:
        with Live(console=s.screen.console, auto_refresh=False) as live:
            for seen in Follower(s.api, [id]).run():
                task = seen.task
                live.update(Group(*task_card(task, s.screen.width, seconds_now())), refresh=True)
    else:
        words = ""
        for seen in Follower(s.api, [id]).run():
            task = seen.task
            if s.screen.as_json:
                s.screen.json(seen.answer)
            elif words != progress_line(task):
                words = progress_line(task)
                s.screen.text(words)
    return 0 if task.status == "completed" else NOT_COMPLETED


def _watch_live(s: Session, filters: dict[str, Any]) -> None:
    with Live(console=s.screen.console, auto_refresh=False, screen=True) as live:
        for found in _lists(s, filters, max(min(s.screen.console.size.height - HEAD_LINES, ROWS_MAX), 1)):
            shown = [msgspec.json.decode(raw, type=Task) for raw in found]
            live.update(Group(*task_table(shown, s.screen.width, seconds_now())), refresh=True)


def _watch_lines(s: Session, filters: dict[str, Any]) -> None:
    last: dict[str, bytes] = {}
    for found in _lists(s, filters, ROWS_WITHOUT_TERMINAL):
        now = {msgspec.json.decode(raw, type=Task).id: bytes(raw) for raw in found}
        for id, raw in reversed(now.items()):
            if last.get(id) == raw:
                continue
            if s.screen.as_json:
                s.screen.json(raw)
            else:
                s.screen.text(progress_line(msgspec.json.decode(raw, type=Task)))
        last = now


def _lists(s: Session, filters: dict[str, Any], rows: int) -> Iterator[list[Raw]]:
    """The list, now and each time that something has happened; restarts of the server pass unnoticed."""
    absence = Absence()
    while True:
        try:
            with s.api.events() as arrivals:
                yield s.api.read("/tasks", Page[Raw], **filters, limit=rows).items
                absence.over()
                for _ in arrivals:
                    yield s.api.read("/tasks", Page[Raw], **filters, limit=rows).items
                    time.sleep(REFRESH_SECONDS)
            time.sleep(RECONNECT_SECONDS)
        except Unreachable as error:
            absence.bear(error)
