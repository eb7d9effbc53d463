"""Processes of attempts: who one is for certain, which bear the mark of an agent's folder, and how those are ended.

Marks are for when the supervisor was killed, or its journal lost: as long as it lives it knows better.
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from taskyard.agent.errors import ProgramNotFoundError
from taskyard.agent.slots import ProcessIdentity
from taskyard.agent.supervisor.keeper import ORPHAN_GRACE_SECONDS

ENV_TASK = "TASKYARD_TASK"
ENV_ATTEMPT = "TASKYARD_ATTEMPT"
ENV_WORKER = "TASKYARD_WORKER"
ENV_DIRECTORY = "TASKYARD_AGENT_DIRECTORY"
"""Set for every process of an attempt."""

MARKED_POLL_SECONDS = 0.1
KEEPERS_SECONDS = ORPHAN_GRACE_SECONDS + 2.0
"""How long keepers whose supervisor died may take to stop their programs in order."""
MARKED_GRACE_SECONDS = 5.0


def identity_of(pid: int, start_ticks: int) -> ProcessIdentity:
    """The identity of a process of this boot."""
    return ProcessIdentity(pid=pid, start_ticks=start_ticks, boot=_boot())


def place_of(directory: Path) -> str:
    """What tells the processes of an agent's folder from all others: the boot, whom this process can see, and the folder."""
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    return blake2b(f"{_boot()} {namespace} {directory.resolve()}".encode(), digest_size=16).hexdigest()


def marked(directory: Path, task: str | None = None) -> list[int]:
    """The living processes of attempts of the agent in this folder, of one task or of all."""
    wanted = {f"{ENV_DIRECTORY}={directory.resolve()}".encode()}
    if task is not None:
        wanted.add(f"{ENV_TASK}={task}".encode())
    found: list[int] = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 (names only)
        if entry.isdigit():
            with suppress(OSError):  # it is gone, or of another user; of a zombie there is nothing to read
                environment = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
                if wanted <= set(environment):
                    found.append(int(entry))
    return found


async def end_marked(directory: Path, task: str | None = None) -> None:
    """Wait until no such process lives: keepers end them in order; what they do not end gets TERM, and then KILL."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    was_told = False
    while pids := marked(directory, task):
        waited = loop.time() - begun
        if waited > KEEPERS_SECONDS and not was_told:
            was_told = True
            _signal(pids, signal.SIGTERM)
        if waited > KEEPERS_SECONDS + MARKED_GRACE_SECONDS:
            _signal(pids, signal.SIGKILL)
        await asyncio.sleep(MARKED_POLL_SECONDS)


def check_found(program: str, cwd: Path, env: Mapping[str, str]) -> None:
    """Raise `ProgramNotFoundError` where there is no such program or directory."""
    if not cwd.is_dir():
        raise ProgramNotFoundError(f"there is no directory {cwd} on this worker")
    if "/" in program:
        candidates = [cwd / program]
    else:
        candidates = [Path(cwd, folder, program) for folder in env.get("PATH", os.defpath).split(":")]
    if not program or not any(one.is_file() and os.access(one, os.X_OK) for one in candidates):
        raise ProgramNotFoundError(f"there is no program {program} on this worker")


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, number)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
