"""What all commands that speak to the server share: their options, the server, and the screen."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from msgspec import Raw
from rich.text import Text

from taskyard.cli.client import Api, decode
from taskyard.cli.connection import FILE_VARIABLE, TOKEN_VARIABLE, URL_VARIABLE, find_connection
from taskyard.cli.errors import WrongUsage
from taskyard.cli.screen import Screen
from taskyard.cli.task_tables import as_of_line
from taskyard.cli.views import Accepted, AsOf, Page
from taskyard.contracts.values import is_uuid7

ArchiveHead = Annotated[
    Path | None,
    typer.Option(
        "--head", metavar="FILE", help="The head of the archive, kept apart: tells whether it was changed or cut off."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON and nothing else to standard output.")]
ConnectionFile = Annotated[
    Path | None,
    typer.Option(
        "--connection",
        metavar="FILE",
        help=f"Connection file. Default: {FILE_VARIABLE}, or {URL_VARIABLE} and {TOKEN_VARIABLE}, "
        "or .taskyard/connection.json.",
    ),
]
ServicesSettings = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings of the services. Default: config/services.json beside the connection file.",
    ),
]
TaskIdArgument = Annotated[str, typer.Argument(metavar="ID", help="The task's id.")]
PoolOption = Annotated[str, typer.Option("--pool", help="The pool that the queue is in.")]
AtOption = Annotated[
    str | None,
    typer.Option("--at", metavar="MOMENT", help="Show it as it was then: an RFC 3339 time with a zone, or a position."),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="The reason; others can see it.")]


@dataclass(frozen=True)
class Session:
    """One run of a command."""

    api: Api
    screen: Screen

    def show(self, answer: bytes, lines: Iterator[Text]) -> None:
        """Show one answer: itself as JSON, or the lines made of it."""
        if self.screen.as_json:
            self.screen.json(answer)
        else:
            self.screen.lines(lines)

    def pages(self, path: str, **parameters: str | None) -> Iterator[Page[Raw]]:
        """All of a list, page by page; one page at least."""
        cursor: str | None = None
        while True:
            page = self.api.read(path, Page[Raw], **parameters, cursor=cursor)
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return

    def items_as_json(self, page: Page[Raw]) -> None:
        """Show what a page has as JSON, a line each, with the moment of the past that it shows, if it does."""
        for raw in page.items:
            if page.as_of is None:
                self.screen.json(raw)
            else:
                item: dict[str, object] = msgspec.json.decode(raw)
                self.screen.json({**item, "as_of": page.as_of})

    def as_of(self, moment: AsOf | None) -> None:
        """Show people which moment of the past a list shows, if it does."""
        if moment is not None:
            self.screen.lines([as_of_line(moment)])

    def command(self, path: str, body: Mapping[str, object], done: str) -> Accepted:
        """Send a command and show its verdict; `done` says in words what was asked for."""
        given = {name: value for name, value in body.items() if value is not None}
        answer = self.api.command(path, given)
        accepted = decode(answer, Accepted)
        if self.screen.as_json:
            self.screen.json(answer)
        elif accepted.position is None:
            self.screen.text(f"{done}: stored, the verdict has not come yet")
        else:
            self.screen.text(f"{done} (position {accepted.position})")
        return accepted


@contextmanager
def session(connection: Path | None, *, as_json: bool) -> Iterator[Session]:
    """Speak to the server that the options and the environment name."""
    with Api(find_connection(connection)) as api:
        yield Session(api, Screen(as_json=as_json))


def task_id(text: str) -> str:
    """The id of a task, as it stands in addresses. Raises `WrongUsage` for what can be none."""
    if not is_uuid7(text.lower()):
        raise WrongUsage(f"{text!r} is not a task id; `taskyard tasks` lists them")
    return text.lower()


def seconds_now() -> float:
    """The time that ages are counted to, in seconds since the epoch."""
    return time.time()


def parse_pair(text: str, sign: str, option: str) -> tuple[str, str]:
    """The two sides of `key=value`. Raises `WrongUsage`."""
    key, found, value = text.partition(sign)
    if not found or not key:
        raise WrongUsage(f"{option} {text!r}: must be KEY{sign}VALUE")
    return key, value
