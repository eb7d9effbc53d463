"""`command`: an argument vector, or a script for `/bin/sh`, in a working directory of its own."""

import asyncio
import os
import shutil
import signal
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from taskyard.agent.errors import ProgramNotFoundError
from taskyard.agent.executors import Completed, Context, Outcome, Tail, Unsuccessful, describe_exit
from taskyard.contracts.agent_protocol import Assignment
from taskyard.contracts.events import TaskError
from taskyard.contracts.kinds import CommandInput, decode_input
from taskyard.contracts.values import Position, TaskId
from taskyard.private_files import make_folder

KIND = "command"
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
"""All that a command sees of the agent's environment."""
STDERR_TAIL_BYTES = 1500
STDERR_TAIL_LINES = 5


class Command:
    """Runs commands below `directory`."""

    stop_signal = signal.SIGTERM

    def __init__(self, directory: Path, live: Collection[Position] = ()) -> None:
        self._directory = directory
        make_folder(directory)
        kept = {str(position) for position in live}
        for left in directory.iterdir():
            if left.name not in kept:
                # What cannot be removed (a command may have mounted something there) is no reason not to work.
                shutil.rmtree(left, ignore_errors=True)

    async def run(self, assignment: Assignment, context: Context) -> Outcome:
        """Run the command; a failure can be tried again, a program that is not there cannot."""
        what: CommandInput = decode_input(KIND, assignment.input)
        argv = what.argv or ["/bin/sh", "-c", what.script or ""]
        env = {name: os.environ[name] for name in INHERITED if name in os.environ} | what.env
        if assignment.traceparent:
            env["TRACEPARENT"] = assignment.traceparent
        tail = Tail(STDERR_TAIL_BYTES)

        def tap(stream: str, data: bytes) -> None:
            if stream == "stderr":
                tail.add(data)

        work = self._directory / str(assignment.position)
        make_folder(work)
        try:
            outcome = _judge(await context.run(argv, step=KIND, cwd=work, env=env, tap=tap), tail)
        except ProgramNotFoundError as error:
            outcome = Unsuccessful(error=TaskError(code="not_found", message=str(error), retryable=False))
        except Exception:
            await _remove(work)
            raise
        # Not in `finally`: an agent that goes leaves the command running.
        await _remove(work)
        return outcome

    def forget(self, task: TaskId) -> None:
        """Nothing is kept for a command."""


async def _remove(work: Path) -> None:
    """A command may leave a million files: removing them must not keep the agent from telling that it lives."""
    await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)


def _judge(exit_code: int, tail: Tail) -> Outcome:
    result: dict[str, Any] = {"exit_code": exit_code}
    raw = msgspec.Raw(msgspec.json.encode(result))
    if exit_code == 0:
        return Completed(result=raw)
    lines = tail.data.decode(errors="replace").strip().splitlines()[-STDERR_TAIL_LINES:]
    message = describe_exit("the command", exit_code)
    if lines:
        message += ": " + "\n".join(lines)
    return Unsuccessful(error=TaskError(code="exit_status", message=message, retryable=True), result=raw)
