"""`command`: an argument vector, or a script for `/bin/sh`, in a working directory of its own."""

import asyncio
import shutil
import signal
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from taskyard.agent.errors import ProgramNotFoundError
from taskyard.agent.executors import Completed, Context, Outcome, Tail, Unsuccessful, describe_exit
from taskyard.agent.executors.directories import make_passable
from taskyard.agent.executors.environment import inherited
from taskyard.agent.task_users import TaskUser
from taskyard.contracts.agent_protocol import Assignment
from taskyard.contracts.events import TaskError
from taskyard.contracts.kinds import decode_input
from taskyard.contracts.kinds.command import CommandInput
from taskyard.contracts.values import Position, TaskId
from taskyard.private_files import make_folder, write_passing

KIND = "command"
SCRIPT_SUFFIX = "-script"
STDERR_TAIL_BYTES = 1500
STDERR_TAIL_LINES = 5


class Command:
    """Runs commands below `directory`."""

    stop_signal = signal.SIGTERM

    def __init__(self, directory: Path, live: Collection[Position] = ()) -> None:
        self._directory = directory.resolve()
        make_passable(directory)
        kept = {f"{position}{suffix}" for position in live for suffix in ("", SCRIPT_SUFFIX)}
        for left in directory.iterdir():
            if left.name not in kept:
                # What cannot be removed (a command may have mounted something there) is no reason not to work.
                shutil.rmtree(left, ignore_errors=True)

    async def run(self, assignment: Assignment, context: Context) -> Outcome:
        """Run the command; a failure can be tried again, a program that is not there cannot."""
        what: CommandInput = decode_input(KIND, assignment.input)
        env = inherited(context.user) | what.env
        if assignment.traceparent:
            env["TRACEPARENT"] = assignment.traceparent
        tail = Tail(STDERR_TAIL_BYTES)

        def tap(stream: str, data: bytes) -> None:
            if stream == "stderr":
                tail.add(data)

        work = self._directory / str(assignment.position)
        _make_private(work, context.user)
        script = work.with_name(f"{work.name}{SCRIPT_SUFFIX}")
        try:
            argv = what.argv or ["/bin/sh", str(_write_script(script, what.script or "", context))]
            outcome = _judge(await context.run(argv, step=KIND, cwd=work, env=env, tap=tap), tail)
        except ProgramNotFoundError:
            # What an argument says is for the task's owner alone, the first one too; the error is for everybody.
            message = "the program that argv begins with is not on this worker"
            outcome = Unsuccessful(error=TaskError(code="not_found", message=message, retryable=False))
        except Exception:
            await _remove(work, script)
            raise
        # Not in `finally`: an agent that goes leaves the command running.
        await _remove(work, script)
        return outcome

    def forget(self, task: TaskId) -> None:
        """Nothing is kept for a command."""


def _make_private(folder: Path, user: TaskUser | None) -> None:
    make_folder(folder)
    if user is not None:
        user.owns(folder)


def _write_script(folder: Path, text: str, context: Context) -> Path:
    """A file for the shell: everybody on the host could read the script as an argument."""
    file = folder / "script"
    if not (context.is_resumed and file.exists()):
        make_folder(folder)
        write_passing(file, text.encode())
        if context.user is not None:  # the folder last: as long as it is ours nobody can put a link into it
            context.user.owns(file, folder)
    return file


async def _remove(work: Path, script: Path) -> None:
    """A command may leave a million files: removing them must not keep the agent from telling that it lives."""
    await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
    if script.exists():
        shutil.rmtree(script, ignore_errors=True)


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
