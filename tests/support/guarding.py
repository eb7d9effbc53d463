"""What tests start ends with them, also when pytest is killed.

Servers have sessions of their own, and PostgreSQL a user of its own, so neither Ctrl-C nor the kernel's signal at a parent's
death reaches all of them. But everything that descends from this process bears a mark in its environment. A guard, which
does not, holds one end of a pipe to us. The kernel closes the other end however we end, and then the guard kills whoever
bears the mark.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "TESTED_BY"
"""Not TASKYARD_…: that would be a setting."""
ROUNDS_MAX = 100
"""Who is about to start another when it is killed leaves that one to the next round."""
ROUND_SECONDS = 0.05


def guard_what_is_started() -> "subprocess.Popen[bytes]":
    """Mark all that this process starts from now on, and start a guard that kills it when this process has ended."""
    unmarked = {name: value for name, value in os.environ.items() if name != MARK}
    os.environ[MARK] = secrets.token_hex(8)
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, f"{MARK}={os.environ[MARK]}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=unmarked,
        start_new_session=True,
    )


def bearers(mark: str) -> list[int]:
    """The processes with this in their environment; one that nobody has waited for yet has none."""
    found: list[int] = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
            except OSError:
                continue  # it has ended, or is somebody else's
    return found


def kill_all(mark: str) -> None:
    """Kill all processes with this in their environment."""
    for _ in range(ROUNDS_MAX):
        if not (left := bearers(mark)):
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(ROUND_SECONDS)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    kill_all(sys.argv[1])
