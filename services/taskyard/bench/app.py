"""`taskyard bench`: start a system, put load on it, and say how fast it was, what it used, and whether all is well."""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import nats
import nats.errors
import uvloop
from nats.aio.client import Client as NatsClient

from taskyard import client
from taskyard.bench.errors import BenchError
from taskyard.bench.evidence import Evidence, percentiles
from taskyard.bench.load import TASK_BYTES, await_completed, completed_so_far, measure_throughput, submit_steadily
from taskyard.bench.report import Latency, Result, as_json, print_table
from taskyard.bench.system import SLOTS_PER_WORKER, WORKERS, System, running
from taskyard.bench.usage import compare, describe_machine, peak_memory, sample
from taskyard.contracts.events import AnyEvent, UnknownEvent, decode_event
from taskyard.contracts.subjects import log_stream
from taskyard.embedded.errors import EmbeddedError
from taskyard.eventlog.commit import CommitCodec
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.jetstream import JetStreamLog

CLIENT = "client"
TASKS_DEFAULT = 20_000
RATE_DEFAULT = 50.0
SECONDS_DEFAULT = 10.0
WARM_UP_TASKS = 200
"""Before anything is measured so many tasks run, as in a system that has been up for a while."""

REQUEST_SECONDS_MAX = 10.0

LogEvent = AnyEvent | UnknownEvent


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure. `rate` is in tasks a second, for `seconds`; without `keep` the folder is removed."""

    tasks: int
    rate: float
    seconds: float
    keep: Path | None
    as_json: bool


def main(argv: list[str]) -> int:
    """Measure, print, and return 0 if every task completed exactly once, else 1."""
    options = _parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    result: Result | None = None
    try:
        with _folder(options.keep) as folder, running(folder) as system:
            result = uvloop.run(measure(system, options))
    except* (BenchError, EmbeddedError, EventLogError, client.NotAnswered, nats.errors.Error, OSError) as group:
        for error in _leaves(group):
            print(f"taskyard bench: {error or type(error).__name__}", file=sys.stderr)
    if result is None:
        return 1
    if options.as_json:
        print(as_json(result), flush=True)
    else:
        print_table(result)
    return 0 if result.all_completed else 1


async def measure(system: System, options: Options) -> Result:
    """Put both kinds of load on the system, and judge what its log says.

    Raises `BenchError`, `EventLogError`, `NotAnswered`, `nats.errors.Error`, alone or in a group.
    """
    programs, load_before = system.connection.processes, os.getloadavg()
    async with client.connect(system.connection_file) as taskyard, _http(system) as http, _control(system) as control:
        log = JetStreamLog[LogEvent](
            control,
            log_stream(system.services.partition),
            f"taskyard.log.{system.services.partition}",
            CommitCodec[LogEvent](AnyEvent, decode_event),
        )
        await measure_throughput(taskyard, http, WARM_UP_TASKS)

        first, bytes_before, before = await log.head() + 1, await _log_bytes(control, system), sample(programs, CLIENT)
        busy = await measure_throughput(taskyard, http, options.tasks)
        after, bytes_after = sample(programs, CLIENT), await _log_bytes(control, system)
        last_busy = await log.head()

        counts = await completed_so_far(http)
        sent_at = await submit_steadily(taskyard, rate=options.rate, seconds=options.seconds)
        is_calm_done = await await_completed(http, counts, len(sent_at))

        evidence, events, commits = Evidence(), 0, 0
        async for stored in log.read(first, await log.head()):
            evidence.add(stored.commit.events, stored.at)
            if stored.sequence <= last_busy:
                events, commits = events + len(stored.commit.events), commits + 1

    findings = evidence.judge([*busy.tasks, *sent_at])
    wall_seconds = busy.done_seconds or busy.stored_seconds
    latency = percentiles(evidence.start_milliseconds(sent_at))
    is_complete = busy.done_seconds is not None and is_calm_done and latency is not None
    machine = describe_machine()
    return Result(
        tasks_per_second=round(options.tasks / busy.done_seconds, 1) if busy.done_seconds else 0.0,
        submit_per_second=round(options.tasks / busy.stored_seconds, 1),
        start_latency_ms=latency,
        n=options.tasks,
        all_completed=is_complete and findings.is_clean,
        task_bytes=TASK_BYTES,
        end_to_end_seconds=round(wall_seconds, 3),
        latency=Latency(tasks=len(sent_at), per_second=options.rate),
        findings=findings,
        log_bytes_per_task=round((bytes_after - bytes_before) / options.tasks, 1),
        events_per_commit=round(events / max(commits, 1), 1),
        commits=commits,
        workers=WORKERS,
        slots_per_worker=SLOTS_PER_WORKER,
        usage=compare(
            before,
            after,
            memory=peak_memory(programs, CLIENT),
            wall_seconds=wall_seconds,
            tasks=options.tasks,
            cores=machine.cores,
        ),
        machine=machine,
        load_average_before=round(load_before[0], 2),
        load_average_after=round(os.getloadavg()[0], 2),
    )


def _parse(argv: list[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="taskyard bench",
        description="Measures the whole system on this machine: tasks a second from the first submit until the read model"
        " shows all as completed, and the time from submit to start at a calm rate."
        " Ends with 0 only if every task completed exactly once.",
    )
    parser.add_argument("--tasks", type=_count, default=TASKS_DEFAULT, help="no-op tasks of 200 bytes (%(default)s)")
    parser.add_argument("--rate", type=_positive, default=RATE_DEFAULT, help="tasks a second for latency (%(default)s)")
    parser.add_argument(
        "--seconds", type=_positive, default=SECONDS_DEFAULT, help="how long at that rate (%(default)s)"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="run in this folder, and leave data and logs there")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    found = parser.parse_args(argv)
    return Options(tasks=found.tasks, rate=found.rate, seconds=found.seconds, keep=found.keep, as_json=found.json)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="taskyard-bench-") as folder:
        yield Path(folder)


@asynccontextmanager
async def _http(system: System) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=system.connection.http_url,
        headers={"Authorization": f"Bearer {system.connection.admin_token}"},
        timeout=REQUEST_SECONDS_MAX,
        trust_env=False,
    ) as http:
        yield http


@asynccontextmanager
async def _control(system: System) -> AsyncIterator[NatsClient]:
    """A connection in the account of the log, as services have it: only there can the log be read."""
    control = await nats.connect(
        system.connection.nats_url,
        user=system.services.control_user,
        password=system.services.control_password,
        connect_timeout=REQUEST_SECONDS_MAX,
        name="taskyard bench",
    )
    try:
        yield control
    finally:
        await control.close()


async def _log_bytes(control: NatsClient, system: System) -> int:
    """The size of the log as the server stores it."""
    info = await control.jetstream(timeout=REQUEST_SECONDS_MAX).stream_info(log_stream(system.services.partition))
    return info.state.bytes


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
