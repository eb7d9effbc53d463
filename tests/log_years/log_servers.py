"""Real nats-servers, a log in one of them, and what a log means."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import nats
from folding import CODEC, machines, read_history, rows
from nats.aio.client import Client

from taskyard.contracts.subjects import StreamSpec, log_stream, log_subject, streams
from taskyard.embedded.nats_server import SERVICE_USER, NatsServer
from taskyard.eventlog.commit import hash_commit
from taskyard.eventlog.jetstream import JetStreamLog
from taskyard.eventlog.jetstream_api import api_request, publish
from taskyard.eventlog.slices import SliceReader
from taskyard.eventlog.streams import stream_config
from taskyard.settings import Settings

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
        address = self.nats.url.removeprefix("nats://")
        return f"nats://{SERVICE_USER}:{self.nats.password(SERVICE_USER)}@{address}"

    def settings_file(self, folder: Path) -> Path:
        """A file of services' settings by which the command line reaches it."""
        settings = Settings(
            nats_urls=[self.nats.url],
            control_user=SERVICE_USER,
            control_password=self.nats.password(SERVICE_USER),
            fleet_user="",
            fleet_password="",
            postgres_dsn="",
        )
        file = folder / "services.json"
        file.write_bytes(msgspec.json.encode(settings))
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


async def folded(nc: Client) -> dict[str, Any]:
    """What a log means: the state of every machine, the rows of the read model, and the times of all commits."""
    log = open_log(nc)
    commits = [stored async for stored in log.read(1, await log.head())]
    return {"machines": machines(commits), "rows": rows(commits), "times": [stored.at for stored in commits]}


def no_progress(_sequence: int, _last: int) -> None:
    """Nobody looks on."""


def next_commit(writer: str, history: Path = HISTORY) -> bytes:
    """A commit of a writer behind its last one in a history."""
    last = [data for data in raw_commits(history) if msgspec.json.decode(data)["writer"] == writer][-1]
    fields = {"previous": hash_commit(last), "events": [], "cursors": {}}
    return msgspec.json.encode({**msgspec.json.decode(last), **fields})
