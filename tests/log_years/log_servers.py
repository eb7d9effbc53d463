"""Real nats-servers, a log in one of them, and what a log means."""

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import nats
from folding import CODEC, machines, read_history, rows
from nats.aio.client import Client
from real_servers import service_settings

from taskyard.contracts.subjects import StreamSpec, log_stream, log_subject, streams
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.nats_users import CONTROL_KEEPER
from taskyard.eventlog.archive import Archive
from taskyard.eventlog.archive_stores import FolderStore
from taskyard.eventlog.archiving import Archived, Restored, archive_log, restore_log
from taskyard.eventlog.commit import hash_commit
from taskyard.eventlog.copying import LogCopy
from taskyard.eventlog.jetstream import JetStreamLog
from taskyard.eventlog.jetstream_api import api_request, publish
from taskyard.eventlog.slices import SliceReader
from taskyard.eventlog.streams import stream_config

HISTORY = Path(__file__).parent.parent / "golden_histories" / "golden" / "0.1" / "approvals.taskyard.jsonl"
STREAM = log_stream("0")
SPEC: StreamSpec = next(spec for spec in streams("0") if spec.name == STREAM)


class Server:
    """A nats-server that may hold a log."""

    def __init__(self, folder: Path) -> None:
        self.nats = NatsServer(folder, agents=[])

    @property
    def url(self) -> str:
        """Its address with user and password."""
        return self.address.replace("@", f":{self.password}@")

    @property
    def address(self) -> str:
        """Its address with the user."""
        return self.nats.url.replace("nats://", f"nats://{CONTROL_KEEPER}@")

    @property
    def password(self) -> str:
        """The password of that user."""
        return self.nats.password(CONTROL_KEEPER)

    def settings_file(self, folder: Path) -> Path:
        """A file of services' settings by which the command line reaches it."""
        file = folder / "services.json"
        file.write_bytes(msgspec.json.encode(service_settings(self.nats, postgres_dsn="")))
        return file

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Client]:
        """A connection in the account of the log."""
        nc = await nats.connect(self.url, allow_reconnect=True, max_reconnect_attempts=-1)
        try:
            yield nc
        finally:
            await nc.close()


def open_log(nc: Client, *, archive: str | None = None) -> JetStreamLog[Any]:
    return JetStreamLog(nc, STREAM, log_subject("0", "").rstrip("."), CODEC, archive=archive)


async def make_log(nc: Client, history: Path = HISTORY) -> None:
    """A log in which services appended what is in a golden history."""
    await api_request(nc, f"STREAM.CREATE.{STREAM}", stream_config(SPEC, 1))
    await append(nc, history)


async def append(nc: Client, history: Path, *, first: int = 1) -> None:
    """Append the commits of a history from `first` on, as services do: without a time of their own."""
    for stored, data in zip(read_history(history), raw_commits(history), strict=True):
        if stored.sequence >= first:
            await publish(nc, log_subject("0", stored.commit.writer), data)


def raw_commits(history: Path = HISTORY) -> Sequence[bytes]:
    """The stored bytes of each commit of a history."""
    with history.open("rb") as file:
        return [bytes(line.data) for line in SliceReader(file).lines()]


async def archived(server: Server, folder: Path) -> Archived:
    """Archive the log of a server in a folder."""
    async with server.connected() as nc:
        return await archive_log(nc, STREAM, await Archive.open(FolderStore(folder), "0"), no_progress)


async def restored(server: Server, folder: Path) -> Restored:
    """Restore the log of that archive in a server."""
    async with server.connected() as nc:
        return await restore_log(await Archive.open(FolderStore(folder)), LogCopy(nc, SPEC), no_progress)


async def folded(nc: Client) -> dict[str, Any]:
    """What a log means: the state of every machine, the rows of the read model, and the times of all commits."""
    log = open_log(nc)
    commits = [stored async for stored in log.read(1, await log.head())]
    return {"machines": machines(commits), "rows": rows(commits), "times": [stored.at for stored in commits]}


COMMITS = len(raw_commits())
"""How many commits HISTORY has."""


def start_program(*arguments: str) -> subprocess.Popen[bytes]:
    """Start this Python in a process of its own."""
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)


def no_progress(_sequence: int, _last: int) -> None:
    """Nobody looks on."""


def next_commit(writer: str, history: Path = HISTORY) -> bytes:
    """A commit of a writer behind its last one in a history."""
    last = [data for data in raw_commits(history) if msgspec.json.decode(data)["writer"] == writer][-1]
    fields = {"previous": hash_commit(last), "events": [], "cursors": {}}
    return msgspec.json.encode({**msgspec.json.decode(last), **fields})
