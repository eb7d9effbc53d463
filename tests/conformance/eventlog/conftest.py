"""One suite for the real log and for its twin: a `Site` offers both through the same methods."""

import asyncio
import secrets
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import nats
import pytest
from msgspec import Raw, Struct
from nats.aio.client import Client

from taskyard.contracts.subjects import StreamSpec
from taskyard.contracts.values import Instant
from taskyard.embedded.processes import free_port
from taskyard.eventlog.commit import Commit, CommitCodec
from taskyard.eventlog.jetstream import JetStreamInput, JetStreamLog
from taskyard.eventlog.jetstream_api import api_request
from taskyard.eventlog.leases import JetStreamLease, Lease, MemoryLease, MemoryLeases, ensure_leases
from taskyard.eventlog.log import Batches, EventLog, InputStream
from taskyard.eventlog.memory import MemoryInput, MemoryLog, MemoryStream
from taskyard.eventlog.snapshots import JetStreamSnapshots, MemorySnapshots, SnapshotStore, ensure_snapshots
from taskyard.eventlog.streams import ensure_streams, stream_config

T = TypeVar("T")

DEADLINE_SECONDS = 20.0
LEASE_SECONDS = 1.0


class Opened(Struct, frozen=True, tag=True, tag_field="type"):
    door: str


class Closed(Struct, frozen=True, tag=True, tag_field="type"):
    door: str


class Unknown(Struct, frozen=True):
    raw: bytes


Known = Opened | Closed
AnyEvent = Opened | Closed | Unknown


def decode_event(raw: Raw) -> AnyEvent:
    try:
        return msgspec.json.decode(raw, type=Known)
    except msgspec.DecodeError:
        return Unknown(bytes(raw))


CODEC: CommitCodec[AnyEvent] = CommitCodec(Known, decode_event)


def make_commit(
    writer: str = "w", *events: AnyEvent, instance: str = "one", epoch: int = 1, previous: str = ""
) -> bytes:
    commit = Commit(
        writer=writer,
        instance=instance,
        epoch=epoch,
        at=Instant(7),
        previous=previous,
        cursors={"IN": 3},
        events=events,
    )
    return CODEC.encode(commit)


async def take(batches: Batches[T], count: int) -> list[T]:
    """The next `count` items, which must come in whole batches."""
    items: list[T] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        while len(items) < count:
            batch = await batches.__anext__()
            assert batch
            items += batch
    assert len(items) == count
    return items


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


