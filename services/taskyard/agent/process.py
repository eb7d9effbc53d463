"""Processes of attempts: who one is for certain, which bear the mark of an agent's folder, and how those are ended.

Marks are for when the supervisor was killed, or its journal lost: as long as it lives it knows better.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
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
ENV_STOP_SIGNAL = "TASKYARD_STOP_SIGNAL"
"""Set for every process of an attempt; the last one is the number of the signal that tells it to end in order."""

MARKED_POLL_SECONDS = 0.1
KEEPERS_SECONDS = ORPHAN_GRACE_SECONDS + 2.0
"""How long keepers whose supervisor died may take to stop their programs in order."""
MARKED_GRACE_SECONDS = ORPHAN_GRACE_SECONDS
_STOP_SIGNALS = {str(int(one)).encode(): one for one in (signal.SIGINT, signal.SIGTERM)}


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
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 (names only)
    return [pid for pid in pids if wanted <= _environment_of(pid)]


async def end_marked(directory: Path, task: str | None = None) -> None:
    """Wait until no such process lives: keepers end them in order. What they do not end gets the signal of its kind, once,
    since a second one would tell Terraform to let go of its state, and after its grace KILL.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    told = set[int]()
    while pids := marked(directory, task):
        waited = loop.time() - begun
        if waited > KEEPERS_SECONDS + MARKED_GRACE_SECONDS:
            _signal(pids, lambda _: signal.SIGKILL)
        elif waited > KEEPERS_SECONDS:
            _signal([pid for pid in pids if pid not in told], _stop_signal_of)
            told.update(pids)
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


def _environment_of(pid: int) -> set[bytes]:
    """Nothing for one that is gone, or of another user; of a zombie there is nothing to read."""
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()


def _stop_signal_of(pid: int) -> signal.Signals:
    prefix = f"{ENV_STOP_SIGNAL}=".encode()
    texts = [one.removeprefix(prefix) for one in _environment_of(pid) if one.startswith(prefix)]
    return next((_STOP_SIGNALS[text] for text in texts if text in _STOP_SIGNALS), signal.SIGTERM)


def _signal(pids: list[int], number_for: Callable[[int], int]) -> None:
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, number_for(pid))


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
