"""Reading the system: `workers`, `queues`, `pools`, `stats`, `health`."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec
from rich.text import Text

from taskyard.cli.client import decode
from taskyard.cli.errors import Broken
from taskyard.cli.session import AsJson, AtOption, ConnectionFile, session
from taskyard.cli.system_tables import health_lines, lag_lines, pool_table, queue_table, stats_tables, worker_table
from taskyard.cli.views import Health, Pool, Queue, Stats, Worker

T = TypeVar("T")


def workers(at: AtOption = None, connection: ConnectionFile = None, as_json: AsJson = False) -> None:
    """List workers and what each of their slots does."""
    _list("/workers", Worker, worker_table, connection, at, as_json=as_json)


def queues(at: AtOption = None, connection: ConnectionFile = None, as_json: AsJson = False) -> None:
    """List queues: what waits and runs, limits, pauses and locks."""
    _list("/queues", Queue, queue_table, connection, at, as_json=as_json)


def pools(at: AtOption = None, connection: ConnectionFile = None, as_json: AsJson = False) -> None:
    """List pools: what waits and runs, workers and settings."""
    _list("/pools", Pool, pool_table, connection, at, as_json=as_json)


def stats(connection: ConnectionFile = None, as_json: AsJson = False) -> None:
    """Show how many tasks there are, and how long they wait and run."""
    with session(connection, as_json=as_json) as s:
        answer = s.api.get("/stats")
        s.show(answer, iter(stats_tables(decode(answer, Stats), s.screen.width)))
        if not as_json:
            s.screen.lines(lag_lines(s.api.readiness()))


def health(connection: ConnectionFile = None, as_json: AsJson = False) -> None:
    """Show which instance leads each service. Exit 1 if one has no lasting leader, so that commands are not decided."""
    with session(connection, as_json=as_json) as s:
        answer = s.api.health()
        found = decode(answer, Health)
        s.show(answer, iter(health_lines(found)))
        if not found.healthy:
            raise Broken("; ".join(f"{service}: {reason}" for service, reason in found.reasons.items()))


def _list(
    path: str,
    kind: type[T],
    table: Callable[[Iterable[T], int | None], list[Text]],
    connection: Path | None,
    at: str | None,
    *,
    as_json: bool,
) -> None:
    with session(connection, as_json=as_json) as s:
        pages = s.pages(path, at=at)
        if as_json:
            for page in pages:
                s.items_as_json(page)
            return
        first, *more = pages
        s.as_of(first.as_of)
        shown = [msgspec.json.decode(raw, type=kind) for page in (first, *more) for raw in page.items]
        s.screen.lines(table(shown, s.screen.width))