class NatsProcess:
    """A nats-server that can be killed and started again on the same port and files."""

    def __init__(self, directory: Path, *, jetstream: str = "sync_interval: always") -> None:
        self.port, self.monitor_port = free_port(), free_port()
        self._config = directory / "nats.conf"
        self._config.write_text(
            f'host: 127.0.0.1\nport: {self.port}\nhttp: "127.0.0.1:{self.monitor_port}"\nmax_payload: 1MB\n'
            f'jetstream {{ store_dir: "{directory / "js"}"\n {jetstream} }}\n'
            "accounts {\n SYS { users [{user: sys, password: sys}] }\n"
            " CONTROL { jetstream: enabled, users [{user: service, password: service}] } }\nsystem_account: SYS\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def monitoring_url(self) -> str:
        return f"http://127.0.0.1:{self.monitor_port}"

    def start(self) -> None:
        program = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
        assert program, "nats-server is not installed"
        self._process = subprocess.Popen(
            [program, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(timeout=10)
            self._process = None

    async def connect(self, user: str = "service") -> Client:
        url = f"nats://{user}:{user}@127.0.0.1:{self.port}"

        async def ignore(_: Exception) -> None:
            """Lost connections are part of the tests."""

        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                try:
                    return await nats.connect(
                        url, error_cb=ignore, allow_reconnect=True, max_reconnect_attempts=-1, reconnect_time_wait=0.1
                    )
                except (nats.errors.Error, OSError):
                    await asyncio.sleep(0.02)


async def close(nc: Client) -> None:
    with suppress(OSError):  # Closing flushes, which a connection that was just killed cannot.
        await nc.close()


class Site(Protocol):
    """A place with one log, one input stream, leases and snapshots; every call gives another handle of the same."""

    def log(self) -> EventLog[AnyEvent]: ...
    def input(self) -> InputStream: ...
    async def publish_input(self, data: bytes) -> None: ...
    async def expire_input(self, through: int) -> None: ...
    def lease(self, key: str) -> Lease: ...
    async def lease_time_passes(self) -> None: ...
    def snapshots(self) -> SnapshotStore: ...
    async def damage_newest_snapshot(self, writer: str) -> None: ...


class MemorySite:
    def __init__(self) -> None:
        self.now = Instant(1_000_000)
        self.log_stream = MemoryStream("LOG", self._clock)
        self.input_stream = MemoryStream("IN", self._clock)
        self._leases = MemoryLeases(self._clock, lease_seconds=LEASE_SECONDS)
        self._snapshots = MemorySnapshots()

    def _clock(self) -> Instant:
        self.now = Instant(self.now + 1)
        return self.now

    def log(self) -> MemoryLog[AnyEvent]:
        return MemoryLog(self.log_stream, "log.0", CODEC)

    def input(self) -> InputStream:
        return MemoryInput(self.input_stream)

    async def publish_input(self, data: bytes) -> None:
        self.input_stream.store("in.a", data)

    async def expire_input(self, through: int) -> None:
        self.input_stream.expire(through)

    def lease(self, key: str) -> Lease:
        return MemoryLease(self._leases, key)

    async def lease_time_passes(self) -> None:
        self.now = Instant(self.now + round(LEASE_SECONDS * 1_000_000))

    def snapshots(self) -> SnapshotStore:
        return self._snapshots

    async def damage_newest_snapshot(self, writer: str) -> None:
        self._snapshots.damage(writer)


class JetStreamSite:
    def __init__(self, nc: Client, name: str) -> None:
        self.nc = nc
        self.stream = f"LOG_{name}"
        self.prefix = f"log.{name}"
        self.input_name = f"IN_{name}"
        self.input_subject = f"in.{name}"
        self.bucket = f"leases_{name}"
        self.snapshots_bucket = f"snapshots_{name}"

    def specs(self) -> tuple[StreamSpec, StreamSpec]:
        log = StreamSpec(
            name=self.stream,
            account="control",
            subjects=(f"{self.prefix}.*",),
            owner="tests",
            readers=("tests",),
            append_only=True,
            discard_new=True,
        )
        inputs = StreamSpec(
            name=self.input_name,
            account="control",
            subjects=(f"{self.input_subject}.>",),
            owner="tests",
            readers=("tests",),
            max_age_seconds=3600,
            discard_new=True,
        )
        return log, inputs

    async def open(self) -> None:
        log, inputs = self.specs()
        await ensure_streams({"control": self.nc}, [log])
        # As the first version made it: what is stored can be taken away, which stands for its expiring here.
        unguarded = {**stream_config(inputs, 1), "deny_delete": False, "deny_purge": False}
        await api_request(self.nc, f"STREAM.CREATE.{inputs.name}", unguarded)
        await ensure_leases(self.nc, self.bucket, lease_seconds=LEASE_SECONDS)
        await ensure_snapshots(self.nc, self.snapshots_bucket)

    def log(self) -> JetStreamLog[AnyEvent]:
        return JetStreamLog(self.nc, self.stream, self.prefix, CODEC)

    def input(self) -> InputStream:
        return JetStreamInput(self.nc, self.input_name)

    async def publish_input(self, data: bytes) -> None:
        await self.nc.jetstream().publish(f"{self.input_subject}.a", data)

    async def expire_input(self, through: int) -> None:
        await self.nc.jetstream().purge_stream(self.input_name, seq=through + 1)

    def lease(self, key: str) -> Lease:
        return JetStreamLease(self.nc, self.bucket, key)

    async def lease_time_passes(self) -> None:
        js = self.nc.jetstream()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (await js.stream_info(f"KV_{self.bucket}")).state.messages:
                await asyncio.sleep(0.05)

    def snapshots(self) -> SnapshotStore:
        return JetStreamSnapshots(self.nc, self.snapshots_bucket)

    async def damage_newest_snapshot(self, writer: str) -> None:
        js = self.nc.jetstream()
        newest = await js.stream_info(self.snapshots_bucket)
        message = await js.get_msg(self.snapshots_bucket, newest.state.last_seq)
        assert message.subject and message.headers and message.subject.split(".")[1] == writer
        await js.publish(message.subject, b"damaged", headers=message.headers)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def until_whole(nc: Client, streams: Iterable[str]) -> None:
    """Wait until each stream has a leader and two followers that have all that it has."""
    async with asyncio.timeout(2 * DEADLINE_SECONDS):
        for stream in streams:
            while True:
                with suppress(nats.errors.Error, nats.js.errors.APIError):
                    cluster = (await nc.jetstream().stream_info(stream)).cluster
                    if cluster and cluster.leader and sum(bool(each.current) for each in cluster.replicas or ()) == 2:
                        break
                await asyncio.sleep(0.05)


class Kit:
    """What the test files share. Handed out by a fixture: files of tests cannot import one another here."""

    Opened = Opened
    Closed = Closed
    Unknown = Unknown
    MemorySite = MemorySite
    NatsProcess = NatsProcess
    codec = CODEC
    make_commit = staticmethod(make_commit)
    take = staticmethod(take)
    until = staticmethod(until)
    until_whole = staticmethod(until_whole)
    lease_seconds = LEASE_SECONDS


@pytest.fixture
def kit() -> type[Kit]:
    return Kit


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsProcess]:
    process = NatsProcess(tmp_path_factory.mktemp("nats"))
    process.start()
    yield process
    process.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsProcess]:
    """A server that a test may kill."""
    process = NatsProcess(tmp_path)
    process.start()
    yield process
    process.kill()


@pytest.fixture
async def nats_site(server: NatsProcess) -> AsyncIterator[JetStreamSite]:
    nc = await server.connect()
    site = JetStreamSite(nc, secrets.token_hex(4))
    await site.open()
    yield site
    await nc.close()


@pytest.fixture
async def own_site(own_server: NatsProcess) -> AsyncIterator[JetStreamSite]:
    nc = await own_server.connect()
    site = JetStreamSite(nc, "own")
    await site.open()
    yield site
    await close(nc)


@pytest.fixture(params=["memory", "jetstream"])
async def site(request: pytest.FixtureRequest, server: NatsProcess) -> AsyncIterator[Site]:
    if request.param == "memory":
        yield MemorySite()
        return
    nc = await server.connect()
    found = JetStreamSite(nc, secrets.token_hex(4))
    await found.open()
    yield found
    await nc.close()
