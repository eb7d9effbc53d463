"""What is seen from outside while an installation runs: every commit of the log, who has each lease, the rows' position."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
import nats
from installation import LEADING, Installation, until
from log_checks import Run, check, read_log
from nats.aio.client import Client

from taskyard.contracts.events import AnyEvent, decode_event
from taskyard.contracts.subjects import CONTROL, LEASES_BUCKET, log_stream, streams
from taskyard.contracts.values import SECOND
from taskyard.embedded.nats_users import CONTROL_KEEPER
from taskyard.eventlog.commit import CommitCodec
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.jetstream import JetStreamLog
from taskyard.eventlog.jetstream_api import stream_info
from taskyard.eventlog.leases import read_holder
from taskyard.eventlog.streams import ensure_streams

SECONDS_MAX = 20.0
T = TypeVar("T")


@dataclass(frozen=True)
class Seen:
    """One commit. `at` is its log time in seconds since the epoch: that of the server, on this machine's clock."""

    sequence: int
    at: float
    writer: str
    instance: str
    epoch: int
    events: int


class Witness:
    """Watches in a thread of its own, from `open` to `close`."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self.commits: list[Seen] = []
        self.positions: list[tuple[float, int]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._client: Client | None = None
        self._watching: list[asyncio.Task[None]] = []

    def open(self) -> None:
        self._thread.start()
        self.call(self._open())

    def close(self) -> None:
        self.call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS_MAX)
        self._loop.close()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something in the thread of the witness, and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(SECONDS_MAX)

    def holder(self, service: str) -> str | None:
        """The name of the instance that has the lease of a service; None for nobody, or nobody answers."""
        assert self._client is not None
        try:
            return self.call(read_holder(self._client, LEASES_BUCKET, service))
        except EventLogError:
            return None

    def leaders(self) -> dict[str, str]:
        """The name of the instance that leads, for each service of which one does."""
        holders = {service: self.holder(service) for service in LEADING}
        return {service: holder for service, holder in holders.items() if holder}

    def takeover(self, service: str, after: float) -> Seen | None:
        """The first commit of a new epoch that is later than a time."""
        epochs: dict[str, int] = {}
        for seen in list(self.commits):
            is_new = seen.epoch > epochs.get(seen.writer, 0)
            epochs[seen.writer] = seen.epoch
            if is_new and seen.writer == service and seen.at > after:
                return seen
        return None

    def rows_after(self, moment: float) -> float | None:
        """When rows were written first after a time."""
        return next((at for at, _ in list(self.positions) if at > moment), None)

    def make_anew(self, stream: str) -> int:
        """Delete a stream and make it anew, as an operator may; the sequence of the last message that it had."""
        return self.call(self._make_anew(stream))

    async def _make_anew(self, stream: str) -> int:
        assert self._client is not None
        last = (await stream_info(self._client, stream)).state.last_seq
        await self._client.jetstream().delete_stream(stream)
        specs = [spec for spec in streams() if spec.name == stream]
        await ensure_streams({CONTROL: self._client}, specs)
        return last

    async def _open(self) -> None:
        installation = self._installation

        async def ignore(_: Exception) -> None:
            """Servers are killed here."""

        self._client = await nats.connect(
            installation.nats_urls,
            user=CONTROL_KEEPER,
            password=installation.nats.password(CONTROL_KEEPER),
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,
            error_cb=ignore,
        )
        codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
        log = JetStreamLog(self._client, log_stream("0"), "taskyard.log.0", codec)
        self._watching = [asyncio.create_task(self._watch_log(log)), asyncio.create_task(self._watch_rows())]

    async def _close(self) -> None:
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        assert self._client is not None
        await self._client.close()

    async def _watch_log(self, log: JetStreamLog[Any]) -> None:
        async with log.follow(0) as batches:
            async for batch in batches:
                for stored in batch:
                    commit = stored.commit
                    at = stored.at / SECOND
                    self.commits.append(
                        Seen(stored.sequence, at, commit.writer, commit.instance, commit.epoch, len(commit.events))
                    )

    async def _watch_rows(self) -> None:
        connection = await asyncpg.connect(self._installation.postgres.dsn)
        try:
            await connection.add_listener(
                "taskyard_position", lambda *heard: self.positions.append((time.time(), int(str(heard[3]))))
            )
            await asyncio.Event().wait()
        finally:
            await connection.close()


@dataclass(frozen=True)
class Watched:
    """An installation, who watches it, and the ids of all commands that it has acknowledged."""

    installation: Installation
    witness: Witness
    ids: list[str]

    def until_ended(self) -> None:
        """Wait until everything acknowledged was decided, and every task has ended."""
        http = self.installation.http
        until(lambda: not self._undecided(), lambda: f"these were decided: {self._undecided()}", 30)
        until(lambda: not _live(http.get("/stats").json()["by_status"]), "every task has ended", 60)

    def _undecided(self) -> list[str]:
        return sorted(set(self.ids) - read_log(self.installation.folder).lives.keys())

    def check(self) -> Run:
        """Wait until everything acknowledged has ended, and check the whole log and the read model."""
        self.until_ended()
        return check(self.installation.folder, self.installation.http, self.ids)


def _live(counts: dict[str, int]) -> int:
    ended = ("completed", "failed", "timeout", "cancelled")
    return sum(count for status, count in counts.items() if status not in ended)
