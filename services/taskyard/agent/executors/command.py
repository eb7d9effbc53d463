"""`command`: an argument vector, or a script for `/bin/sh`, in a working directory of its own."""

import signal
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from taskyard.agent.errors import ProgramNotFoundError
from taskyard.agent.executors import Completed, Context, Outcome, Tail, Unsuccessful, describe_exit
from taskyard.agent.executors.environment import inherited
from taskyard.agent.executors.work_folders import WorkFolders
from taskyard.contracts.agent_protocol import Assignment
from taskyard.contracts.events import TaskError
from taskyard.contracts.kinds import decode_input
from taskyard.contracts.kinds.command import CommandInput
from taskyard.contracts.values import Position, TaskId

KIND = "command"
STDERR_TAIL_BYTES = 1500
STDERR_TAIL_LINES = 5


class Command:
    """Runs commands in folders below `directory`."""

    kinds: tuple[str, ...] = (KIND,)
    stop_signal = signal.SIGTERM

    def __init__(self, directory: Path, live: Collection[Position] = ()) -> None:
        self._folders = WorkFolders(directory, live)

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

        async with self._folders.working(assignment.position, context) as work:
            argv = what.argv
            if argv is None:
                script = self._folders.hand(assignment.position, "script", (what.script or "").encode(), context)
                argv = ["/bin/sh", str(script)]
            try:
                return _judge(await context.run(argv, step=KIND, cwd=work, env=env, tap=tap), tail)
            except ProgramNotFoundError:
                # What an argument says is for the task's owner alone, the first one too; the error is for everybody.
                message = "the program that argv begins with is not on this worker"
                return Unsuccessful(error=TaskError(code="not_found", message=message, retryable=False))

    def forget(self, task: TaskId) -> None:
        """Nothing is kept for a command."""


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
