"""All evidence of a run: the log and the commands as stored, the read model over HTTP, the journals of the workers."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
from nats.aio.client import Client as NatsClient

from taskyard.agent.slots import Remembered
from taskyard.chaos.errors import NothingToJudge
from taskyard.contracts.subjects import COMMANDS, log_stream, principal_of
from taskyard.eventlog.whole import read_whole
from taskyard.judge.evidence import Asked, Logged, Noted, Shown

PAGE = 500
HISTORIES_MAX = 20

_remembered = msgspec.json.Decoder(Remembered)


async def read_log(client: NatsClient, partition: str) -> list[Logged]:
    """The whole log as it is stored. Raises `EventLogError`."""
    stored = await read_whole(client, log_stream(partition))
    return [Logged.stored(message.sequence, message.at, message.subject, message.data) for message in stored]


async def read_commands(client: NatsClient) -> list[Asked]:
    """All stored commands. Raises `EventLogError`."""
    return [
        Asked(
            sequence=message.sequence,
            verb=message.subject.rpartition(".")[2],
            data=message.data,
            principal=principal_of(message.subject),
        )
        for message in await read_whole(client, COMMANDS)
    ]


async def read_shown(http: httpx.AsyncClient, api: str, head: int) -> list[Shown]:
    """The read model once it has the log up to `head`: every task, and the histories of the last ones.

    Raises:
        NothingToJudge: it does not answer.
    """
    tasks: list[dict[str, Any]] = []
    parameters: dict[str, Any] = {"limit": PAGE, "after": str(head), "sort": "submitted_at"}
    while True:
        page = await _get(http, f"{api}/tasks", parameters)
        tasks += page["items"]
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    last = sorted(task["id"] for task in tasks)[-HISTORIES_MAX:]
    types = {id: _types((await _get(http, f"{api}/tasks/{id}/history", {}))["items"]) for id in last}
    return [
        Shown(
            id=task["id"],
            status=task["status"],
            attempt=task["attempt"],
            worker=task["worker"],
            slot=task["slot"],
            types=types.get(task["id"]),
        )
        for task in tasks
    ]


def read_journal(worker: str, directory: Path) -> list[Noted]:
    """What a worker that does not run any more remembers of its slots."""
    uri = f"file:{directory / 'journal.sqlite'}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as database:
        rows: list[tuple[int, bytes]] = database.execute("SELECT slot, record FROM slots").fetchall()
    noted: list[Noted] = []
    for slot, record in rows:
        one = _remembered.decode(record)
        end = None if one.end is None else type(one.end).__name__
        noted.append(
            Noted(
                worker=worker,
                slot=slot,
                position=one.position,
                task=one.task,
                attempt=one.attempt,
                outcome=one.outcome,
                end=end,
            )
        )
    return noted


def _types(history: Iterable[dict[str, Any]]) -> list[str]:
    """A worker's events are in the histories of its tasks too, and the log does not name these tasks."""
    return [item["type"] for item in history if not item["type"].startswith("Worker")]


async def _get(http: httpx.AsyncClient, url: str, parameters: dict[str, Any]) -> dict[str, Any]:
    try:
        return (await http.get(url, params=parameters)).raise_for_status().json()
    except httpx.HTTPError as error:
        raise NothingToJudge(f"the read model did not answer: {error or type(error).__name__}") from error
