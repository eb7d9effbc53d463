"""How many tasks a second go through, and how soon one starts when the system has little to do."""

import os
from collections.abc import Callable

from taskyard import client
from taskyard.bench.connections import control_of, http_of, judge_log, log_bytes, log_of
from taskyard.bench.evidence import find, percentiles, start_milliseconds
from taskyard.bench.load import TASK_BYTES, await_completed, completed_so_far, measure_throughput, submit_steadily
from taskyard.bench.report import Latency, Result
from taskyard.bench.system import SLOTS_PER_WORKER, WORKERS, System
from taskyard.bench.usage import compare, describe_machine, peak_memory, sample

CLIENT = "client"
WARM_UP_TASKS = 200
"""Before anything is measured so many tasks run, as in a system that has been up for a while."""


async def measure(system: System, *, tasks: int, rate: float, seconds: float, say: Callable[[str], None]) -> Result:
    """Put both kinds of load on the system, and judge what its log says. `rate` is in tasks a second, for `seconds`.

    Raises `BenchError`, `EventLogError`, `NotAnswered`, `nats.errors.Error`, alone or in a group.
    """
    programs, load_before = system.connection.processes, os.getloadavg()
    async with (
        client.connect(system.connection_file) as taskyard,
        http_of(system) as http,
        control_of(system) as control,
    ):
        log = log_of(system, control)
        await measure_throughput(taskyard, http, WARM_UP_TASKS)

        first, bytes_before, before = await log.head() + 1, await log_bytes(control, system), sample(programs, CLIENT)
        say(f"{tasks:,} tasks at once")
        busy = await measure_throughput(taskyard, http, tasks)
        after, bytes_after = sample(programs, CLIENT), await log_bytes(control, system)
        last_busy = await log.head()

        say(f"one by one, {rate:g} tasks a second for {seconds:g} s")
        counts = await completed_so_far(http)
        sent_at = await submit_steadily(taskyard, rate=rate, seconds=seconds)
        is_calm_done = await await_completed(http, counts, len(sent_at))

        say("reads the log, and judges it")
        verdict = await judge_log(control, system)
        events = commits = 0
        async for stored in log.read(first, last_busy):
            events, commits = events + len(stored.commit.events), commits + 1

    findings = find(verdict, [*busy.tasks, *sent_at])
    wall_seconds = busy.done_seconds or busy.stored_seconds
    latency = percentiles(start_milliseconds(verdict, sent_at))
    is_complete = busy.done_seconds is not None and is_calm_done and latency is not None
    machine = describe_machine()
    return Result(
        tasks_per_second=round(tasks / busy.done_seconds, 1) if busy.done_seconds else 0.0,
        submit_per_second=round(tasks / busy.stored_seconds, 1),
        start_latency_ms=latency,
        n=tasks,
        all_completed=is_complete and findings.is_clean,
        task_bytes=TASK_BYTES,
        end_to_end_seconds=round(wall_seconds, 3),
        latency=Latency(tasks=len(sent_at), per_second=rate),
        findings=findings,
        log_bytes_per_task=round((bytes_after - bytes_before) / tasks, 1),
        events_per_commit=round(events / max(commits, 1), 1),
        commits=commits,
        workers=WORKERS,
        slots_per_worker=SLOTS_PER_WORKER,
        usage=compare(
            before,
            after,
            memory=peak_memory(programs, CLIENT),
            wall_seconds=wall_seconds,
            tasks=tasks,
            cores=machine.cores,
        ),
        machine=machine,
        load_average_before=round(load_before[0], 2),
        load_average_after=round(os.getloadavg()[0], 2),
    )
