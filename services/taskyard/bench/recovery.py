"""How long each deciding service takes to start after a million finished tasks, with the snapshots that it has then.

The worst case is measured: the last snapshot was saved as long ago as it may be, so the tail is as long as it gets.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec

from taskyard.bench.errors import BenchError
from taskyard.bench.history import EVENTS_PER_TASK, Progress, write_finished_tasks
from taskyard.bench.recovery_report import Recovery, ServiceRecovery
from taskyard.bench.usage import MEBIBYTE, describe_machine
from taskyard.contracts.events import AnyEvent, decode_event
from taskyard.contracts.subjects import SNAPSHOTS_BUCKET
from taskyard.dev.last_words import last_words
from taskyard.dispatcher.machine import Dispatcher
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.nats_users import AGENTS_KEEPER, CONTROL_KEEPER
from taskyard.embedded.processes import Program, free_port, spawn, stop_child
from taskyard.eventlog.commit import CommitCodec
from taskyard.eventlog.snapshots import JetStreamSnapshots
from taskyard.machine.core import LoopCore
from taskyard.machine.snapshots import SNAPSHOT_EVENTS, SnapshotKeeper
from taskyard.private_files import write_private
from taskyard.scheduler.machine import Scheduler
from taskyard.service import Links, LogEvent, linked
from taskyard.settings import Settings
from taskyard.slot_allocator.machine import SlotAllocator

READY_SECONDS_MAX = 120.0
READY_POLL_SECONDS = 0.02
STOP_SECONDS_MAX = 20.0

_MACHINES: tuple[Callable[[], Any], ...] = (
    lambda: Scheduler({}),
    lambda: SlotAllocator(10.0, 30.0),
    Dispatcher,
)


async def measure_recovery(folder: Path, tasks: int, say: Callable[[str], None]) -> Recovery:
    """Write the log of so many finished tasks into a server in `folder`, and start each service on it.

    Raises:
        BenchError: a program did not become ready.
        EventLogError, EmbeddedError: the server gave no answer, or did not start.
    """
    with _server(folder) as settings:
        async with linked("bench", settings) as links:
            begun = time.perf_counter()
            await write_finished_tasks(links.log, tasks, _every_tenth(tasks, say))
            write_seconds = time.perf_counter() - begun
            start = _Start(folder, settings, links, say)
            services = [await start.measure(make(), make(), tasks * EVENTS_PER_TASK) for make in _MACHINES]
    return Recovery(
        tasks=tasks,
        events=tasks * EVENTS_PER_TASK,
        snapshot_events=SNAPSHOT_EVENTS,
        write_seconds=round(write_seconds, 2),
        services=services,
        machine=describe_machine(),
    )


@contextmanager
def _server(folder: Path) -> Iterator[Settings]:
    server = NatsServer(folder / "nats")
    server.start()
    try:
        yield Settings(
            nats_urls=[server.url],
            nats_monitoring_urls=[server.monitor_url],
            makes_streams=True,
            control_user=CONTROL_KEEPER,
            control_password=server.password(CONTROL_KEEPER),
            fleet_user=AGENTS_KEEPER,
            fleet_password=server.password(AGENTS_KEEPER),
            postgres_dsn="",
        )
    finally:
        server.stop()


class _Start:
    """Starts one service after the other on the same log."""

    def __init__(self, folder: Path, settings: Settings, links: Links, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._settings = settings
        self._links = links
        self._say = say

    async def measure(self, old_machine: Any, new_machine: Any, events: int) -> ServiceRecovery:
        """Let one instance of a machine save a snapshot on the way through the log, and start another from it."""
        old = _Instance(self._links, old_machine, "old")
        name = old_machine.writer
        self._say(f"folds the log as {name}")
        head = await self._links.log.head()
        first = await old.fold(head, events_max=max(events - SNAPSHOT_EVENTS, events // 2))
        stopped_seconds, stored_seconds = await old.save()

        self._say(f"starts {name} from a snapshot")
        new = _Instance(self._links, new_machine, "new")
        restored = await new.recover()
        tail = await new.fold(head)
        return ServiceRecovery(
            service=name,
            first_events=old.core.events_folded,
            first_seconds=round(first.seconds, 2),
            snapshot_mib=round(len(old_machine.snapshot()) / MEBIBYTE, 2),
            snapshot_stop_ms=round(stopped_seconds * 1_000, 1),
            snapshot_store_seconds=round(stored_seconds, 2),
            restore_seconds=round(restored.seconds, 3),
            tail_events=new.core.events_folded,
            tail_seconds=round(tail.seconds, 3),
            fold_seconds=round(restored.seconds + tail.seconds, 3),
            fold_cpu_seconds=round(restored.cpu_seconds + tail.cpu_seconds, 3),
            ready_seconds=round(await _start_program(self._folder, self._settings, name), 2),
        )


class _Timer:
    """How long a block took: by the clock, and of this process's processor time."""

    def __enter__(self) -> Self:
        self._begun = time.perf_counter(), time.process_time()
        self.seconds = self.cpu_seconds = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.cpu_seconds = time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]


