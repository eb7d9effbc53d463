"""Executors run the attempts of a kind. Each is told what to run and gets a context to run it in."""

import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Raw, Struct

from taskyard.agent.task_users import TaskUser
from taskyard.contracts.agent_protocol import Assignment
from taskyard.contracts.events import Changes, TaskError
from taskyard.contracts.values import TaskId

RESULT_BYTES_MAX = 32 * 1024
"""A result is part of an event: what is larger is left out."""
NO_RESULT = Raw(b"null")


class Completed(Struct, frozen=True, kw_only=True):
    """The attempt did what it should."""

    result: Raw = NO_RESULT


class PlanKept(Struct, frozen=True, kw_only=True):
    """A plan is made and kept here until it is applied or over."""

    changes: Changes


class Unsuccessful(Struct, frozen=True, kw_only=True):
    """The attempt ended badly."""

    error: TaskError
    result: Raw = NO_RESULT


Outcome = Completed | PlanKept | Unsuccessful

Tap = Callable[[str, bytes], None]
"""Gets output as it comes: `stdout` or `stderr`, and the bytes."""


class Context(Protocol):
    """What an attempt may do. All of it ends the attempt by an exception when it is to stop."""

    is_resumed: bool
    """Whether an earlier run of the agent began the attempt: what it prepared is there."""
    user: TaskUser | None
    """Whom its programs run as, None for the agent's own user."""

    async def run(
        self,
        argv: Sequence[str],
        *,
        step: str,
        cwd: Path,
        env: Mapping[str, str],
        tap: Tap | None = None,
        hidden_bytes_max: int | None = None,
    ) -> int:
        """Run a program to its end, and to the end of all that it started.

        `step` names it within the attempt: a step that runs or has run, started by an earlier run of the agent too, is
        not started again, and is told from its beginning. Its output is shown, unless it is hidden and kept only up to
        so many bytes.

        Returns the exit code, negative for the signal that ended it. Raises `ProgramNotFoundError`, `OSError`, and
        `AttemptStoppedError` when the attempt was stopped.
        """
        ...

    async def pause(self, duration_seconds: float) -> None:
        """Wait. Raises `AttemptStoppedError` when the attempt is stopped meanwhile."""
        ...

    def progress(self, percent: int, message: str) -> None:
        """Report progress. Of what comes too fast the newest counts, and is told in time or at the end."""
        ...


class Executor(Protocol):
    """Runs attempts of some kinds. It may be run again for an attempt that another run of the agent began.

    That an attempt has started, its deadline and its cancel are not its affair: `run` is cancelled where it is to stop and
    no program of it runs, and where one runs, `Context.run` raises as soon as that has ended.
    """

    kinds: tuple[str, ...]
    """What it runs."""
    stop_signal: signal.Signals
    """What tells its programs to end in order."""

    async def run(self, assignment: Assignment, context: Context) -> Outcome:
        """Run one attempt to its end."""
        ...

    def forget(self, task: TaskId) -> None:
        """The task is over: what is kept for it can go."""
        ...


def describe_exit(program: str, exit_code: int) -> str:
    """How a program ended, in words."""
    if exit_code >= 0:
        return f"{program} ended with {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"{program} was ended by {name}"


class Head:
    """Keeps the first bytes of what it is given."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.data = bytearray()
        self.is_cut = False

    def add(self, data: bytes) -> None:
        """Take more in."""
        room = self._bytes_max - len(self.data)
        self.is_cut = self.is_cut or len(data) > room
        self.data += data[:room]


class Tail:
    """Keeps the last bytes of what it is given."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.data = bytearray()

    def add(self, data: bytes) -> None:
        """Take more in."""
        self.data += data[-self._bytes_max :]
        del self.data[: -self._bytes_max]
