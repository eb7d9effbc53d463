"""Load on a running system, over the doors that everybody has: commands over NATS, reading over HTTP."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping

import httpx
import msgspec
from msgspec import Struct

from taskyard.bench.errors import BenchError
from taskyard.client import Client, make_id
from taskyard.contracts.values import Instant

TASK_BYTES = 200
"""The length of a whole task as it is sent, id included."""

POLL_SECONDS = 0.02
POLL_SECONDS_FAR = 0.2
NEAR_SHARE = 0.8
"""Until this share of the tasks is completed the read model is asked less often, so as not to be a load itself."""

STALL_SECONDS_MAX = 60.0
"""A system in which for so long no further task has ended is given up."""

ENDED = ("completed", "failed", "timeout", "cancelled")
BADLY_ENDED = ENDED[1:]


class Throughput(Struct, frozen=True, kw_only=True):
    """Times in seconds since the first submit; `tasks` are ids. `done_seconds` is None if not all completed."""

    tasks: list[str]
    stored_seconds: float
    done_seconds: float | None


class _Stats(Struct):
    by_status: dict[str, int]


def make_task() -> dict[str, object]:
    """A no-op task of `TASK_BYTES` bytes of JSON, with its id."""
    task: dict[str, object] = {"kind": "noop", "input": "", "id": make_id()}
    task["input"] = "x" * (TASK_BYTES - len(msgspec.json.encode(task)))
    return task


async def measure_throughput(client: Client, http: httpx.AsyncClient, tasks: int) -> Throughput:
    """Submit so many tasks at once, and wait until the read model shows them as completed.

    Raises:
        NotAnswered: they could not be stored.
        BenchError: the read model did not answer.
    """
    before = await _counts(http)
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        done = group.create_task(_until_completed(http, before, tasks, begun))
        ids = await client.submit_many(_tasks(tasks))
        stored_seconds = time.perf_counter() - begun
    return Throughput(tasks=ids, stored_seconds=stored_seconds, done_seconds=done.result())


async def submit_steadily(
    client: Client, *, rate: float, seconds: float, make: Callable[[], dict[str, object]] = make_task
) -> dict[str, Instant]:
    """Submit tasks one by one, `rate` a second, whether or not earlier ones are done; when each was sent, by its id.

    Raises `NotAnswered`.
    """
    sent_at: dict[str, Instant] = {}
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(max(1, round(rate * seconds))):
            await asyncio.sleep(begun + number / rate - time.perf_counter())
            task = make()
            sent_at[str(task["id"])] = Instant(time.time_ns() // 1_000)
            group.create_task(client.submit_many([task]))
    return sent_at


async def await_completed(http: httpx.AsyncClient, before: Mapping[str, int], tasks: int) -> bool:
    """Wait until so many more tasks than `before` are completed in the read model; whether all of them did."""
    return await _until_completed(http, before, tasks, time.perf_counter()) is not None


async def completed_so_far(http: httpx.AsyncClient) -> Mapping[str, int]:
    """How many tasks of each status the read model shows, as `await_completed` wants it."""
    return await _counts(http)


def _tasks(number: int) -> Iterator[dict[str, object]]:
    return (make_task() for _ in range(number))


async def _until_completed(
    http: httpx.AsyncClient, before: Mapping[str, int], tasks: int, begun: float
) -> float | None:
    """Seconds from `begun` until all have completed; None if some ended badly, or nothing went on for too long."""
    ended, ended_at = 0, time.perf_counter()
    while ended < tasks:
        await asyncio.sleep(POLL_SECONDS if ended > NEAR_SHARE * tasks else POLL_SECONDS_FAR)
        counts = await _counts(http)
        now = time.perf_counter()
        ended_now = sum(counts.get(status, 0) - before.get(status, 0) for status in ENDED)
        if ended_now > ended:
            ended, ended_at = ended_now, now
        elif now - ended_at > STALL_SECONDS_MAX:
            return None
        if any(counts.get(status, 0) > before.get(status, 0) for status in BADLY_ENDED):
            return None
    return ended_at - begun


async def _counts(http: httpx.AsyncClient) -> dict[str, int]:
    try:
        answer = (await http.get("/api/v1/stats")).raise_for_status()
    except httpx.HTTPError as error:
        message = f"the read model did not answer: {error or type(error).__name__}"
        raise BenchError(message) from error
    return msgspec.json.decode(answer.content, type=_Stats).by_status
