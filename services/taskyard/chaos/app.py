"""`python -m taskyard.chaos`: start the system, break it again and again under load, judge what is left."""

import asyncio
import shutil
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import nats.errors
from rich.console import Console

from taskyard.bench.command_line import ended_in_order, leaves, uninterrupted
from taskyard.chaos import hostile
from taskyard.chaos.agents import left_of
from taskyard.chaos.connecting import as_admin, as_service, over_http
from taskyard.chaos.errors import ChaosError, NotBroken, NotHealed
from taskyard.chaos.faults import Breaker
from taskyard.chaos.gathering import read_commands, read_journal, read_log, read_shown
from taskyard.chaos.load import Account, Load
from taskyard.chaos.monitor import Monitor
from taskyard.chaos.options import HostileOptions, Options, parse
from taskyard.chaos.plan import Step, make_plan
from taskyard.chaos.report import FAULTS_SHOWN_MAX, Result, as_json, find_troubles, make_rows, print_result
from taskyard.chaos.screen import Screen
from taskyard.chaos.system import WORKERS, System
from taskyard.chaos.witnesses import Witnesses
from taskyard.embedded.errors import ProgramMissing
from taskyard.embedded.terraform import find_terraform
from taskyard.eventlog.errors import EventLogError
from taskyard.judge.evidence import Evidence
from taskyard.judge.faults import DOUBLING, Rule
from taskyard.judge.verdict import judge

WARM_UP_SECONDS = 3.0
BETWEEN_SECONDS = 0.3
SETTLE_SECONDS_MAX = 150.0
"""After everything was healed; the delays after failed deliveries and a lost worker's plans are well below."""
POLL_SECONDS = 0.5
INTERRUPTED = 128 + signal.SIGINT


def main(argv: list[str]) -> int:
    """Do it all, print, and return 0 if all is well, 1 if not, 2 for wrong usage, 130 when interrupted."""
    options = parse(argv)
    if isinstance(options, HostileOptions):
        try:
            return hostile.main(options)
        except KeyboardInterrupt:
            print("taskyard chaos: interrupted", file=sys.stderr)
            return INTERRUPTED
    console = Console(stderr=options.as_json)
    folder = Path(tempfile.mkdtemp(prefix="taskyard-chaos-")) if options.keep is None else options.keep.absolute()
    try:
        with ended_in_order():
            result = _judged(options, folder, console)
    except (KeyboardInterrupt, SystemExit) as ended:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(ended, SystemExit):
            raise
        print("taskyard chaos: interrupted", file=sys.stderr)
        return INTERRUPTED
    if result is not None:
        print_result(result, console)
    is_well = result is not None and result.ok
    if is_well and options.keep is None:
        shutil.rmtree(folder)
    else:
        console.print(f"data and logs are in {folder}", markup=False, soft_wrap=True)
    if result is not None and options.as_json:
        print(as_json(result), flush=True)
    return 0 if is_well else 1


def _judged(options: Options, folder: Path, console: Console) -> Result | None:
    """What came of the run; None, after saying why, if it came to no verdict."""
    result: Result | None = None
    try:
        result = asyncio.run(_run(options, folder, console))
    except* (ChaosError, EventLogError, nats.errors.Error, OSError) as group:
        for error in leaves(group):
            print(f"taskyard chaos: {error or type(error).__name__} (seed {options.seed})", file=sys.stderr)
    return result


async def _run(options: Options, folder: Path, console: Console) -> Result:
    """One run, from the start of the system to its verdict."""
    system = System(folder)
    skipped = [] if (reason := system.mount_disks()) is None else [f"the full disks: {reason}"]
    result: Result | None = None
    try:
        result = await _Run(options, system, console, skipped).whole()
        return result
    finally:
        if result is None:
            console.print("stops the system")
        with uninterrupted():
            await asyncio.to_thread(system.stop)
            system.unmount_disks(is_kept=options.keep is not None or result is None or not result.ok)


