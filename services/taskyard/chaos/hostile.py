"""`./dev chaos --hostile`: how long tasks wait to start while one agent or one operator means harm.

A steady load through both doors is measured alone, and then under each flood: from the sending of a task, whose time its id
bears, to the log's time of its start. The floods are processes of their own, with real credentials, each held to a share of
the processors, and each on a system of its own, so that what one leaves behind is not taken for the work of another. What had
not started in time after its flood counts as if it had just started then.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx
import msgspec
import nats.errors
from msgspec import Struct
from nats.aio.client import Client
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from taskyard.bench.command_line import ended_in_order, leaves, uninterrupted
from taskyard.bench.evidence import percentiles
from taskyard.chaos.connecting import as_admin, as_service, over_http
from taskyard.chaos.errors import ChaosError
from taskyard.chaos.flooding import OF_AGENT, Credentials
from taskyard.chaos.leash import hold, used_seconds
from taskyard.chaos.options import HostileOptions
from taskyard.chaos.system import INTRUDER, OPERATOR, System
from taskyard.client import make_id
from taskyard.contracts.events import TaskStarted, WorkerLost, decode_event
from taskyard.contracts.subjects import command_subject, log_stream
from taskyard.contracts.values import POOL_DEFAULT, Instant, uuid7_instant
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.follower import StreamFollower
from taskyard.judge.commits import Commit
from taskyard.private_files import open_to_append

SHARE = 0.25
"""Of all processors, for the one who means harm."""
P99_MILLISECONDS_MAX = 1_000.0
ALONE = "load alone"
ALONE_SECONDS = 10.0
WARM_UP_SECONDS = 3.0
TICK_SECONDS = 0.05
HTTP_EVERY = 4
"""Of so many commands one goes through HTTP."""
SETTLE_SECONDS_MAX = 20.0
IN_FLIGHT_MAX = 200
REQUEST_SECONDS_MAX = 10.0
HTTP_ACCEPTED = 202
FOLLOW_AGAIN_SECONDS = 0.1

_decode = msgspec.json.Decoder(Commit).decode


class Phase(Struct, kw_only=True):
    """One flood. `sent` is what the flood sent, `processor_share` what it took; times are from submit to start.

    `late` tasks had not started when the time for that was over; `refused` were not accepted, `workers_lost` is how many
    of the system's own workers were taken for lost.
    """

    flood: str
    sent: int = 0
    processor_share: float = 0.0
    tasks: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    late: int = 0
    refused: int = 0
    workers_lost: int = 0

    @property
    def is_well(self) -> bool:
        """Whether the others hardly felt it."""
        return self.tasks > 0 and self.p99_ms < P99_MILLISECONDS_MAX and not self.late and not self.workers_lost


class HostileResult(Struct, kw_only=True):
    """All phases. `ok` is what the exit status tells."""

    ok: bool
    p99_ms_max: float
    rate: float
    seconds: float
    phases: list[Phase]


class Starts:
    """Follows the log for the starts of tasks, and for workers that are lost."""

    def __init__(self, client: Client, partition: str) -> None:
        self.at: dict[str, Instant] = {}
        self.lost = 0
        self._client = client
        self._stream = log_stream(partition)
        self._head = 0
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            with suppress(EventLogError):
                async with StreamFollower(self._client, self._stream, after=self._head) as follower:
                    while True:
                        for message in await follower.next_batch():
                            self._head = max(self._head, message.sequence)
                            self._read(message.data, Instant(message.at))
            await asyncio.sleep(FOLLOW_AGAIN_SECONDS)

    async def wait_for(self, tasks: Sequence[str]) -> None:
        """Wait until all of these have started."""
        waiting = set(tasks)
        while waiting := waiting - self.at.keys():
            self._news.clear()
            await self._news.wait()

    def _read(self, data: bytes, at: Instant) -> None:
        for raw in _decode(data).events:
            event = decode_event(raw)
            if isinstance(event, TaskStarted):
                self.at.setdefault(event.task, at)
                self._news.set()
            elif isinstance(event, WorkerLost) and event.worker.startswith("worker-"):
                self.lost += 1


class SteadyLoad:
    """No-ops through both doors at a rate, as the admin."""

    def __init__(self, http: httpx.AsyncClient, client: Client, urls: Sequence[str]) -> None:
        self.sent: list[str] = []
        self.refused = 0
        self._http = http
        self._client = client
        self._urls = urls
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self, rate: float, seconds: float) -> None:
        """Send for so long."""
        begun, due, turn = time.monotonic(), 0, 0
        while (elapsed := time.monotonic() - begun) < seconds:
            count, due = int(elapsed * rate) - due, int(elapsed * rate)
            if count:
                turn += 1
                self._send([{"id": make_id(), "kind": "noop", "input": {}} for _ in range(count)], turn)
            await asyncio.sleep(TICK_SECONDS)

    def _send(self, tasks: list[dict[str, object]], turn: int) -> None:
        if len(self._sending) >= IN_FLIGHT_MAX:
            self.refused += len(tasks)
            return
        self.sent += [str(task["id"]) for task in tasks]
        sending = asyncio.create_task(self._by_http(tasks, turn) if turn % HTTP_EVERY == 0 else self._stored(tasks))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _by_http(self, tasks: list[dict[str, object]], turn: int) -> None:
        url = self._urls[turn // HTTP_EVERY % len(self._urls)]
        try:
            answer = await self._http.post(f"{url}/api/v1/tasks", json={"tasks": tasks}, timeout=REQUEST_SECONDS_MAX)
            self.refused += 0 if answer.status_code == HTTP_ACCEPTED else len(tasks)
        except httpx.HTTPError:
            self.refused += len(tasks)

    async def _stored(self, tasks: list[dict[str, object]]) -> None:
        body = msgspec.json.encode({"id": make_id(), "tasks": tasks})
        try:
            answer = await self._client.request(
                command_subject("admin", POOL_DEFAULT, "submit"), body, timeout=REQUEST_SECONDS_MAX
            )
            self.refused += len(tasks) if b'"error"' in answer.data else 0
        except (nats.errors.Error, TimeoutError, OSError):
            self.refused += len(tasks)

    async def settle(self) -> None:
        """Wait for the answers that are owed."""
        await asyncio.gather(*self._sending, return_exceptions=True)


def main(options: HostileOptions) -> int:
    """Do it all, print, and return 0 if all is well and 1 if not."""
    console = Console(stderr=options.as_json)
    folder = Path(tempfile.mkdtemp(prefix="taskyard-hostile-")) if options.keep is None else options.keep.absolute()
    result: HostileResult | None = None
    with ended_in_order():
        try:
            result = asyncio.run(_run(options, folder, console))
        except* (ChaosError, EventLogError, nats.errors.Error, OSError) as group:
            for error in leaves(group):
                print(f"taskyard chaos: {error or type(error).__name__}", file=sys.stderr)
    if result is not None and result.ok and options.keep is None:
        shutil.rmtree(folder)
    else:
        console.print(f"data and logs are in {folder}", markup=False, soft_wrap=True)
    if result is None:
        return 1
    console.print(make_table(result))
    if options.as_json:
        print(msgspec.json.encode(result).decode(), flush=True)
    return 0 if result.ok else 1


def judge_phase(flood: str, sent: Sequence[str], started: Mapping[str, Instant], now: Instant) -> Phase:
    """What became of the tasks that were sent during a flood."""
    milliseconds = [(started.get(task, now) - uuid7_instant(task)) / 1_000 for task in sent]
    found = percentiles(milliseconds)
    if found is None:
        return Phase(flood=flood)
    late = sum(task not in started for task in sent)
    return Phase(flood=flood, tasks=len(sent), p50_ms=found.p50, p99_ms=found.p99, max_ms=found.max, late=late)


def make_table(result: HostileResult) -> Table:
    """What is told to people."""
    table = Table(title="submit to start", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("flood", no_wrap=True)
    for heading in ("sent", "cpu", "p50", "p99", "late", "refused", "lost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in result.phases:
        colour = "green" if one.is_well else "bold red"
        table.add_row(
            one.flood,
            f"{one.sent:,}",
            f"{one.processor_share:.0%}",
            f"{one.p50_ms:,.0f} ms",
            f"[{colour}]{one.p99_ms:,.0f} ms[/]",
            f"{one.late:,}",
            f"{one.refused:,}",
            str(one.workers_lost),
        )
    return table


async def _run(options: HostileOptions, folder: Path, console: Console) -> HostileResult:
    console.print(f"taskyard chaos --hostile: systems in {folder}", markup=False, soft_wrap=True)
    phases: list[Phase] = []
    for flood in (None, *options.floods):
        system = System(folder / (flood or ALONE).replace(" ", "-"))
        try:
            await asyncio.to_thread(system.start)
            phases.append(await _measure(flood, options, system))
        finally:
            with uninterrupted():
                await asyncio.to_thread(system.stop)
        phase = phases[-1]
        told = f"p50 {phase.p50_ms:,.0f} ms, p99 {phase.p99_ms:,.0f} ms, late {phase.late}, sent {phase.sent:,}"
        console.print(f"{phase.flood}: {told}", markup=False, highlight=False)
    return HostileResult(
        ok=all(phase.is_well for phase in phases),
        p99_ms_max=P99_MILLISECONDS_MAX,
        rate=options.rate,
        seconds=options.seconds,
        phases=phases,
    )


async def _measure(flood: str | None, options: HostileOptions, system: System) -> Phase:
    async with AsyncExitStack() as stack:
        control = await stack.enter_async_context(as_service(system.services))
        http = await stack.enter_async_context(over_http(system.connection.admin_token))
        door = await stack.enter_async_context(as_admin(system.connection))
        starts = Starts(control, system.services.partition)
        following = asyncio.create_task(starts.run())
        try:
            await SteadyLoad(http, door, system.http_urls).run(options.rate, WARM_UP_SECONDS)
            return await _phase(flood, options, system, SteadyLoad(http, door, system.http_urls), starts)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _phase(flood: str | None, options: HostileOptions, system: System, load: SteadyLoad, starts: Starts) -> Phase:
    lost = starts.lost
    flooder = None if flood is None else await _Flooder.begin(flood, system)
    try:
        await load.run(options.rate, ALONE_SECONDS if flood is None else options.seconds)
    finally:
        sent, share = (0, 0.0) if flooder is None else await flooder.end()
    await load.settle()
    with suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_SECONDS_MAX):
            await starts.wait_for(load.sent)
    phase = judge_phase(flood or ALONE, load.sent, starts.at, Instant(time.time_ns() // 1_000))
    phase.sent, phase.processor_share = sent, share
    phase.refused, phase.workers_lost = load.refused, starts.lost - lost
    return phase


class _Flooder:
    """One hostile process on its leash."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._sent = 0
        self._begun = time.monotonic()
        self._leash = asyncio.create_task(hold(process.pid, SHARE))
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def begin(cls, flood: str, system: System) -> "_Flooder":
        credentials = Credentials(
            nats_url=system.connection.nats_url,
            user=INTRUDER if flood in OF_AGENT else OPERATOR,
            password=system.password(INTRUDER if flood in OF_AGENT else OPERATOR),
            http_urls=system.http_urls,
            token=system.token(OPERATOR),
        )
        argv = (sys.executable, "-m", "taskyard.chaos.flooding", flood)
        with open_to_append(system.layout.log_file(f"flood-{flood.replace(' ', '-')}")) as log:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(credentials))
        process.stdin.close()
        return cls(process)

    async def end(self) -> tuple[int, float]:
        """End it; how much it has sent, and what share of the processors it had."""
        elapsed = time.monotonic() - self._begun
        share = used_seconds(self._process.pid) / elapsed / (os.cpu_count() or 1)
        self._leash.cancel()
        await asyncio.gather(self._leash, return_exceptions=True)
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading
        return self._sent, round(share, 3)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._sent = int(line)
