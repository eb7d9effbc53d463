"""Reading tasks: `tasks`, `show`, `history`, `why`, `logs`."""

import codecs
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer
from msgspec import Raw
from rich.text import Text

from taskyard.cli import texts
from taskyard.cli.client import decode
from taskyard.cli.errors import Unreachable
from taskyard.cli.following import Absence
from taskyard.cli.session import (
    AsJson,
    AtOption,
    ConnectionFile,
    Session,
    TaskIdArgument,
    parse_pair,
    seconds_now,
    session,
    task_id,
)
from taskyard.cli.task_tables import as_of_line, history_table, task_card, task_table
from taskyard.cli.terminal import TerminalText
from taskyard.cli.views import AsOf, HistoryItem, Page, Task, Why
from taskyard.cli.why import headlines, story
from taskyard.contracts.output_marks import OutputPlace

PAGE_MAX = 500


def tasks(
    *,
    status: Annotated[list[str] | None, typer.Option(help="Only of this status; may be repeated.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only of this kind; may be repeated.")] = None,
    queue: Annotated[list[str] | None, typer.Option(help="Only of this queue; may be repeated.")] = None,
    pool: Annotated[list[str] | None, typer.Option(help="Only of this pool; may be repeated.")] = None,
    by: Annotated[list[str] | None, typer.Option(help="Only of this submitter; may be repeated.")] = None,
    worker: Annotated[list[str] | None, typer.Option(help="Only of this worker; may be repeated.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only with this label.")] = None,
    sort: Annotated[
        str | None, typer.Option(help="submitted_at, priority or finished_at; a leading - reverses the order.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    all: Annotated[bool, typer.Option("--all", help="Show all of them, however many there are.")] = False,  # noqa: A002
    at: AtOption = None,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """List tasks, the latest first, as they are or as they were."""
    labels = [":".join(parse_pair(text, "=", "--label")) for text in label or ()]
    filters: dict[str, Any] = {
        "status": status,
        "kind": kind,
        "queue": queue,
        "pool": pool,
        "submitted_by": by,
        "worker": worker,
        "label": labels,
        "sort": sort,
        "at": at,
    }
    with session(connection, as_json=as_json) as s:
        pages = _pages(s, filters, None if all else limit)
        if as_json:
            for page in pages:
                s.items_as_json(page)
            return
        first, *more = pages
        shown = [msgspec.json.decode(raw, type=Task) for page in (first, *more) for raw in page.items]
        s.as_of(first.as_of)
        s.screen.lines(task_table(shown, s.screen.width, _then(first.as_of)))


def _pages(s: Session, filters: dict[str, Any], limit: int | None) -> Iterator[Page[Raw]]:
    """Tasks as the server gives them, page by page, up to `limit`; one page at least."""
    left = limit
    cursor: str | None = None
    while left is None or left > 0:
        size = PAGE_MAX if left is None else min(left, PAGE_MAX)
        page = s.api.read("/tasks", Page[Raw], **filters, limit=size, cursor=cursor)
        yield page
        cursor = page.next_cursor
        if cursor is None or not page.items:
            return
        left = None if left is None else left - len(page.items)


def _then(as_of: AsOf | None) -> float:
    """The time that ages are counted to: the moment that is shown, or now."""
    then = texts.seconds_of(as_of.at) if as_of is not None else None
    return seconds_now() if then is None else then


def show(id: TaskIdArgument, at: AtOption = None, connection: ConnectionFile = None, as_json: AsJson = False) -> None:
    """Show everything about a task, as it is or as it was."""
    with session(connection, as_json=as_json) as s:
        answer = s.api.get(f"/tasks/{task_id(id)}", at=at)
        s.show(answer, _card(decode(answer, Task), s.screen.width))


def _card(task: Task, width: int | None) -> Iterator[Text]:
    if task.as_of is not None:
        yield as_of_line(task.as_of)
    yield from task_card(task, width, _then(task.as_of))


def history(id: TaskIdArgument, connection: ConnectionFile = None, as_json: AsJson = False) -> None:
    """Show what happened to a task, event by event."""
    with session(connection, as_json=as_json) as s:
        pages = s.pages(f"/tasks/{task_id(id)}/history")
        if as_json:
            for page in pages:
                s.items_as_json(page)
        else:
            s.screen.lines(history_table([_item(raw) for page in pages for raw in page.items], s.screen.width))


def why(id: TaskIdArgument, connection: ConnectionFile = None, as_json: AsJson = False) -> None:
    """Say in plain words why a task waits or how it ended, and tell its story decision by decision."""
    with session(connection, as_json=as_json) as s:
        answer = s.api.get(f"/tasks/{task_id(id)}/why")
        s.show(answer, _explanation(decode(answer, Why), s.screen.width))


def _explanation(found: Why, width: int | None) -> Iterator[Text]:
    yield from headlines(found, seconds_now(), width)
    yield Text()
    yield from story(found.decisions, width)
    if not found.complete:
        left_out = "some waits are not explained, or the last events not told: there is too much to look at"
        yield from (Text(line, style="bright_black") for line in texts.folded(left_out, width))


def logs(
    id: TaskIdArgument,
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the task has ended.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Only of this attempt. Default: the last.")] = None,
    stream: Annotated[str, typer.Option(help="stdout, stderr or both.")] = "both",
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the output of a task. With --json an object {"line": …} for each line.

    On a terminal colours are kept and other control characters shown as symbols; files and pipes get the raw bytes.
    """
    with session(connection, as_json=as_json) as s:
        pieces = _output(s, task_id(id), attempt, stream, follow=follow)
        if as_json:
            for line in _lines(pieces):
                s.screen.json({"line": line})
        elif s.screen.is_terminal:
            _show(pieces)
        else:
            _write(pieces)


def _output(s: Session, id: str, attempt: int | None, stream: str, *, follow: bool) -> Iterator[bytes]:
    """The output; a stream that was silent for long, or broke, goes on where it was."""
    place = OutputPlace()
    shown_attempt = 0
    absence = Absence()
    while True:
        try:
            # Bytes are counted from the attempt that is shown first.
            latest = s.api.read(f"/tasks/{id}", Task).attempt if follow and attempt is None else 0
            place = place if latest == shown_attempt else OutputPlace()
            shown_attempt = latest
            wanted: dict[str, Any] = {"attempt": attempt, "stream": stream, "from": place.place, "follow": int(follow)}
            with s.api.stream(f"/tasks/{id}/output", **wanted) as pieces:
                absence.over()
                for piece in pieces:
                    place.take(piece)
                    yield piece
            return
        except Unreachable as error:
            if not follow:
                raise
            absence.bear(error)


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + decoder.decode(piece)).split("\n")
        yield from lines
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest


def _write(pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _show(pieces: Iterator[bytes]) -> None:
    text = TerminalText()
    try:
        for piece in pieces:
            sys.stdout.write(text.add(piece))
            sys.stdout.flush()
    finally:
        sys.stdout.write(text.end())
        sys.stdout.flush()


def _item(raw: Raw) -> HistoryItem:
    return msgspec.json.decode(raw, type=HistoryItem)
