"""The faults themselves: each breaks something, heals it, and returns when tasks start again.

One that had no effect ends the run: what came of it would prove nothing.
"""

import asyncio
import time
from dataclasses import dataclass, field
from random import Random

import httpx

from taskyard.chaos.agents import Twin, copy_journal, find_state_faults, put_journal_back
from taskyard.chaos.errors import NotBroken, NotHealed
from taskyard.chaos.load import BURST, Load
from taskyard.chaos.monitor import Monitor
from taskyard.chaos.plan import Step, choose_process
from taskyard.chaos.system import HEALED_SECONDS_MAX, NATS, POLL_SECONDS, WORKERS, System
from taskyard.chaos.witnesses import Witnesses
from taskyard.contracts.values import Instant
from taskyard.dev.options import SERVICES

NEVER = Instant(0)
PROBE_SECONDS = 2.0
READ_SECONDS_MAX = 5.0
FULL_SECONDS_MAX = 30.0
TWIN_CONNECT_SECONDS_MAX = 30.0
APPLY_SECONDS_MAX = 90.0


@dataclass(kw_only=True)
class Done:
    """One fault that was done: from when until when, in log time, how many processes it killed, which workers it hit."""

    step: Step
    begun: Instant
    over: Instant = NEVER
    kills: int = 0
    hit: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Breaker:
    """Does the faults one after the other. `broken` are promises that were not kept meanwhile, in words."""

    system: System
    monitor: Monitor
    load: Load
    witnesses: Witnesses
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
                await self._freeze(step, done)
            case "freeze all":
                await self._freeze_all(step)
            case "gone":
                await self._gone(step, done)
            case "disk full" if step.part == NATS:
                await self._disk_full(step)
            case "disk full":
                await self._worker_disk_full(step)
            case "twin":
                await self._twin(step, done)
            case "journal back":
                await self._journal_back(done)
            case "under apply":
                await self._under_apply(done)
            case "refusals":
                await self._refusals()
            case "stop all":
                done.hit = WORKERS
                await self._stop_all()
            case _:
                done.hit = WORKERS
                done.kills = await asyncio.to_thread(self.system.kill_everything)
                await asyncio.to_thread(self.system.start)
        await self.monitor.starts_again(HEALED_SECONDS_MAX)
        done.over = _now()

    # -- processes -----------------------------------------------------------------------------------------------------

    async def _kill(self, step: Step, done: Done) -> None:
        process = self._choose(step)
        pid, done.kills = self.system.kill(process), 1
        await asyncio.to_thread(self.system.restarted, process, pid)

    async def _freeze(self, step: Step, done: Done) -> None:
        process = self._choose(step)
        done.hit = (process,) if process in WORKERS else ()
        with self.system.frozen([process]):
            await asyncio.sleep(step.seconds)

    async def _freeze_all(self, step: Step) -> None:
        """All services stand still at once: as the one process does that has all of them, or a host under pressure."""
        services = [name for name in self.system.connection.processes if name.split("-")[0] in SERVICES]
        with self.system.frozen(services):
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
        with self.system.disks[NATS].full():
            deadline = time.monotonic() + FULL_SECONDS_MAX
            head = -1
            while self.monitor.head > head:  # the little room that is left is being used up
                if time.monotonic() > deadline:
                    raise NotBroken("the log grew although the disk of nats-server was full")
                head = self.monitor.head
                await asyncio.sleep(step.seconds / 2)

    async def _worker_disk_full(self, step: Step) -> None:
        with self.system.disks[step.part].full():
            await asyncio.sleep(step.seconds)

    # -- agents --------------------------------------------------------------------------------------------------------

    async def _twin(self, step: Step, done: Done) -> None:
        """A second agent of the same name has another folder: it must not join while the first is there, and is ended later."""
        worker = self._choose(step)
        done.hit = (worker,)
        folder = self.system.layout.directory / "twins" / f"twin-{len(self.done)}"
        self.witnesses.also(worker, folder)
        second = await asyncio.to_thread(Twin, self.system.layout.configuration_file(worker), folder)
        try:
            if not await asyncio.to_thread(second.is_connected, TWIN_CONNECT_SECONDS_MAX):
                raise NotBroken(f"the second agent of {worker} did not connect")
            await asyncio.sleep(step.seconds)
            if second.incarnation() in self.monitor.joined:
                raise NotBroken(f"the second agent of {worker} took the place of the first, which was there")
        finally:
            await asyncio.to_thread(second.stop)
        await self._is_back(worker)

    async def _is_back(self, worker: str) -> None:
        """Wait until the agent of a worker that was doubled is taken for it again."""
        url = f"{self.system.connection.http_url}/api/v1/workers"

        async def takes_tasks() -> bool:
            try:
                answer = await self.http.get(url, timeout=READ_SECONDS_MAX)
                found = {item["id"]: item["status"] for item in answer.json()["items"]} if answer.is_success else {}
            except httpx.HTTPError:
                return False
            return found.get(worker) not in {None, "lost", "suspect"}

        deadline = time.monotonic() + HEALED_SECONDS_MAX
        while not await takes_tasks():
            if time.monotonic() > deadline:
                raise NotHealed(f"{worker} was not there again within {HEALED_SECONDS_MAX:.0f} s")
            await asyncio.sleep(POLL_SECONDS)

    async def _journal_back(self, done: Done) -> None:
        """The journal of an agent that applies is put back to what it was before the apply, and the agent killed."""
        layout = self.system.layout
        copies = layout.directory / "copies" / f"{len(self.done)}"
        for worker in WORKERS:
            copy_journal(layout.worker_directory(worker), copies / worker, self.system.pid(worker))
        _, worker = await self._slow_apply()
        done.hit, pid = (worker,), self.system.pid(worker)
        put_journal_back(layout.worker_directory(worker), copies / worker, pid)
        done.kills = 1
        await asyncio.to_thread(self.system.restarted, worker, pid)

    async def _under_apply(self, done: Done) -> None:
        """An agent is killed under an apply, which goes on and ends as it ends: once, with a whole state and no lock."""
        task, worker = await self._slow_apply()
        pid, done.kills = self.system.kill(worker), 1
        await asyncio.to_thread(self.system.restarted, worker, pid)
        lives = self.monitor.lives.by_id
        if not await self.monitor.until(lambda: lives[task].is_over, APPLY_SECONDS_MAX):
            raise NotHealed(
                f"the apply {task} has not ended within {APPLY_SECONDS_MAX:.0f} s after its agent was killed"
            )
        wrong = find_state_faults(self.load.slow_configuration, task)
        runs = [run for run in self.witnesses.runs() if run.task == task]
        if len(runs) != 1 or runs[0].ended == runs[0].began:
            wrong.append(f"the witnesses saw {len(runs)} runs, and the end of {sum(r.ended != r.began for r in runs)}")
        if lives[task].status != "completed":
            wrong.append(f"its task has ended as {lives[task].status}")
        self.broken += [f"after kill -9 of {worker} under the apply {task}: {what}" for what in wrong]

    async def _slow_apply(self) -> tuple[str, str]:
        """An apply that has begun, and its worker. Raises `NotBroken`."""
        task = await self.load.apply_slowly()
        if not await self.monitor.until(lambda: self.witnesses.begun(task) is not None, APPLY_SECONDS_MAX):
            raise NotBroken(f"the apply {task} did not begin within {APPLY_SECONDS_MAX:.0f} s")
        run = self.witnesses.begun(task)
        assert run is not None
        if run.ended != run.began:
            raise NotBroken(f"the apply {task} was over before anything was done to its agent")
        return task, run.host

    # -- commands ------------------------------------------------------------------------------------------------------

    async def _refusals(self) -> None:
        """Many commands at once of which nothing is accepted, each of them refused in many words."""
        before = self.monitor.refusals
        stored = await self.load.burst()
        if stored < BURST:
            raise NotBroken(f"only {stored} of {BURST} commands were stored")
        if not await self.monitor.until(lambda: self.monitor.refusals >= before + BURST, HEALED_SECONDS_MAX):
            refused = self.monitor.refusals - before
            raise NotHealed(f"{refused} of {BURST} commands were refused within {HEALED_SECONDS_MAX:.0f} s")

    # -- everything ----------------------------------------------------------------------------------------------------

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
