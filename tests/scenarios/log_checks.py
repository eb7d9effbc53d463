"""The whole log of a system that runs, before the judge, beside what witnesses saw and what HTTP tells."""

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path

import httpx

from taskyard.chaos.connecting import as_service
from taskyard.chaos.gathering import read_log as read_stored
from taskyard.chaos.gathering import read_shown
from taskyard.judge.commits import Takeover
from taskyard.judge.evidence import Evidence, Logged, Ran, Shown
from taskyard.judge.faults import Rule
from taskyard.judge.verdict import Verdict as Run
from taskyard.judge.verdict import judge
from taskyard.settings import Settings, load

__all__ = ["Run", "Takeover", "check", "read_log"]

FAULTS_SHOWN_MAX = 30


def read_log(data: Path) -> Run:
    """The log of the system that runs on this folder, as the judge reads it."""
    return judge(Evidence(log=asyncio.run(_read(data)), is_over=False))


def check(
    data: Path,
    http: httpx.Client,
    waited_for: Collection[str] = (),
    *,
    ran: Sequence[Ran] = (),
    watched: Collection[str] = (),
) -> Run:
    """Judge everything and fail with all that is wrong. Nothing may run meanwhile.

    `waited_for` are ids of tasks that must have ended; others may wait, of pools without workers for ever. `ran` is all
    that witnesses saw, who would have seen every run of the tasks `watched`.
    """
    log, shown = asyncio.run(_gather(data, http))
    evidence = Evidence(log=log, shown=shown, accepted=waited_for, ran=ran, watched=watched)
    run = judge(evidence)
    faults = [fault for fault in run.faults if fault.rule is not Rule.STUCK or fault.task in waited_for]
    told = "\n".join(map(str, faults[:FAULTS_SHOWN_MAX]))
    assert not faults, f"{len(faults)} faults\n{told}"
    return run


async def _read(data: Path) -> list[Logged]:
    settings = load(Settings, data / "config" / "services.json", {})
    async with as_service(settings) as client:
        return await read_stored(client, settings.partition)


async def _gather(data: Path, http: httpx.Client) -> tuple[list[Logged], list[Shown]]:
    log = await _read(data)
    async with httpx.AsyncClient(headers=http.headers, timeout=http.timeout, trust_env=False, verify=False) as reading:
        return log, await read_shown(reading, str(http.base_url).rstrip("/"), log[-1].sequence)
