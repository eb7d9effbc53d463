"""Functions of Python packages that are tasks: each attempt is a Python of its own."""

import os
import signal
import stat
import sys
from collections.abc import Collection, Iterable, Mapping
from importlib import import_module
from pathlib import Path

import msgspec

from taskyard.agent.errors import ModuleWithoutTasksError
from taskyard.agent.executors import (
    RESULT_BYTES_MAX,
    Completed,
    Context,
    Outcome,
    Unsuccessful,
    describe_exit,
)
from taskyard.agent.executors.environment import inherited
from taskyard.agent.executors.work_folders import WorkFolders
from taskyard.agent.run_function import ENDED, Ended
from taskyard.contracts.agent_protocol import Assignment
from taskyard.contracts.events import TaskError
from taskyard.contracts.readable import UNREADABLE
from taskyard.contracts.values import Position, TaskId
from taskyard.task import TaskFunction

INHERITED = ("PYTHONPATH", "VIRTUAL_ENV")
"""What Python needs besides, to find what the agent finds."""
ENDED_BYTES_MAX = RESULT_BYTES_MAX + 16 * 1024

_decode_ended = msgspec.json.Decoder(Ended).decode


def functions_of(modules: Iterable[str]) -> dict[str, str]:
    """Where the functions of these modules are that are tasks, by their kinds.

    Raises:
        ModuleWithoutTasksError: there is no such module, or no task in it.
    """
    functions: dict[str, str] = {}
    for name in modules:
        try:
            module = import_module(name)
        except ImportError as error:
            raise ModuleWithoutTasksError(f"modules: {name} cannot be imported: {error}") from error
        found = [each for each in vars(module).values() if isinstance(each, TaskFunction)]
        if not found:
            raise ModuleWithoutTasksError(f"modules: {name} holds no function with @task")
        functions |= {each.kind.name: each.where for each in found}
    return functions


class Functions:
    """Runs functions in folders below `directory`; `functions` tells where the one of each kind is."""

    stop_signal = signal.SIGINT  # Python cancels the function, which may clean up

    def __init__(self, functions: Mapping[str, str], directory: Path, live: Collection[Position] = ()) -> None:
        self.kinds: tuple[str, ...] = tuple(functions)
        self._functions = functions
        self._folders = WorkFolders(directory, live)

    async def run(self, assignment: Assignment, context: Context) -> Outcome:
        """Run the function; how it ended stands in a file that it leaves."""
        async with self._folders.working(assignment.position, context) as work:
            given = self._folders.hand(assignment.position, "input.json", bytes(assignment.input), context)
            program = [sys.executable, "-P", "-m", "taskyard.agent.run_function"]
            argv = [*program, self._functions[assignment.kind], str(given)]
            env = inherited(context.user, INHERITED)
            return _judge(await context.run(argv, step=assignment.kind, cwd=work, env=env), work / ENDED)

    def forget(self, task: TaskId) -> None:
        """Nothing is kept for a function."""


def _judge(status: int, left: Path) -> Outcome:
    try:
        ended = _decode_ended(_read(left))
    except (OSError, *UNREADABLE):
        error = TaskError(code="exit_status", message=describe_exit("the function", status), retryable=True)
        return Unsuccessful(error=error)
    if ended.error is not None:
        return Unsuccessful(error=ended.error)
    if len(ended.result) > RESULT_BYTES_MAX:
        message = f"the result is longer than {RESULT_BYTES_MAX} bytes of JSON"
        return Unsuccessful(error=TaskError(code="result_too_large", message=message, retryable=False))
    return Completed(result=ended.result)


def _read(file: Path) -> bytes:
    """What stands in a file of the task's user, who may have put anything in its place, a link to another's file too."""
    found = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        about = os.fstat(found)
        if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
            raise OSError(f"{file} is no file of its own")
        return os.read(found, ENDED_BYTES_MAX + 1)
    finally:
        os.close(found)