class _Run:
    """What belongs to one run."""

    def __init__(self, options: Options, system: System, console: Console, skipped: list[str]) -> None:
        self._options = options
        self._system = system
        self._console = console
        self._skipped = skipped
        self._random = Random(options.seed)
        self._has_terraform = _has_terraform()
        if not self._has_terraform:
            skipped.append("plans: there is no terraform or tofu here")

    async def whole(self) -> Result:
        """Start, break, heal, judge."""
        system, options = self._system, self._options
        begun = f"taskyard chaos, seed {options.seed}: starting the system in {system.layout.directory}"
        self._console.print(begun, markup=False, soft_wrap=True)
        await asyncio.to_thread(system.start)
        witnesses = Witnesses(system.layout.directory, {name: system.layout.worker_directory(name) for name in WORKERS})
        async with AsyncExitStack() as stack:
            control = await stack.enter_async_context(as_service(system.services))
            http = await stack.enter_async_context(over_http(system.connection.admin_token))
            door = await stack.enter_async_context(as_admin(system.connection))
            monitor = Monitor(control, system.services.partition)
            load = Load(
                system=system,
                witnesses=witnesses,
                http=http,
                client=door,
                random=self._random,
                ended=monitor.ended.total,
                long_seconds=options.freeze_seconds / 2,
            )
            breaker = Breaker(
                system=system, monitor=monitor, load=load, witnesses=witnesses, http=http, random=self._random
            )
            seconds = await self._break(breaker)
            account = load.account
            log = await read_log(control, system.services.partition)
            head = log[-1].sequence if log else 0
            asked = await read_commands(control)
            shown = await read_shown(http, f"{system.connection.http_url}/api/v1", head)
        broken = list(breaker.broken)
        if (status := await asyncio.to_thread(system.stop)) != 0:
            broken.append(f"the system ended with {status} when it was asked to stop at the end")
        if left := await asyncio.to_thread(left_of, system.layout.directory / "workers"):
            broken.append(f"{left} processes of workers were there after the system had ended")
        noted = [one for name in WORKERS for one in read_journal(name, system.layout.worker_directory(name))]
        ran = witnesses.runs()
        self._console.print(f"judging {len(log):,} commits and {len(ran):,} witnessed runs")
        evidence = Evidence(
            log=log,
            asked=asked,
            ran=ran,
            told=account.told,
            accepted=account.accepted,
            noted=noted,
            shown=shown,
            troubles=find_troubles(breaker.done),
        )
        return self._result(evidence, breaker, account, seconds, [*broken, *account.refused[:FAULTS_SHOWN_MAX]])

    async def _break(self, breaker: Breaker) -> float:
        """The load, the faults beside it, and the time that everything needs to end; how long there was load."""
        options, load, monitor = self._options, breaker.load, breaker.monitor
        steps = make_plan(
            self._random,
            rounds=options.rounds,
            outage_seconds=options.outage_seconds,
            freeze_seconds=options.freeze_seconds,
            has_own_disk=bool(self._system.disks),
            has_terraform=self._has_terraform,
        )
        following = asyncio.create_task(monitor.run())
        begun = time.monotonic()
        loading = asyncio.create_task(load.run(rate=options.rate, has_terraform=self._has_terraform))
        try:
            async with Screen(self._console, lambda: _figures(breaker, len(steps))) as screen:
                screen.say("load alone")
                await asyncio.sleep(WARM_UP_SECONDS)
                for number, step in enumerate(steps, 1):
                    screen.say(f"{number}/{len(steps)} {step.name}")
                    if not await _is_healed(breaker, step):
                        screen.say(f"given up: {breaker.broken[-1]}")
                        break
                    await asyncio.sleep(BETWEEN_SECONDS)
                screen.say("no more faults; what is left ends")
                load.stop()
                await loading
                seconds = time.monotonic() - begun
                await load.settle(SETTLE_SECONDS_MAX)
                await _until_over(breaker)
                return seconds
        finally:
            for task in (loading, following):
                task.cancel()
            await asyncio.gather(loading, following, return_exceptions=True)
            await load.settle(0.0)

    def _result(
        self, evidence: Evidence, breaker: Breaker, account: Account, seconds: float, broken: list[str]
    ) -> Result:
        verdict = judge(evidence)
        rows, gap = make_rows(verdict, breaker.done, account.accepted)
        rules = {rule.value: count for rule in Rule if (count := verdict.count(rule))}
        ended: dict[str, int] = {}
        for life in verdict.lives.values():
            ended[life.status] = ended.get(life.status, 0) + 1
        return Result(
            kills=sum(one.kills for one in breaker.done),
            tasks=len(verdict.lives),
            lost=verdict.count(Rule.LOST),
            doubled=verdict.count(*DOUBLING),
            stuck=verdict.count(Rule.STUCK),
            leaked=verdict.count(Rule.LEAKED),
            longest_gap_seconds=round(gap.seconds, 3),
            healthy_ended=verdict.count(Rule.HEALTHY),
            ok=not verdict.faults and not broken,
            seed=self._options.seed,
            seconds=round(seconds, 1),
            accepted=len(account.accepted),
            unsure=len(account.unsure),
            held_back=account.held_back,
            witnessed=len(evidence.ran),
            tasks_per_second=round(len(verdict.lives) / seconds, 1),
            ended=ended,
            events=verdict.events,
            takeovers=len(verdict.takeovers),
            faults=rows,
            faults_of_rules=rules,
            broken=broken,
            skipped=self._skipped,
            first_faults=[str(fault) for fault in verdict.faults[:FAULTS_SHOWN_MAX]],
        )


async def _is_healed(breaker: Breaker, step: Step) -> bool:
    """Do a fault; whether the system goes on. If not, what is left is judged all the same."""
    try:
        await breaker.do(step)
    except (NotBroken, NotHealed) as error:
        breaker.broken.append(f"{step.name}: {error}")
        return False
    return True


async def _until_over(breaker: Breaker) -> None:
    """Wait until nothing is under way. What then still is, the judge finds stuck."""
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while time.monotonic() < deadline:
        waiting = set(breaker.load.account.accepted) - breaker.monitor.lives.by_id.keys()
        if not waiting and not breaker.monitor.alive:
            return
        await breaker.load.confirm()
        await asyncio.sleep(POLL_SECONDS)


def _figures(breaker: Breaker, steps: int) -> dict[str, str]:
    monitor, account = breaker.monitor, breaker.load.account
    return {
        "faults": f"{len(breaker.done)}/{steps}",
        "kills": f"{sum(one.kills for one in breaker.done)}",
        "accepted": f"{len(account.accepted):,}",
        "unacknowledged": f"{len(account.unsure):,}",
        "under way": f"{monitor.alive:,}",
        "ended": f"{monitor.ended.total():,}",
        "not completed": f"{monitor.ended.total() - monitor.ended['completed']:,}",
        "broken": f"{len(breaker.broken)}",
    }


def _has_terraform() -> bool:
    try:
        find_terraform()
    except ProgramMissing:
        return False
    return True
