"""The faults themselves: each breaks something, heals it, and returns when tasks start again."""

import asyncio
import time
from dataclasses import dataclass, field
from random import Random

import httpx

from taskyard.chaos.errors import NotBroken, NotHealed
from taskyard.chaos.load import Load
from taskyard.chaos.monitor import Monitor
from taskyard.chaos.plan import Step, choose_process
from taskyard.chaos.system import HEALED_SECONDS_MAX, POLL_SECONDS, System
from taskyard.contracts.values import Instant

NEVER = Instant(0)
PROBE_SECONDS = 2.0
READ_SECONDS_MAX = 5.0
FULL_SECONDS_MAX = 30.0


@dataclass(kw_only=True)
class Done:
    """One fault that was done: from when until when, in log time, and how many processes it killed."""

    step: Step
    begun: Instant
    over: Instant = NEVER
    kills: int = 0


@dataclass(kw_only=True)
class Breaker:
    """Does the faults one after the other. `broken` are promises that were not kept meanwhile, in words."""

    system: System
    monitor: Monitor
    load: Load
    http: httpx.AsyncClient
    random: Random
    done: list[Done] = field(default_factory=list[Done])
    broken: list[str] = field(default_factory=list[str])

    async def do(self, step: Step) -> None:
        """Break and heal. Raises `NotBroken`, `NotHealed`, `SystemNotStarted`."""
        done = Done(step=step, begun=_now())
        self.done.append(done)
        match step.what:
            case "kill":
                await self._kill(step, done)
            case "freeze":
                await self._freeze(step)
            case "gone":
                await self._gone(step, done)
            case "disk full":
                await self._disk_full(step)
            case "stop all":
                await self._stop_all()
            case _:
                done.kills = await asyncio.to_thread(self.system.kill_everything)
                await asyncio.to_thread(self.system.start)
        await self.monitor.starts_again(HEALED_SECONDS_MAX)
        done.over = _now()

    async def _kill(self, step: Step, done: Done) -> None:
        process = self._choose(step)
        pid, done.kills = self.system.kill(process), 1
        await asyncio.to_thread(self.system.restarted, process, pid)

    async def _freeze(self, step: Step) -> None:
        with self.system.frozen(self._choose(step)):
            await asyncio.sleep(step.seconds)

    async def _gone(self, step: Step, done: Done) -> None:
        """The part is away: whatever is submitted over HTTP and over NATS must be accepted all the time."""
        with self.system.nobody_restarts():
            pid, done.kills = self.system.kill(step.part), 1
            until = time.monotonic() + step.seconds
            while time.monotonic() < until:
                closed = await self.load.probe()
                self.broken += [f"a task was not accepted over {door} while {step.part} was away" for door in closed]
                await asyncio.sleep(PROBE_SECONDS)
        await asyncio.to_thread(self.system.restarted, step.part, pid)
        await self._reads()

    async def _disk_full(self, step: Step) -> None:
        with self.system.full_disk():
            deadline = time.monotonic() + FULL_SECONDS_MAX
            head = -1
            while self.monitor.head > head:  # the little room that is left is being used up
                if time.monotonic() > deadline:
                    raise NotBroken("the log grew although the disk of nats-server was full")
                head = self.monitor.head
                await asyncio.sleep(step.seconds / 2)

    async def _stop_all(self) -> None:
        status = await asyncio.to_thread(self.system.stop)
        if status != 0:
            self.broken.append(f"the system ended with {status} when it was asked to stop")
        await asyncio.to_thread(self.system.start)

    async def _reads(self) -> None:
        """Wait until the read model answers again."""
        deadline = time.monotonic() + HEALED_SECONDS_MAX
        while not await self._is_read():
            if time.monotonic() > deadline:
                raise NotHealed(f"the read model did not answer within {HEALED_SECONDS_MAX:.0f} s")
            await asyncio.sleep(POLL_SECONDS)

    async def _is_read(self) -> bool:
        try:
            url = f"{self.system.connection.http_url}/api/v1/tasks"
            return (await self.http.get(url, params={"limit": 1}, timeout=READ_SECONDS_MAX)).is_success
        except httpx.HTTPError:
            return False

    def _choose(self, step: Step) -> str:
        return choose_process(step, self.random, self.system.connection.processes, self.monitor.leaders)


def _now() -> Instant:
    return Instant(time.time_ns() // 1_000)