class _Instance:
    """An instance of a machine that folds, as far as it is told."""

    def __init__(self, links: Links, machine: Any, name: str) -> None:
        codec: CommitCodec[Any] = CommitCodec[LogEvent](AnyEvent, decode_event)
        self.core: LoopCore[Any, Any] = LoopCore(machine, codec, name)
        self._log = links.log
        self._keeper = SnapshotKeeper(self.core, JetStreamSnapshots(links.control_client, SNAPSHOTS_BUCKET))
        machine.stand_by()

    async def recover(self) -> _Timer:
        """Begin with the newest snapshot."""
        with _Timer() as timer:
            await self._keeper.recover()
            self.core.machine.stand_by()
        return timer

    async def fold(self, head: int, *, events_max: int = sys.maxsize) -> _Timer:
        """Fold commits until `head`, or until so many events are folded."""
        with _Timer() as timer:
            async for stored in self._log.read(self.core.folded + 1, head, floor=self.core.log_time):
                self.core.fold(stored, time.monotonic())
                if self.core.events_folded >= events_max:
                    break
        return timer

    async def save(self) -> tuple[float, float]:
        """Save a snapshot: how long a leader stands still for it, and how long storing takes beside its work."""
        with _Timer() as stopped:
            self._keeper.save_if_due(1)
        with _Timer() as stored:
            await self._keeper.save_last()
        return stopped.seconds, stored.seconds


async def _start_program(folder: Path, settings: Settings, name: str) -> float:
    """Start the service as a program; the seconds until it says that it is ready."""
    health_port = free_port()
    file = folder / f"{name}.json"
    write_private(file, msgspec.json.encode(msgspec.structs.replace(settings, health_port=health_port)))
    argv = (sys.executable, "-m", f"taskyard.{name}", "--config", str(file))
    program = Program(name=name, argv=argv, log_file=folder / f"{name}.log")
    begun = time.perf_counter()
    child = spawn(program)
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            while time.perf_counter() - begun < READY_SECONDS_MAX and child.poll() is None:
                if await _is_ready(http, f"http://127.0.0.1:{health_port}/readyz"):
                    return time.perf_counter() - begun
                await asyncio.sleep(READY_POLL_SECONDS)
    finally:
        await asyncio.to_thread(stop_child, child, STOP_SECONDS_MAX)
    said = last_words(program.log_file) or "it says nothing"
    message = f"{name} did not become ready: {said}; its log is {program.log_file} (kept with --keep)"
    raise BenchError(message)


async def _is_ready(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).is_success
    except httpx.TransportError:
        return False


def _every_tenth(tasks: int, say: Callable[[str], None]) -> Progress:
    told = 0

    def progress(written: int) -> None:
        nonlocal told
        if written * 10 // tasks > told:
            told = written * 10 // tasks
            say(f"wrote the log of {written:,} of {tasks:,} finished tasks")

    return progress
