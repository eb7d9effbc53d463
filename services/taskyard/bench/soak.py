"""Whether memory stays bounded: a steady load for minutes, and what every program holds meanwhile."""

import asyncio
import time
from collections.abc import Callable, Mapping

from taskyard import client
from taskyard.bench.connections import control_of, http_of, judge_log
from taskyard.bench.evidence import find, percentiles, start_milliseconds
from taskyard.bench.load import ENDED, await_completed, completed_so_far, make_task, submit_steadily
from taskyard.bench.soak_report import MemorySample, Soak, judge_memory
from taskyard.bench.system import System
from taskyard.bench.usage import describe_machine, memory_now
from taskyard.client import Client, make_id
from taskyard.contracts.values import Instant

NOOPS_PER_SECOND = 100.0
COMMANDS_PER_SECOND = 1.0
SAMPLE_SECONDS = 60.0
SAMPLES_MIN = 6
"""A short soak is sampled so often at least."""
WARM_UP_TASKS = 2_000
"""What is made once and kept, such as every worker's slots and the pages of PostgreSQL, is made before the first sample."""
SERVERS = ("nats-server", "postgres")
"""They keep what they are told in caches of their own: shown, and not judged."""


async def measure_soak(system: System, minutes: float, say: Callable[[str], None]) -> Soak:
    """Put the load on the system, and judge what its programs hold and what its log says.

    Raises `BenchError`, `EventLogError`, `NotAnswered`, `nats.errors.Error`, alone or in a group.
    """
    seconds = minutes * 60
    async with (
        client.connect(system.connection_file) as taskyard,
        http_of(system) as http,
        control_of(system) as control,
    ):
        before = await completed_so_far(http)
        await taskyard.submit_many(make_task() for _ in range(WARM_UP_TASKS))
        await await_completed(http, before, WARM_UP_TASKS)

        before = await completed_so_far(http)
        samples: list[MemorySample] = []
        begun = time.perf_counter()

        async def take_sample() -> None:
            counts = await completed_so_far(http)
            live = sum(count for status, count in counts.items() if status not in ENDED)
            at = time.perf_counter() - begun
            samples.append(MemorySample(seconds=round(at), live_tasks=live, mib=_memory(system)))
            say(f"{at / 60:.1f} of {minutes:g} min: {sum(samples[-1].mib.values()):,.0f} MiB in all, {live} live tasks")

        async def watch() -> None:
            pause = min(SAMPLE_SECONDS, seconds / SAMPLES_MIN)
            while time.perf_counter() - begun < seconds:
                await take_sample()
                await asyncio.sleep(pause)

        async with asyncio.TaskGroup() as group:
            group.create_task(watch())
            commands = group.create_task(_submit_commands(taskyard, COMMANDS_PER_SECOND, seconds))
            sent_at = await submit_steadily(taskyard, rate=NOOPS_PER_SECOND, seconds=seconds)
        tasks = [*sent_at, *commands.result()]
        are_done = await await_completed(http, before, len(tasks))
        await take_sample()

        verdict = await judge_log(control, system)

    programs = judge_memory(samples, tasks_per_second=NOOPS_PER_SECOND + COMMANDS_PER_SECOND, unjudged=SERVERS)
    findings = find(verdict, tasks)
    return Soak(
        minutes=minutes,
        noops_per_second=NOOPS_PER_SECOND,
        commands_per_second=COMMANDS_PER_SECOND,
        tasks=len(tasks),
        all_completed=are_done and findings.is_clean,
        is_bounded=all(program.is_bounded is not False for program in programs.values()),
        findings=findings,
        start_latency_ms=percentiles(start_milliseconds(verdict, sent_at)),
        programs=programs,
        samples=samples,
        machine=describe_machine(),
    )


async def _submit_commands(taskyard: Client, rate: float, seconds: float) -> Mapping[str, Instant]:
    """Tasks that start a process."""
    return await submit_steadily(taskyard, rate=rate, seconds=seconds, make=_command)


def _command() -> dict[str, object]:
    return {"kind": "command", "input": {"argv": ["true"]}, "id": make_id()}


def _memory(system: System) -> dict[str, float]:
    return {name: round(mib, 1) for name, mib in memory_now(system.connection.processes).items()}
