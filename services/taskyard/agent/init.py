"""The first process of a container: `python -m taskyard.agent.init PROGRAM [ARGUMENT …]`.

It takes the exit status of all whose parent is gone, which nobody else does there, and hands signals on to its program.
It starts that again when it was killed or failed: the container ends with its first process, and all that the agent's
supervisor runs with it. It ends with the program's status when it was told to, and when the program says itself that it
is not to be started again.
"""

import os
import signal
import sys
import time

from taskyard.agent.errors import REPLACED_STATUS
from taskyard.agent.supervisor.keeper import become_subreaper

RESTART_SECONDS = 1.0
FINAL_STATUSES = frozenset({0, 2, REPLACED_STATUS})
"""It has left in order, its settings are wrong, another one took its place."""
HANDED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
STOPPING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_HEARD = {signal.SIGCHLD, *HANDED_ON}


def main() -> int:
    """Run the program that the arguments name, until its end is final."""
    become_subreaper()  # where another process is the first one
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    is_stopping = False
    child, start_at = _start(sys.argv[1:]), 0.0
    while True:
        heard = signal.sigtimedwait(_HEARD, RESTART_SECONDS)
        number = heard.si_signo if heard is not None else 0
        is_stopping = is_stopping or number in STOPPING
        if number in HANDED_ON and child:
            os.kill(child, number)
        status = _reap(child)
        if status is not None:
            if is_stopping or status in FINAL_STATUSES:
                return status
            child, start_at = 0, time.monotonic() + RESTART_SECONDS
        if not child and is_stopping:
            return 0
        if not child and time.monotonic() >= start_at:
            child = _start(sys.argv[1:])


def _start(argv: list[str]) -> int:
    return os.posix_spawnp(argv[0], argv, os.environ, setsigmask=())


def _reap(child: int) -> int | None:
    """Take the status of everything that has ended; returns that of `child`, as shells tell it."""
    found: int | None = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            found = code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
