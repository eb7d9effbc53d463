"""A process that is held to a share of the processors: it stands still for as long as it has had more."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

LOOK_SECONDS = 0.02
_TICKS = os.sysconf("SC_CLK_TCK")


def allowed_seconds(*, share: float, processors: int, elapsed_seconds: float) -> float:
    """How much processor time a process may have had by then."""
    return share * processors * elapsed_seconds


def used_seconds(pid: int) -> float:
    """The processor time that a process has had; 0 for one that is gone."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


async def hold(pid: int, share: float) -> None:
    """Hold the process to this share of all processors until this is cancelled, or the process is gone."""
    processors = os.cpu_count() or 1
    begun, before = time.monotonic(), used_seconds(pid)
    while True:
        may = allowed_seconds(share=share, processors=processors, elapsed_seconds=time.monotonic() - begun)
        try:
            os.kill(pid, signal.SIGSTOP if used_seconds(pid) - before > may else signal.SIGCONT)
        except ProcessLookupError:
            return
        await asyncio.sleep(LOOK_SECONDS)
